"""The identity provider lets in whom it is linked with, and its second factor counts."""

from __future__ import annotations

import time
from io import BytesIO
from typing import Any
from urllib.parse import urlsplit

import pytest
from django.test import Client
from django.urls import reverse
from joserfc.jwk import OctKey, RSAKey
from requests import Response

from apps.accounts.models import AuthenticatorApp, ExternalIdentity, User
from apps.accounts.selectors import identities, own_factors
from apps.accounts.services import invite, single_sign_on
from apps.connectors.outbound import WEB, find_route
from apps.connectors.outbound.http import CheckedAdapter
from tests.identity_provider import SECRET, IdentityProvider, installed
from tests.people import administrator, code_of, enrolled, person, prove, signed_in

pytestmark = pytest.mark.django_db
GO, BACK = "/admin/login/single-sign-on/", "/admin/login/single-sign-on/return/"


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch, settings: Any) -> IdentityProvider:
    return installed(monkeypatch, settings)


def leads_to(answer: Any) -> str:
    """Where the browser is sent to, at the provider; empty where it is not."""
    return str(answer.headers.get("Refresh", "")).removeprefix("0; url=")


def use(client: Client, provider: IdentityProvider, what: str = "sign_in", **more: str) -> Any:
    """To the provider and back; what the return answers."""
    there = client.post(GO, {"what": what, **more})
    return client.get(BACK, provider.approve(leads_to(there)))


def is_in(client: Client) -> bool:
    return client.get(reverse("admin:index")).status_code == 200


@pytest.fixture
def root(provider: IdentityProvider) -> User:
    """An administrator who has linked the identity."""
    user = administrator()
    assert use(signed_in(user), provider, "link").url == reverse("admin:security")
    return user


def test_the_linked_person_is_let_in(client, provider, root):
    answer = use(client, provider, next="/admin/runs/run/")

    assert answer.url == "/admin/runs/run/"
    assert is_in(client)


def test_without_a_second_factor_there_ours_is_asked_for(client, provider, root):
    provider.claims["amr"] = ["pwd"]

    answer = use(client, provider)

    assert answer.url.startswith(reverse("admin:login_code"))
    assert not is_in(client)
    prove(client, code_of(enrolled(root)))
    assert is_in(client)


@pytest.mark.parametrize("claim", [{"amr": ["pwd", "mfa"]}, {"amr": [], "acr": "mfa"}])
def test_what_stands_for_a_second_factor_is_set(client, provider, root, settings, claim):
    provider.claims.update(claim)
    assert use(client, provider).url == reverse("admin:index")
    settings.SINGLE_SIGN_ON_SECRET = {**settings.SINGLE_SIGN_ON_SECRET, "strong": {"phrh"}}

    assert use(Client(), provider).url.startswith(reverse("admin:login_code"))


@pytest.mark.parametrize("refused", ["/.well-known/openid-configuration", "/token", "/keys"])
def test_the_provider_is_asked_at_allowed_addresses_only(client, provider, root, caplog, refused):
    """It may name other hosts than its own, so each question is checked."""
    answered = provider.send

    def send(request: Any, **more: Any) -> Any:
        if urlsplit(request.url).path == refused:
            find_route(WEB, "169.254.169.254", 443)
        return answered(request, **more)

    provider.send = send
    single_sign_on._client.cache_clear()
    there = client.post(GO, {"what": "sign_in"})
    answer = client.get(BACK, provider.approve(leads_to(there))) if leads_to(there) else there

    assert answer.url == reverse("admin:login")
    page = client.get("/admin/login/").content.decode()
    assert "identity provider did not say" in page or "identity provider does not answer" in page
    assert "169.254" not in page
    assert "169.254.169.254" in caplog.text
    assert "LOCKSTEP_ALLOWED_NETWORKS" in caplog.text


def test_every_session_with_the_provider_goes_through_the_guard(provider):
    app = single_sign_on._client("https://id.example", "c", "s")
    for session in (app._get_session(), app._get_oauth_client()):
        assert {type(adapter) for adapter in session.adapters.values()} == {CheckedAdapter}
        assert session.max_redirects == 0


def test_the_provider_leads_nobody_on(client, provider, root):
    def redirect(request: Any, **more: Any) -> Any:
        answer = Response()
        answer.status_code, answer.request, answer.raw = 302, request, BytesIO()
        answer.headers["Location"] = "https://elsewhere.example/"
        asked.append(request.url)
        return answer

    asked: list[str] = []
    provider.send = redirect
    single_sign_on._client.cache_clear()

    assert client.post(GO, {"what": "sign_in"}).url == reverse("admin:login")
    assert asked == ["https://id.example/.well-known/openid-configuration"]


def test_who_is_not_linked_is_not_let_in(client, provider, root):
    provider.claims["sub"] = "8"

    assert use(client, provider).url == reverse("admin:login")
    assert not is_in(client)
    assert "nobody here is linked" in client.get("/admin/login/").content.decode().lower()


def test_an_address_of_mail_links_nobody(client, provider, root):
    User.objects.update(email="root@example.org")
    provider.claims.update(sub="8", email="root@example.org", preferred_username="root")

    use(client, provider)

    assert not is_in(client)


def test_the_same_subject_of_another_issuer_is_somebody_else(client, provider, root):
    ExternalIdentity.objects.update(issuer="https://other.example")

    use(client, provider)

    assert not is_in(client)


@pytest.mark.parametrize("change", [{"is_active": False}, {"is_staff": False}])
def test_who_may_not_sign_in_may_not_this_way(client, provider, root, change):
    User.objects.update(**change)

    use(client, provider)

    assert not is_in(client)


LIES: list[dict[str, Any]] = [
    {"audience": "another client"},
    {"audience": ["another client", "lockstep"]},  # meant for another one as well
    {"nonce": "another one"},
    {"issuer": "https://evil.example"},
    {"signing_key": RSAKey.generate_key(2048, {"kid": "1"})},
    {"signing_key": OctKey.import_key(SECRET.encode() * 2), "algorithm": "HS256"},
    {"claims": {"sub": "7", "amr": ["mfa"], "iss": "https://evil.example"}},
    {"claims": {"sub": "7", "amr": ["mfa"], "exp": int(time.time()) - 600}},
    {"claims": {"amr": ["mfa"]}},
    {"claims": {"sub": "7", "amr": "mfa"}},
]


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_lets_nobody_in(client, provider, root, lie):
    for name, value in lie.items():
        setattr(provider, name, value)
    single_sign_on._client.cache_clear()
    there = client.post(GO, {"what": "sign_in"})
    if leads_to(there):
        client.get(BACK, provider.approve(leads_to(there)))

    assert not is_in(client)


def test_an_answer_to_somebody_elses_question_is_refused(client, provider, root):
    theirs = provider.approve(leads_to(Client().post(GO, {"what": "sign_in"})))
    client.post(GO, {"what": "sign_in"})

    client.get(BACK, theirs)

    assert not is_in(client)


def test_an_answer_is_taken_once(client, provider, root):
    there = client.post(GO, {"what": "sign_in"})
    answer = provider.approve(leads_to(there))
    client.get(BACK, answer)
    client.post(reverse("admin:logout"))

    client.get(BACK, answer)

    assert not is_in(client)


@pytest.mark.parametrize("query", [{}, {"error": "access_denied"}, {"code": "x", "state": "x"}])
def test_a_return_that_makes_no_sense_leads_back(client, provider, root, query):
    client.post(GO, {"what": "sign_in"})

    assert client.get(BACK, query).url == reverse("admin:login")
    assert client.get(BACK, query).url == reverse("admin:login")


def test_one_identity_has_one_owner(provider, root):
    other = administrator("other")

    use(signed_in(other), provider, "link")

    assert identities(other) == []


def test_linking_asks_for_a_recent_sign_in(provider, later):
    user = administrator()
    client = signed_in(user)
    later(minutes=16)

    answer = client.post(GO, {"what": "link"})

    assert answer.url.startswith(reverse("admin:confirm"))
    assert identities(user) == []


def test_nobody_links_without_being_signed_in(client, provider):
    assert client.post(GO, {"what": "link"}).url == reverse("admin:login")
    assert client.get(GO).status_code == 405


def test_unlinking_ends_what_it_let_in(client, provider, root):
    use(client, provider)
    (identity,) = identities(root)

    signed_in(root).post(reverse("admin:security_remove"), {"factor": identity.persistent_id})

    assert not is_in(client)
    assert identities(root) == []


def test_a_provider_that_asks_for_a_second_factor_is_one_to_live_with(provider, root):
    client = signed_in(root)
    (app,) = own_factors(root)

    client.post(reverse("admin:security_remove"), {"factor": app.persistent_id})

    assert own_factors(root) == []


def test_a_provider_that_does_not_is_none(provider, root):
    ExternalIdentity.objects.update(strong=False)
    client = signed_in(root)
    (app,) = own_factors(root)

    client.post(reverse("admin:security_remove"), {"factor": app.persistent_id})

    assert own_factors(root) == [app]


def test_an_invitation_is_accepted_without_a_password(client, provider):
    grace = person("grace")
    token = invite(grace, actor=None)

    answer = use(client, provider, "invitation", token=token)

    assert answer.url == reverse("admin:index")
    assert is_in(client)
    grace.refresh_from_db()
    assert not grace.has_usable_password()
    assert use(Client(), provider, "invitation", token=token).url == reverse("admin:login")


def test_an_invited_person_without_a_second_factor_there_enrols_one(client, provider):
    provider.claims["amr"] = ["pwd"]
    grace = person("grace")

    answer = use(client, provider, "invitation", token=invite(grace, actor=None))

    assert answer.url == reverse("admin:enrol")
    client.get(answer.url)
    app = AuthenticatorApp.objects.get(user=grace)
    client.post(answer.url, {"code": code_of(app)})
    assert is_in(client)


def test_a_dangerous_act_is_confirmed_there(client, provider, root, later):
    use(client, provider)
    later(minutes=16)
    page = reverse("admin:auth_group_add")
    assert client.get(page).status_code == 302
    provider.claims["auth_time"] = time.time() + 16 * 60

    answer = use(client, provider, "confirm", next=page)

    assert provider.asked["prompt"] == "login"
    assert answer.url == page
    assert client.get(page).status_code == 200


@pytest.mark.parametrize("claims", [{}, {"auth_time": 1}, {"amr": ["pwd"]}, {"sub": "8"}])
def test_what_proves_nothing_confirms_nothing(client, provider, root, later, claims):
    use(client, provider)
    later(minutes=16)
    if claims:
        provider.claims["auth_time"] = time.time() + 16 * 60
    provider.claims.update(claims)

    use(client, provider, "confirm")

    assert client.get(reverse("admin:auth_group_add")).status_code == 302


def test_nothing_is_offered_where_there_is_none(client):
    assert "single-sign-on" not in client.get("/admin/login/").content.decode()
    assert client.post(GO, {"what": "sign_in"}).url == reverse("admin:login")
