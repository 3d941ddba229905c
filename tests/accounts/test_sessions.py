"""Sessions are listed and ended, by their owner and by administrators, and end by themselves."""

from __future__ import annotations

import pytest
from django.test import Client
from django.urls import reverse

from apps.accounts.models import Session, User
from apps.accounts.services import end_sessions, forget_expired
from apps.accounts.sessions import digest_of
from tests.people import administrator, code_of, enrolled, log_in, person, prove, signed_in

pytestmark = pytest.mark.django_db
FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0"


@pytest.fixture
def root() -> User:
    return administrator()


def is_in(client: Client) -> bool:
    return client.get(reverse("admin:index")).status_code == 200


def sign_in(client: Client, user: User) -> None:
    log_in(client, user.username)
    assert prove(client, code_of(enrolled(user))).status_code == 302


def test_a_session_says_who_where_and_since_when(root):
    enrolled(root)
    client = Client(REMOTE_ADDR="198.51.100.7", headers={"User-Agent": FIREFOX})
    sign_in(client, root)

    session = Session.objects.get(user=root)
    page = client.get(reverse("admin:security")).content.decode()

    assert (session.address, session.agent) == ("198.51.100.7", FIREFOX)
    assert "Firefox on Linux" in page
    assert "198.51.100.7" in page
    assert "This one" in page


def test_the_table_holds_no_key_that_opens_a_session(root):
    client = signed_in(root)
    key = client.cookies["sessionid"].value

    assert not Session.objects.filter(session_key__contains=key).exists()
    client.cookies["sessionid"] = Session.objects.get(user=root).session_key
    assert not is_in(client)


def test_one_ends_another_session_of_ones_own(root):
    here, there = signed_in(root), signed_in(root)
    other = digest_of(there.cookies["sessionid"].value)

    here.post(reverse("admin:security_end"), {"session": other})

    assert is_in(here)
    assert not is_in(there)


def test_one_ends_all_others(root):
    here, *elsewhere = (signed_in(root) for _ in range(3))

    here.post(reverse("admin:security_end"))

    assert is_in(here)
    assert not any(map(is_in, elsewhere))


def test_nobody_ends_sessions_of_others(root):
    other = person("other")
    victim = signed_in(root)
    session = digest_of(victim.cookies["sessionid"].value)

    signed_in(other).post(reverse("admin:security_end"), {"session": session})

    assert is_in(victim)


def test_a_session_ends_when_nobody_uses_it(root, later):
    client = signed_in(root)

    later(minutes=50)
    assert is_in(client)
    later(minutes=50)
    assert is_in(client)
    later(minutes=61)

    assert not is_in(client)


def test_a_page_that_refreshes_itself_keeps_no_session_alive(root, later):
    client = signed_in(root)
    for _ in range(7):
        later(minutes=10)
        client.get(reverse("admin:index"), headers={"HX-Request": "true"})

    assert not is_in(client)


def test_a_session_ends_after_half_a_day_whatever_one_does(root, later):
    client = Client()
    enrolled(root)
    sign_in(client, root)
    for _ in range(12):
        later(minutes=55)
        assert is_in(client)
        client.post(reverse("admin:security_end"))  # writes into the session

    later(minutes=61)

    assert not is_in(client)


def test_a_new_password_ends_the_other_sessions(root):
    here, there = signed_in(root), signed_in(root)
    new = "a much better phrase"
    fields = {"old_password": "correct horse battery", "new_password1": new, "new_password2": new}

    here.post(reverse("admin:password_change"), fields)

    assert is_in(here)
    assert not is_in(there)
    assert Session.objects.filter(user=root).count() == 1


def test_a_password_that_somebody_else_sets_ends_all(root):
    grace = person("grace")
    there = signed_in(grace)
    new = {"usable_password": "true", "password1": "Zebra-crossing-42"}
    address = reverse("admin:auth_user_password_change", args=(grace.pk,))

    signed_in(root).post(address, {**new, "password2": "Zebra-crossing-42"})

    assert not is_in(there)
    assert not Session.objects.filter(user=grace).exists()


def test_signing_out_leaves_nothing(root):
    client = signed_in(root)

    client.post(reverse("admin:logout"))

    assert not is_in(client)
    assert not Session.objects.filter(user=root).exists()


def test_a_session_that_was_ended_does_not_come_back(root):
    client = signed_in(root)
    key = client.cookies["sessionid"].value
    assert end_sessions(root) == 1

    client.cookies["sessionid"] = key

    assert not is_in(client)


def test_what_has_ended_is_forgotten(root, later):
    signed_in(root)

    later(days=20)
    forget_expired()

    assert not Session.objects.exists()
