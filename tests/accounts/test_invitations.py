"""An invitation lets its holder choose a password, once; then a second factor is enrolled."""

from __future__ import annotations

import re

import pytest
from django.contrib.auth.models import Group
from django.core.management import CommandError, call_command
from django.test import Client
from django.urls import reverse

from apps.accounts.models import Invitation, User
from apps.accounts.selectors import own_factors
from apps.accounts.services import invite
from tests.people import PASSWORD, administrator, enrolled, log_in, person, signed_in

pytestmark = pytest.mark.django_db
OWN = {"new_password1": "a much better phrase", "new_password2": "a much better phrase"}


def address(token: str) -> str:
    return reverse("admin:invitation", args=(token,))


@pytest.fixture
def grace() -> User:
    return person("grace")


def test_it_leads_to_a_password_and_on_to_the_enrolment(client, grace):
    token = invite(grace, actor=None)
    assert "invited as <strong>grace</strong>" in client.get(address(token)).content.decode()

    answer = client.post(address(token), OWN)

    assert answer.url == reverse("admin:enrol")
    assert client.get(answer.url).status_code == 200
    assert client.get(reverse("admin:index")).url == reverse("admin:enrol")
    grace.refresh_from_db()
    assert grace.check_password(OWN["new_password1"])


def test_it_works_once(client, grace):
    token = invite(grace, actor=None)
    client.post(address(token), OWN)
    thief = {"new_password1": "the thief's phrase", "new_password2": "the thief's phrase"}

    page = Client().post(address(token), thief).content.decode()

    assert "has been used" in page
    grace.refresh_from_db()
    assert grace.check_password(OWN["new_password1"])


def test_looking_at_it_does_not_use_it_up(client, grace):
    token = invite(grace, actor=None)
    for _ in range(3):
        client.get(address(token))

    assert client.post(address(token), OWN).status_code == 302


def test_it_expires(client, grace, later):
    token = invite(grace, actor=None)

    later(hours=73)

    assert "has expired" in client.post(address(token), OWN).content.decode()
    grace.refresh_from_db()
    assert not grace.has_usable_password()


def test_a_newer_one_replaces_it(client, grace):
    old = invite(grace, actor=None)
    invite(grace, actor=None)

    assert "no such invitation" in client.post(address(old), OWN).content.decode()


@pytest.mark.parametrize("token", ["x", "é", "0" * 500])
def test_a_guess_opens_nothing(client, grace, token):
    invite(grace, actor=None)

    assert "no such invitation" in client.post(address(token), OWN).content.decode()


def test_a_weak_password_is_refused_and_the_invitation_stays(client, grace):
    token = invite(grace, actor=None)

    client.post(address(token), {"new_password1": "short", "new_password2": "short"})

    assert client.post(address(token), OWN).status_code == 302


def test_the_link_itself_is_not_kept(grace):
    token = invite(grace, actor=None)

    assert token not in str(list(Invitation.objects.values()))


def test_it_ends_the_old_password_and_the_sessions(client, grace):
    there = signed_in(grace)

    invite(grace, actor=None)

    assert there.get(reverse("admin:index")).status_code == 302
    assert log_in(client, "grace", PASSWORD).status_code == 200


def test_who_has_a_factor_needs_it_all_the_same(client, grace):
    enrolled(grace)
    token = invite(grace, actor=None)

    answer = client.post(address(token), OWN)

    assert answer.url == reverse("admin:login")
    assert log_in(client, "grace", OWN["new_password1"]).url.startswith(reverse("admin:login_code"))


def test_a_new_person_is_added_with_an_invitation(client):
    root = signed_in(administrator())
    fields = {"username": "ada", "is_staff": "on"}

    page = root.post(reverse("admin:accounts_user_add"), fields).content.decode()

    ada = User.objects.get(username="ada")
    link = re.search(r"http://testserver(/admin/invitation/[^/]+/)", page)
    assert not ada.has_usable_password()
    assert client.post(link[1], OWN).url == reverse("admin:enrol")


def test_who_lost_everything_starts_anew(client, grace):
    enrolled(grace)
    there = signed_in(grace)
    do = reverse("admin:accounts_user_do", args=(grace.pk, "forget-factors"))

    page = signed_in(administrator()).post(do).content.decode()

    link = re.search(r"http://testserver(/admin/invitation/[^/]+/)", page)
    assert not own_factors(grace)
    assert there.get(reverse("admin:index")).status_code == 302
    assert client.post(link[1], OWN).url == reverse("admin:enrol")


@pytest.mark.parametrize("name", ["invite", "forget-factors", "end-sessions", "lift-locks"])
def test_nobody_looks_after_who_may_do_more(name):
    root = administrator()
    enrolled(root)
    there = signed_in(root)
    manager = signed_in(person("manager", "accounts.view_user", "accounts.change_user"))

    answer = manager.post(reverse("admin:accounts_user_do", args=(root.pk, name)))

    assert answer.status_code == 403
    assert own_factors(root)
    assert there.get(reverse("admin:index")).status_code == 200


def test_nobody_invites_oneself_away():
    root = administrator()
    client = signed_in(root)

    client.post(reverse("admin:accounts_user_do", args=(root.pk, "invite")))

    root.refresh_from_db()
    assert root.has_usable_password()
    assert client.get(reverse("admin:index")).status_code == 200


def test_the_command_invites_a_new_administrator(client, capsys):
    call_command("invite", "ada", "--administrator", "--address", "https://lockstep.example/")

    link = capsys.readouterr().out.split()[-1]
    assert link.startswith("https://lockstep.example/admin/invitation/")
    assert User.objects.get(username="ada").is_superuser
    path = link.removeprefix("https://lockstep.example")
    assert client.post(path, OWN).url == reverse("admin:enrol")


def test_the_command_gives_roles_and_names_those_that_do_not_exist():
    Group.objects.create(name="Operators")
    call_command("invite", "ada", "--role", "Operators")

    assert [role.name for role in User.objects.get(username="ada").groups.all()] == ["Operators"]
    with pytest.raises(CommandError, match="There is no role Wizards"):
        call_command("invite", "bob", "--role", "Wizards")
    with pytest.raises(CommandError, match="known already"):
        call_command("invite", "ada", "--administrator")
    with pytest.raises(CommandError, match="valid username"):
        call_command("invite", "no blanks")
