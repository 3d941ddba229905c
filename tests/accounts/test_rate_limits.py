"""Each door answers 429 to who knocks too often, and says how much is left to everybody else."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from apps.accounts.models import User
from apps.accounts.services import invite
from tests.identity_provider import installed
from tests.people import administrator, code_of, enrolled, log_in, person, prove, signed_in

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _three_each(settings: Any) -> None:
    settings.LOCKSTEP = {**settings.LOCKSTEP, "SIGN_IN_REQUESTS": 3}


@pytest.fixture
def root() -> User:
    user = administrator()
    enrolled(user)
    return user


def refused(answer: Any, name: str) -> bool:
    """Whether it was, with all that has to be said then."""
    if answer.status_code != 429:
        return False
    assert answer["RateLimit-Policy"] == f'"{name}";q=3;w=600'
    assert answer["RateLimit"].startswith(f'"{name}";r=0;t=')
    assert 0 < int(answer["Retry-After"]) <= 200
    assert "no-store" in answer["Cache-Control"]
    return True


def test_passwords(client: Client, root: User) -> None:
    given = [log_in(client, f"name {number}", "wrong") for number in range(3)]

    assert [answer.status_code for answer in given] == [200] * 3
    assert given[0]["RateLimit"].startswith('"sign-in";r=2;t=')
    assert refused(log_in(client, "root"), "sign-in")
    assert client.get(reverse("admin:login")).status_code == 200


def test_a_refused_request_hashes_no_password(client: Client, root: User, monkeypatch: Any) -> None:
    for _ in range(3):
        log_in(client, "somebody", "wrong")
    monkeypatch.setattr("django.contrib.auth.hashers.check_password", None)
    monkeypatch.setattr("django.contrib.auth.authenticate", None)

    assert refused(log_in(client, "root"), "sign-in")


def test_codes(client: Client, root: User) -> None:
    app = enrolled(root)
    log_in(client, "root")
    for _ in range(3):
        prove(client, "000000")

    assert refused(prove(client, code_of(app)), "sign-in-code")


def test_invitations_also_when_they_are_looked_at(client: Client, root: User) -> None:
    token = invite(person("new"), actor=root)
    for number in range(3):
        client.get(reverse("admin:invitation", args=(f"guess-{number}",)))

    assert refused(client.get(reverse("admin:invitation", args=(token,))), "invitation")


def test_confirming_and_changing_a_password_by_person(root: User) -> None:
    boss, other = signed_in(root), signed_in(administrator("other"))
    for name in ("confirm", "password_change"):
        limit = name.replace("_", "-")
        for _ in range(3):
            assert boss.post(reverse(f"admin:{name}"), {}).status_code == 200
        assert refused(boss.post(reverse(f"admin:{name}"), {}), limit)
        assert other.post(reverse(f"admin:{name}"), {}).status_code == 200


def test_single_sign_on_there_and_back(client: Client, monkeypatch: Any, settings: Any) -> None:
    provider = installed(monkeypatch, settings)
    for _ in range(3):
        there = client.post(reverse("admin:sso"), {"what": "sign_in"})
        query = provider.approve(there["Refresh"].removeprefix("0; url="))
        client.get(reverse("admin:sso_return"), query)
    monkeypatch.setattr(provider, "send", None)

    assert refused(client.post(reverse("admin:sso"), {"what": "sign_in"}), "single-sign-on")
    back = client.get(reverse("admin:sso_return"), query)
    assert refused(back, "single-sign-on-return")


def test_one_address_does_not_use_up_what_another_has(client: Client, root: User) -> None:
    for _ in range(4):
        log_in(client, "root", "wrong")

    assert log_in(Client(REMOTE_ADDR="198.51.100.7"), "root").status_code == 302


def test_what_is_used_up_comes_back(client: Client, root: User, later: Any) -> None:
    for _ in range(3):
        log_in(client, "somebody", "wrong")
    assert log_in(client, "root").status_code == 429
    later(seconds=201)

    assert log_in(client, "root").status_code == 302
