"""OAuth 2.0: the two flows, and what attackers try with codes, tokens, addresses and scopes."""

from __future__ import annotations

import base64
import hashlib
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from django.contrib.auth.models import Permission
from django.db import IntegrityError, transaction
from django.test import Client
from django.urls import reverse
from oauth2_provider.models import AccessToken, Grant, RefreshToken

from apps.accounts.models import ServiceAccount, User
from apps.accounts.services import create_service_account, remove_all_factors, void_tokens
from apps.accounts.token_text import new_text
from apps.api.models import OAuthClient, UsedCode
from apps.api.oauth.secret_texts import SECRET
from apps.api.tasks import forget_calls
from apps.audit.models import AuditEvent
from apps.core.clock import now
from tests.people import administrator, person, signed_in
from tests.programs import Program

pytestmark = pytest.mark.django_db
BACK = "https://reports.example/back"
VERIFIER = "v" * 64


def challenge(verifier: str = VERIFIER) -> str:
    digest = hashlib.sha256(verifier.encode()).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def client_of(name: str = "Reports", **facts: Any) -> tuple[OAuthClient, str]:
    """A confidential client that people consent to, and its secret."""
    secret = new_text(SECRET)
    defaults = {
        "client_type": "confidential",
        "authorization_grant_type": "authorization-code",
        "redirect_uris": BACK,
        "allowed_scopes": ["rules:read", "runs:read"],
    }
    client = OAuthClient.objects.create(name=name, client_secret=secret, **{**defaults, **facts})
    return client, secret


def robot(**facts: Any) -> tuple[OAuthClient, str, ServiceAccount]:
    """A client that acts by itself."""
    account = create_service_account("robot", actor=None)
    account.user_permissions.set(Permission.objects.filter(codename__in=("view_rule", "view_run")))
    facts = {"authorization_grant_type": "client-credentials", "redirect_uris": "", **facts}
    return *client_of("Robot", user=User.objects.get(pk=account.pk), **facts), account


@pytest.fixture
def ada() -> User:
    return person("ada", "rules.view_rule", "runs.view_run")


class Flow:
    """A person's browser and a client's server."""

    def __init__(self, user: User, client: OAuthClient, secret: str) -> None:
        self.browser, self.client, self.secret = signed_in(user), client, secret

    def asks(self, **changes: Any) -> Any:
        """The consent page."""
        asked = {
            "response_type": "code",
            "client_id": self.client.client_id,
            "redirect_uri": BACK,
            "scope": "rules:read",
            "state": "s",
            "code_challenge": challenge(),
            "code_challenge_method": "S256",
            **changes,
        }
        given = {name: value for name, value in asked.items() if value is not None}
        return self.browser.get(f"/oauth/authorize?{urlencode(given)}")

    def answers(self, page: Any, allow: str = "Authorize", **changes: Any) -> Any:
        """What is sent from the consent page."""
        initial = page.context["form"].initial
        fields = {name: value for name, value in initial.items() if value}
        return self.browser.post("/oauth/authorize", {**fields, "allow": allow, **changes})

    def code(self, **changes: Any) -> str:
        back = self.answers(self.asks(**changes))
        return parse_qs(urlsplit(back["Location"]).query)["code"][0]

    def redeems(self, code: str, secret: str | None = None, **changes: Any) -> Any:
        body = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": BACK,
            "code_verifier": VERIFIER,
            **changes,
        }
        return token(self.client, secret or self.secret, body)


def basic(client: OAuthClient, secret: str) -> dict[str, str]:
    pair = base64.b64encode(f"{client.client_id}:{secret}".encode()).decode()
    return {"Authorization": f"Basic {pair}"}


def token(client: OAuthClient, secret: str, body: dict[str, Any]) -> Any:
    given = {name: value for name, value in body.items() if value is not None}
    return Client().post(reverse("oauth2_provider:token"), given, headers=basic(client, secret))


def works(text: str, place: str = "rules") -> bool:
    return Program(text).get(place).status_code == 200


# The flows


def test_a_person_lets_a_client_in(ada):
    flow = Flow(ada, *client_of())
    page = flow.asks()
    assert "Reports" in page.content.decode()
    assert "See rules" in page.content.decode()

    back = flow.answers(page)
    query = parse_qs(urlsplit(back["Location"]).query)
    assert (back["Location"].split("?")[0], query["state"]) == (BACK, ["s"])
    assert query["iss"] == ["http://testserver"]
    answer = flow.redeems(query["code"][0])
    assert answer.status_code == 200
    assert answer["Cache-Control"] == "no-store"
    held = answer.json()
    assert (held["scope"], held["expires_in"]) == ("rules:read", 900)
    assert works(held["access_token"])
    assert not works(held["access_token"], "runs")  # not asked for
    assert held["access_token"].startswith("lka_")
    event = AuditEvent.objects.get(action="client.consented")
    assert (event.actor_label, event.details) == ("ada", {"scopes": ["rules:read"]})


def test_a_client_acts_by_itself_as_its_service_account():
    client, secret, _ = robot()
    answer = token(client, secret, {"grant_type": "client_credentials", "scope": "rules:read"})

    held = answer.json()
    assert "refresh_token" not in held
    assert works(held["access_token"])


def test_nothing_is_kept_by_which_somebody_gets_in(ada):
    flow = Flow(ada, *client_of())
    code = flow.code()
    kept = [str(list(Grant.objects.values())), str(list(OAuthClient.objects.values()))]
    held = flow.redeems(code).json()
    kept += [str(list(rows.values())) for rows in (AccessToken.objects, RefreshToken.objects)]

    for secret in (code, flow.secret, held["access_token"], held["refresh_token"]):
        assert not [text for text in kept if secret in text]


# Consent


def test_the_consent_page_is_behind_both_steps(ada):
    flow = Flow(ada, *client_of())
    nobody, one_step = Client(), Client()
    one_step.force_login(ada)
    for browser in (nobody, one_step):
        flow.browser = browser
        assert flow.asks().url.startswith(reverse("admin:login"))


def test_no_is_no(ada):
    flow = Flow(ada, *client_of())

    back = flow.answers(flow.asks(), allow="")

    assert "error=access_denied" in back["Location"]
    assert not Grant.objects.exists()


def test_it_asks_each_time(ada):
    flow = Flow(ada, *client_of())
    flow.redeems(flow.code())

    for trick in ({"approval_prompt": "auto"}, {"prompt": "none"}):
        page = flow.asks(**trick)
        assert page.status_code == 200
        assert "form" in page.context


def test_the_consent_page_is_in_no_frame(ada):
    assert Flow(ada, *client_of()).asks()["X-Frame-Options"] == "DENY"


# Attacks


@pytest.mark.parametrize(
    "uri",
    [
        "https://evil.example/back",
        "https://reports.example/back/../x",
        "https://reports.example/back?x=1",
        "https://reports.example/back#x",
        "https://reports.example/back/",
        "https://reports.example:444/back",
        "https://reports.example.evil.example/back",
        "https://reports.example@evil.example/back",
        "http://reports.example/back",
        "HTTPS://REPORTS.EXAMPLE/back",
        "javascript:alert(1)",
        "//evil.example",
    ],
)
def test_a_redirect_leads_nowhere_else(ada, uri):
    answer = Flow(ada, *client_of()).asks(redirect_uri=uri)

    assert answer.status_code == 400
    assert "Location" not in answer


def test_nor_one_that_is_changed_on_the_way_back(ada):
    flow = Flow(ada, *client_of())

    answer = flow.answers(flow.asks(), redirect_uri="https://evil.example/")

    assert answer.status_code == 400
    assert not Grant.objects.exists()


def test_a_code_is_for_the_redirect_that_it_was_sent_to(ada):
    flow = Flow(ada, *client_of(redirect_uris=f"{BACK} https://reports.example/other"))

    answer = flow.redeems(flow.code(), redirect_uri="https://reports.example/other")

    assert answer.status_code == 400


@pytest.mark.parametrize(
    "changes",
    [
        {"code_challenge": None, "code_challenge_method": None},
        {"code_challenge_method": "plain", "code_challenge": VERIFIER},
        {"code_challenge_method": None, "code_challenge": VERIFIER},
        {"code_challenge": ""},
    ],
)
def test_pkce_is_not_downgraded(ada, changes):
    flow = Flow(ada, *client_of())
    page = flow.asks(**changes)
    answer = flow.answers(page) if page.status_code == 200 else page

    assert "code=" not in answer.get("Location", "")
    assert not Grant.objects.exists()


@pytest.mark.parametrize("verifier", [None, "", "w" * 64, challenge()])
def test_a_code_without_its_verifier_is_worth_nothing(ada, verifier):
    flow = Flow(ada, *client_of())

    assert flow.redeems(flow.code(), code_verifier=verifier).status_code == 400
    assert not AccessToken.objects.exists()


def test_a_code_that_comes_twice_voids_what_it_brought(ada):
    flow = Flow(ada, *client_of())
    code = flow.code()
    held = flow.redeems(code).json()
    fresh = refreshed(flow, held["refresh_token"]).json()

    replay = flow.redeems(code)

    assert (replay.status_code, replay.json()["error"]) == (400, "invalid_grant")
    assert not works(held["access_token"])
    assert not works(fresh["access_token"])
    assert refreshed(flow, fresh["refresh_token"]).status_code == 400
    assert AuditEvent.objects.filter(action="token.refused").count() >= 1


def test_a_code_ends_after_a_minute(ada):
    flow = Flow(ada, *client_of())
    code = flow.code()
    Grant.objects.update(expires=now() - timedelta(seconds=1))

    assert flow.redeems(code).status_code == 400


def test_a_code_of_another_client_is_worth_nothing(ada):
    flow = Flow(ada, *client_of())
    other, secret = client_of("Other")
    code = flow.code()

    body = {"grant_type": "authorization_code", "code": code, "redirect_uri": BACK}
    answer = token(other, secret, {**body, "code_verifier": VERIFIER})

    assert answer.status_code == 400
    assert not AccessToken.objects.exists()


def refreshed(flow: Flow, text: str, **changes: Any) -> Any:
    body = {"grant_type": "refresh_token", "refresh_token": text, **changes}
    return token(flow.client, flow.secret, body)


def test_a_refresh_token_is_replaced_and_its_reuse_ends_the_family(ada):
    flow = Flow(ada, *client_of())
    first = flow.redeems(flow.code()).json()
    second = refreshed(flow, first["refresh_token"]).json()
    assert works(second["access_token"])
    assert second["refresh_token"] != first["refresh_token"]

    assert refreshed(flow, first["refresh_token"]).status_code == 400

    assert refreshed(flow, second["refresh_token"]).status_code == 400
    assert not works(second["access_token"])
    assert "used again" in AuditEvent.objects.filter(action="token.refused").latest("id").reason


def test_however_often_it_is_refreshed_a_consent_ends(ada, settings):
    flow = Flow(ada, *client_of())
    held = flow.redeems(flow.code()).json()
    long_ago = now() - timedelta(days=settings.LOCKSTEP["TOKEN_DAYS"] - 1)
    UsedCode.objects.update(used_at=long_ago)
    forget_calls()  # remembers when a consent was given that is still in use
    held = refreshed(flow, held["refresh_token"]).json()
    assert works(held["access_token"])

    UsedCode.objects.update(used_at=long_ago - timedelta(days=2))

    assert refreshed(flow, held["refresh_token"]).status_code == 400


def test_a_refresh_token_of_another_client_is_worth_nothing(ada):
    flow = Flow(ada, *client_of())
    other = Flow(ada, *client_of("Other"))
    held = flow.redeems(flow.code()).json()

    assert refreshed(other, held["refresh_token"]).status_code == 400
    assert refreshed(flow, held["refresh_token"]).status_code == 200


@pytest.mark.parametrize("scope", [None, "", "everything", "rules:read audit:read", "__all__"])
def test_scopes_are_not_widened(ada, scope):
    flow = Flow(ada, *client_of())
    page = flow.asks(scope=scope)
    answer = flow.answers(page) if page.status_code == 200 else page

    assert "code=" not in answer.get("Location", "")
    client, secret, _ = robot()
    by_itself = token(client, secret, {"grant_type": "client_credentials", "scope": scope})
    assert (by_itself.status_code, by_itself.json()["error"]) == (400, "invalid_scope")


def test_nor_on_the_consent_page_or_when_refreshed(ada):
    flow = Flow(ada, *client_of())
    widened = flow.answers(flow.asks(), scope="rules:read audit:read")
    assert "code=" not in widened.get("Location", "")

    held = flow.redeems(flow.code()).json()
    assert refreshed(flow, held["refresh_token"], scope="rules:read runs:read").status_code in (
        400,
        401,
    )


def test_what_a_client_may_no_longer_ask_for_is_gone_at_once(ada):
    flow = Flow(ada, *client_of())
    held = flow.redeems(flow.code()).json()
    OAuthClient.objects.update(allowed_scopes=["runs:read"])

    assert not works(held["access_token"])


@pytest.mark.parametrize("grant", ["password", "implicit", "device_code", "nothing"])
def test_other_grants_are_not_there(ada, grant):
    client, secret = client_of()
    body = {"grant_type": grant, "username": "ada", "password": "correct horse battery"}

    assert token(client, secret, {**body, "scope": "rules:read"}).status_code == 400
    implicit = Flow(ada, client, secret).asks(response_type="token")
    assert "access_token" not in implicit.get("Location", "")


def test_a_client_keeps_to_its_own_grant(ada):
    client, secret = client_of()
    body = {"grant_type": "client_credentials", "scope": "rules:read"}
    assert token(client, secret, body).status_code == 400

    by_itself, secret, _ = robot()
    assert "code=" not in Flow(ada, by_itself, secret).asks().get("Location", "")


@pytest.mark.parametrize("secret", ["", "x", "lkc_" + "a" * 46])
def test_a_wrong_secret_opens_nothing(secret):
    client, _, _ = robot()
    answer = token(client, secret, {"grant_type": "client_credentials", "scope": "rules:read"})

    assert answer.status_code == 401


def test_who_may_not_sign_in_is_not_acted_for(ada):
    flow = Flow(ada, *client_of())
    held = flow.redeems(flow.code()).json()
    waiting = flow.code()
    remove_all_factors(ada)

    assert not works(held["access_token"])
    assert refreshed(flow, held["refresh_token"]).status_code == 400
    assert flow.redeems(waiting).status_code == 400


def test_void_tokens_include_those_of_clients(ada):
    flow = Flow(ada, *client_of())
    held = flow.redeems(flow.code()).json()
    void_tokens(ada, actor=None)

    assert not works(held["access_token"])
    assert refreshed(flow, held["refresh_token"]).status_code == 400


@pytest.mark.parametrize("column", ["client", "account"])
def test_an_inactive_client_or_account_is_out_at_once(column):
    client, secret, account = robot()
    asked = {"grant_type": "client_credentials", "scope": "rules:read"}
    held = token(client, secret, asked).json()
    assert works(held["access_token"])
    target = client if column == "client" else account
    target.is_active = False
    target.save()

    assert not works(held["access_token"])
    if column == "client":
        assert token(client, secret, asked).status_code == 401


def test_a_client_is_used_from_its_networks_only():
    client, secret, _ = robot(networks=["203.0.113.0/24"])
    asked = {"grant_type": "client_credentials", "scope": "rules:read"}
    held = Program(token(client, secret, asked).json()["access_token"])

    assert held.get("rules").status_code == 401
    held.client.defaults["REMOTE_ADDR"] = "203.0.113.9"
    assert held.get("rules").status_code == 200


def test_a_refused_use_of_an_access_token_is_on_record_once_a_minute():
    client, secret, _ = robot(networks=["203.0.113.0/24"])
    body = {"grant_type": "client_credentials", "scope": "rules:read"}
    text = token(client, secret, body).json()["access_token"]

    assert not works(text)
    assert not works(text)

    event = AuditEvent.objects.get(action="token.refused")
    assert (event.outcome, event.object_id) == ("refused", str(client.pk))
    assert event.details["credential"] == f"client {client.pk}"
    assert "from this address" in event.reason
    assert text not in str(vars(event))


def test_an_access_token_in_the_address_opens_nothing(ada):
    flow = Flow(ada, *client_of())
    held = flow.redeems(flow.code()).json()

    assert Client().get(f"/api/v1/rules?access_token={held['access_token']}").status_code == 401
    assert not works(held["refresh_token"])


# Revocation and introspection


def revoke(client: OAuthClient, secret: str, text: str) -> Any:
    where = reverse("oauth2_provider:revoke-token")
    return Client().post(where, {"token": text}, headers=basic(client, secret))


def test_a_client_revokes_its_own_tokens_only(ada):
    flow = Flow(ada, *client_of())
    other, secret = client_of("Other")
    held = flow.redeems(flow.code()).json()

    revoke(other, secret, held["access_token"])
    assert works(held["access_token"])
    assert revoke(flow.client, "x", held["access_token"]).status_code == 401
    assert revoke(flow.client, flow.secret, held["refresh_token"]).status_code == 200
    assert not works(held["access_token"])
    assert refreshed(flow, held["refresh_token"]).status_code == 400


def introspect(client: OAuthClient, secret: str, text: str) -> Any:
    where = reverse("oauth2_provider:introspect")
    return Client().post(where, {"token": text}, headers=basic(client, secret))


def test_a_client_looks_at_its_own_tokens_only(ada):
    flow = Flow(ada, *client_of())
    other, secret = client_of("Other")
    held = flow.redeems(flow.code()).json()

    own = introspect(flow.client, flow.secret, held["access_token"]).json()
    assert (own["active"], own["scope"]) == (True, "rules:read")
    assert introspect(other, secret, held["access_token"]).json() == {"active": False}
    assert introspect(flow.client, "x", held["access_token"]).status_code == 401
    bearer = Client().post(
        reverse("oauth2_provider:introspect"),
        {"token": held["access_token"]},
        headers={"Authorization": f"Bearer {held['access_token']}"},
    )
    assert bearer.status_code == 401
    public, _ = client_of("App", client_type="public")
    assert introspect(public, "", held["access_token"]).status_code == 401


def test_the_metadata_names_what_there_is_and_no_more():
    found = Client().get("/.well-known/oauth-authorization-server").json()

    assert found["grant_types_supported"] == [
        "authorization_code",
        "client_credentials",
        "refresh_token",
    ]
    assert found["response_types_supported"] == ["code"]
    assert found["code_challenge_methods_supported"] == ["S256"]
    assert "registration_endpoint" not in found


# People


def test_a_person_sees_whom_they_let_in_and_puts_them_out(ada):
    flow = Flow(ada, *client_of())
    held = flow.redeems(flow.code()).json()
    assert "Reports" in flow.browser.get(reverse("admin:tokens")).content.decode()

    elsewhere = signed_in(person("other"))
    where = reverse("admin:token_withdraw")
    assert elsewhere.post(where, {"client": flow.client.pk}).status_code == 404
    assert works(held["access_token"])

    flow.browser.post(where, {"client": flow.client.pk})
    assert not works(held["access_token"])
    assert refreshed(flow, held["refresh_token"]).status_code == 400
    assert AuditEvent.objects.filter(action="client.withdrawn").count() == 1


def form(**changes: Any) -> dict[str, Any]:
    return {
        "name": "Reports",
        "is_active": "on",
        "client_type": "confidential",
        "authorization_grant_type": "authorization-code",
        "redirect_uris": BACK,
        "allowed_scopes": ["rules:read"],
        "networks": "",
        **changes,
    }


def test_an_administrator_adds_a_client_and_renews_its_secret(ada):
    browser = signed_in(administrator())
    page = browser.post(reverse("admin:api_oauthclient_add"), form())
    client, secret = OAuthClient.objects.get(), page.context["text"]
    assert secret in page.content.decode()
    held = Flow(ada, client, secret)
    brought = held.redeems(held.code()).json()

    action = reverse("admin:api_oauthclient_do", args=(client.pk, "renew-secret"))
    renewed = browser.post(action).context["text"]

    assert not works(brought["access_token"])
    assert token(client, secret, {"grant_type": "refresh_token"}).status_code in (400, 401)
    held.secret = renewed
    assert held.redeems(held.code()).status_code == 200


@pytest.mark.parametrize(
    "changes",
    [
        {"redirect_uris": ""},
        {"redirect_uris": "http://reports.example/back"},
        {"redirect_uris": "https://*.example/back"},
        {"redirect_uris": "javascript:alert(1)"},
        {"authorization_grant_type": "password"},
        {"authorization_grant_type": "implicit"},
        {"authorization_grant_type": "client-credentials"},
        {"allowed_scopes": []},
        {"allowed_scopes": ["everything"]},
        {"networks": "example.org"},
        {"name": " "},
    ],
)
def test_a_client_that_is_not_safe_is_not_added(changes):
    signed_in(administrator()).post(reverse("admin:api_oauthclient_add"), form(**changes))

    assert not OAuthClient.objects.exists()


@pytest.mark.parametrize(
    "facts",
    [
        {"authorization_grant_type": "password"},
        {"authorization_grant_type": "client-credentials"},
        {"skip_authorization": True},
        {"hash_client_secret": False},
    ],
)
def test_the_database_refuses_such_clients_as_well(facts):
    with pytest.raises(IntegrityError), transaction.atomic():
        client_of(**facts)


def test_what_has_ended_is_forgotten(ada):
    flow = Flow(ada, *client_of())
    flow.redeems(flow.code())
    AccessToken.objects.update(expires=now() - timedelta(days=40))

    forget_calls()

    assert not AccessToken.objects.exists()
