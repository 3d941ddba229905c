"""Who gets in, what the answers to others say, and that each act is done once."""

from __future__ import annotations

import base64
from datetime import timedelta
from uuid import uuid4

import pytest
from django.test import Client

from apps.accounts.models import Token, User
from apps.accounts.scopes import SCOPES
from apps.accounts.token_text import new_text
from apps.api import services
from apps.api.authorization import needs_of
from apps.api.models import IdempotentCall
from apps.api.services import Answer, Caller, do_once
from apps.api.views import rules as rule_views
from apps.api.views.rules import Rules
from apps.core.clock import now
from apps.runs.models import Run
from tests.people import PASSWORD, administrator, person, signed_in
from tests.programs import Program, program

pytestmark = pytest.mark.django_db


def test_without_a_token_nothing_opens(client):
    answer = client.get("/api/v1/rules")

    assert answer.status_code == 401
    assert answer["WWW-Authenticate"] == 'Bearer realm="lockstep"'
    assert answer["Content-Type"] == "application/problem+json"
    assert answer.json()["code"] == "api.unauthenticated"
    assert answer["X-Request-ID"] == answer.json()["request_id"]


def test_neither_sessions_nor_passwords_open_the_api():
    browser = signed_in(administrator())
    assert browser.get("/api/v1/rules").status_code == 401
    basic = base64.b64encode(f"root:{PASSWORD}".encode()).decode()
    answer = Client().get("/api/v1/rules", headers={"Authorization": f"Basic {basic}"})
    assert answer.status_code == 401


@pytest.mark.parametrize("text", ["", "x", "lks_" + "a" * 46, "new", "é", "a b"])
def test_a_text_that_is_no_token_opens_nothing(client, text):
    text = new_text() if text == "new" else text
    answer = client.get("/api/v1/rules", headers={"Authorization": f"Bearer {text}"})

    assert answer.status_code == 401
    assert answer.json()["code"] in ("token.refused", "api.unauthenticated")


def test_a_token_in_the_address_opens_nothing():
    root = program(administrator())

    answer = Client().get(f"/api/v1/rules?access_token={root.bearer}&token={root.bearer}")

    assert answer.status_code == 401


def test_a_token_is_used_from_its_networks_only():
    root = program(administrator())
    Token.objects.update(networks=["203.0.113.0/24"])

    assert root.get("rules").json()["code"] == "token.refused"
    root.client.defaults["REMOTE_ADDR"] = "203.0.113.5"
    assert root.get("rules").status_code == 200
    root.client.defaults["REMOTE_ADDR"] = "127.0.0.1"
    spoofed = root.get("rules", headers={"X-Forwarded-For": "203.0.113.5"})
    assert spoofed.status_code == 401


def test_scope_and_permission_are_both_needed(pair):
    reader = program(administrator(), ["rules:read"])
    assert reader.get("rules").status_code == 200
    lacking = reader.post("runs", {"rule": str(pair.rule.pk)})
    assert (lacking.status_code, lacking.json()["code"]) == (403, "api.insufficient_scope")
    assert "runs:start" in lacking.json()["detail"]
    assert 'error="insufficient_scope"' in lacking["WWW-Authenticate"]

    viewer = program(person("viewer", "rules.view_rule"), SCOPES)
    assert viewer.get("rules").status_code == 200
    refused = viewer.post("runs", {"rule": str(pair.rule.pk)})
    assert (refused.status_code, refused.json()["code"]) == (403, "api.forbidden")
    assert not Run.objects.exists()


def test_who_is_deactivated_is_out_at_once():
    root = program(administrator())
    User.objects.update(is_active=False)

    assert root.get("rules").status_code == 401


def test_an_operation_that_says_nothing_is_closed(monkeypatch):
    root = program(administrator())
    monkeypatch.delattr(Rules.list, "needs")

    assert needs_of(Rules(action="list")) is None
    assert root.get("rules").status_code == 403


def test_a_token_that_came_in_clear_is_refused_not_led_on(settings):
    root = program(administrator())
    settings.SECURE_SSL_REDIRECT = True
    settings.SECURE_REDIRECT_EXEMPT = [r"^api/", r"^oauth/(?!authorize)"]
    root.client = Client()

    answer = root.get("rules")
    assert (answer.status_code, answer.json()["code"]) == (401, "token.refused")
    assert root.client.post("/oauth/token", {}).status_code == 400
    assert root.client.get("/oauth/authorize").status_code == 301
    headers = {"Authorization": f"Bearer {root.bearer}"}
    assert root.client.get("/api/v1/rules", secure=True, headers=headers).status_code == 200


@pytest.mark.parametrize(
    ("method", "place", "status", "code"),
    [
        ("get", "nothing", 404, "api.not_found"),
        ("get", "rules/x", 404, "api.not_found"),
        ("get", "rules/01900000-0000-7000-8000-000000000000", 404, "api.not_found"),
        ("get", "changes/x", 404, "api.not_found"),
        ("delete", "rules", 405, "api.method_not_allowed"),
        ("put", "rules", 405, "api.method_not_allowed"),
        ("options", "rules", 405, "api.method_not_allowed"),
    ],
)
def test_what_is_not_there_is_said_as_a_problem(method, place, status, code):
    root = program(administrator())

    answer = getattr(root.client, method)(
        f"/api/v1/{place}", headers={"Authorization": f"Bearer {root.bearer}"}
    )

    assert (answer.status_code, answer.json()["code"]) == (status, code)


def test_only_json_is_taken_and_given():
    root = program(administrator())
    headers = {"Authorization": f"Bearer {root.bearer}", "Idempotency-Key": "k"}

    form = root.client.post("/api/v1/runs", {"rule": "x"}, headers=headers)
    assert (form.status_code, form.json()["code"]) == (415, "api.unsupported_media_type")
    html = root.get("rules", headers={"Accept": "text/html"})
    assert html.status_code == 406
    for text in ("{", '{"a": NaN}', "\xff", '"x"', "[]", "null"):
        answer = root.client.post(
            "/api/v1/runs", text.encode("latin-1"), content_type="application/json", headers=headers
        )
        assert answer.status_code == 400, text
    big = root.client.post(
        "/api/v1/runs", b" " * 3_000_000, content_type="application/json", headers=headers
    )
    assert (big.status_code, big.json()["code"]) == (413, "api.too_large")


def test_a_fault_of_ours_is_a_problem_without_details(monkeypatch):
    root = program(administrator())

    def broken(*args: object) -> None:
        raise RuntimeError("canary")

    monkeypatch.setattr(rule_views, "_whole", broken)
    answer = root.get("rules")

    assert (answer.status_code, answer.json()["code"]) == (500, "internal")
    assert "canary" not in answer.content.decode()


def test_the_type_of_a_problem_says_what_helps(client):
    problem = client.get("/api/v1/rules").json()

    found = client.get(problem["type"]).json()

    assert found["code"] == "api.unauthenticated"
    assert found["what_helps"]
    assert client.get("/api/v1/problems/no.such").status_code == 404


# Once


def key() -> dict[str, str]:
    return {"Idempotency-Key": uuid4().hex}


def test_an_unsafe_call_needs_a_key(pair):
    root = program(administrator())

    for text in ("", " ", "x" * 256, "é"):
        answer = root.post("runs", {"rule": str(pair.rule.pk)}, {"Idempotency-Key": text})
        assert answer.status_code == 400
    assert answer.json()["code"] == "api.idempotency_key_missing"
    assert not Run.objects.exists()


def test_the_same_call_is_done_once_and_answered_alike(pair):
    root, headers = program(administrator()), key()

    first = root.post("runs", {"rule": str(pair.rule.pk)}, headers)
    again = root.post("runs", {"rule": str(pair.rule.pk)}, headers)

    assert (first.status_code, again.status_code) == (202, 202)
    assert again.content == first.content
    assert again["Location"] == first["Location"]
    assert (first.get("Idempotency-Replayed"), again["Idempotency-Replayed"]) == (None, "true")
    assert Run.objects.count() == 1


def test_a_key_is_for_one_request(pair):
    root, headers = program(administrator()), key()
    root.post("runs", {"rule": str(pair.rule.pk)}, headers)

    other = root.post("runs", {"rule": str(pair.rule.pk), "sweep": True}, headers)
    elsewhere = root.post(f"rules/{pair.rule.pk}/pause", {}, headers)

    for answer in (other, elsewhere):
        assert (answer.status_code, answer.json()["code"]) == (422, "api.idempotency_key_reused")


def test_keys_of_others_do_not_matter(pair):
    root, headers = program(administrator()), key()
    other = program(administrator("other"))
    root.post(f"rules/{pair.rule.pk}/pause", {}, headers)

    answer = other.post(f"rules/{pair.rule.pk}/resume", {}, headers)

    assert answer.status_code == 200


def test_what_was_refused_may_be_tried_again_with_its_key(pair):
    root, headers = program(administrator()), key()
    run = root.post("runs", {"rule": str(pair.rule.pk)}).json()
    refused = root.post("runs", {"rule": str(pair.rule.pk)}, headers)
    assert refused.status_code == 409
    Run.objects.filter(pk=run["id"]).update(status="succeeded")

    assert root.post("runs", {"rule": str(pair.rule.pk)}, headers).status_code == 202


def test_a_call_that_is_being_done_is_not_done_beside():
    account = administrator()
    caller, done = Caller(account, "token x"), []

    def act() -> Answer:
        with pytest.raises(services.IdempotencyInFlight):
            do_once(caller, "k", "digest", act)
        done.append(1)
        return Answer(200, b"{}")

    do_once(caller, "k", "digest", act)
    assert done == [1]


def test_a_call_that_lapsed_is_done_again_and_the_first_one_not_kept():
    account = administrator()
    caller = Caller(account, "token x")

    def late() -> Answer:
        IdempotentCall.objects.update(lapses_at=now() - timedelta(seconds=1))
        do_once(caller, "k", "digest", lambda: Answer(200, b'"second"'))
        return Answer(200, b'"first"')

    with pytest.raises(services.IdempotencyInFlight, match="took too long"):
        do_once(caller, "k", "digest", late, atomic=False)
    assert do_once(caller, "k", "digest", late).body == b'"second"'


def test_answers_are_sealed_and_forgotten(pair):
    root = program(administrator())
    root.post("runs", {"rule": str(pair.rule.pk), "reason": "canary"})

    kept = IdempotentCall.objects.get()
    assert b"canary" not in bytes(kept.sealed_body)
    assert services.forget_calls() == 0
    IdempotentCall.objects.update(expires_at=now())
    assert services.forget_calls() == 1


def test_an_answer_is_kept_by_nobody():
    root: Program = program(administrator())

    assert root.get("rules")["Cache-Control"] == "no-store"
    assert root.get("nothing")["Cache-Control"] == "no-store"
