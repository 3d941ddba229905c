"""Passkeys: enrolled and used as a second factor, bound to their person, place and challenge."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from apps.accounts.models import Passkey, User
from apps.accounts.selectors import own_factors
from apps.accounts.services import open_enrolment
from tests.authenticator import SoftwareAuthenticator
from tests.people import administrator, log_in, signed_in

pytestmark = pytest.mark.django_db
ADD, CODE = "/admin/enrol/passkey/", "/admin/login/code/"


@pytest.fixture
def root() -> User:
    return administrator()


@pytest.fixture
def key() -> SoftwareAuthenticator:
    return SoftwareAuthenticator()


def add(client: Client, key: SoftwareAuthenticator) -> Any:
    page = client.get(ADD, secure=True)
    answer = key.create(page.context["passkey_options"]["challenge"])
    return client.post(ADD, {"name": "Key", "passkey": json.dumps(answer)}, secure=True)


def challenge_of(client: Client) -> str:
    return client.get(CODE, secure=True).context["passkey_options"]["challenge"]


def answer(client: Client, given: dict[str, Any]) -> Any:
    return client.post(CODE, {"passkey": json.dumps(given)}, secure=True)


def at_second_step(name: str = "root") -> Client:
    client = Client()
    log_in(client, name)
    return client


def is_in(client: Client) -> bool:
    return client.get(reverse("admin:index"), secure=True).status_code == 200


@pytest.fixture
def enrolled_key(root: User, key: SoftwareAuthenticator) -> SoftwareAuthenticator:
    add(signed_in(root), key)
    assert Passkey.objects.filter(user=root).exists()
    return key


def test_it_lets_in_after_the_password(enrolled_key):
    client = at_second_step()

    answer(client, enrolled_key.get(challenge_of(client)))

    assert is_in(client)


def test_it_can_be_the_first_factor(root, key):
    open_enrolment(root)
    client = Client()
    log_in(client, "root")

    page = add(client, key)

    assert "Recovery codes" in page.content.decode()
    assert [factor.name for factor in own_factors(root)] == ["Key"]
    assert is_in(client)


def test_nobody_adds_one_with_the_password_alone(root, key):
    signed_in(root)  # enrols an app
    client = at_second_step()

    assert client.get(ADD, secure=True).status_code == 302
    assert not Passkey.objects.exists()


def test_it_confirms_a_dangerous_act(root, enrolled_key, later):
    client = signed_in(root)
    later(minutes=16)
    asked = client.get(reverse("admin:auth_group_add"), secure=True).url
    challenge = client.get(asked, secure=True).context["passkey_options"]["challenge"]

    client.post(asked, {"passkey": json.dumps(enrolled_key.get(challenge))}, secure=True)

    assert client.get(reverse("admin:auth_group_add"), secure=True).status_code == 200


def test_an_answer_is_taken_once(enrolled_key):
    client, other = at_second_step(), at_second_step()
    given = enrolled_key.get(challenge_of(client))
    answer(client, given)
    challenge_of(other)

    answer(other, given)

    assert not is_in(other)


def test_a_challenge_is_taken_once(enrolled_key):
    client = at_second_step()
    challenge = challenge_of(client)
    enrolled_key.origin = "https://evil.example"
    client.post(CODE, {"passkey": json.dumps(enrolled_key.get(challenge))}, secure=True)
    enrolled_key.origin = "https://testserver"

    # The page that said no has a challenge of its own.
    answer(client, enrolled_key.get(challenge))

    assert not is_in(client)


@pytest.mark.parametrize(
    "lie",
    [
        {"origin": "https://evil.example"},
        {"origin": "http://testserver"},
        {"domain": "evil.example"},
        {"credential_id": b"another one"},
    ],
)
def test_a_lie_lets_nobody_in(enrolled_key, lie):
    for name, value in lie.items():
        setattr(enrolled_key, name, value)
    client = at_second_step()

    answer(client, enrolled_key.get(challenge_of(client)))

    assert not is_in(client)


def test_another_key_with_its_name_lets_nobody_in(enrolled_key):
    thief = SoftwareAuthenticator(credential_id=enrolled_key.credential_id)
    client = at_second_step()

    answer(client, thief.get(challenge_of(client)))

    assert not is_in(client)


def test_a_copy_that_counts_backwards_lets_nobody_in(enrolled_key):
    for _ in range(3):
        client = at_second_step()
        answer(client, enrolled_key.get(challenge_of(client)))
    enrolled_key.counter = 1
    client = at_second_step()

    answer(client, enrolled_key.get(challenge_of(client)))

    assert not is_in(client)


def test_a_key_of_somebody_else_lets_nobody_in(enrolled_key):
    other = administrator("other")
    theirs = SoftwareAuthenticator()
    add(signed_in(other), theirs)
    client = at_second_step()

    answer(client, theirs.get(challenge_of(client)))

    assert not is_in(client)


def test_one_key_has_one_owner(root, enrolled_key):
    page = add(signed_in(administrator("other")), enrolled_key)

    assert "enrolled already" in page.content.decode()
    assert Passkey.objects.get().user == root


@pytest.mark.parametrize(
    "text", ["", "x", "[]", "{}", '{"id": 1}', '{"id": "é"}', '{"id": "AAAA"}']
)
def test_what_makes_no_sense_is_no_error_of_ours(root, enrolled_key, text):
    client = at_second_step()
    challenge_of(client)
    signed = signed_in(root)
    signed.get(ADD, secure=True)

    assert client.post(CODE, {"passkey": text}, secure=True).status_code == 200
    assert signed.post(ADD, {"passkey": text}, secure=True).status_code == 200


def test_none_is_offered_where_browsers_know_none(root):
    client = signed_in(root)

    assert client.get(ADD).status_code == 302  # no HTTPS
    number = Client(SERVER_NAME="127.0.0.1")
    number.cookies = client.cookies
    assert number.get(ADD, secure=True).status_code == 302


def test_one_domain_may_serve_several_hosts(root, key, settings):
    settings.LOCKSTEP = {**settings.LOCKSTEP, "PASSKEY_DOMAIN": "example.org"}
    settings.ALLOWED_HOSTS = ["lockstep.example.org", "example.org.evil.example"]
    client = signed_in(root)
    client.defaults["SERVER_NAME"] = "lockstep.example.org"
    key.domain, key.origin = "example.org", "https://lockstep.example.org"

    add(client, key)
    client.defaults["SERVER_NAME"] = "example.org.evil.example"

    assert Passkey.objects.get().domain == "example.org"
    assert client.get(ADD, secure=True).status_code == 302
