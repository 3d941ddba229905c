"""A one-time password opens the page where it is replaced, and nothing else."""

from __future__ import annotations

import pytest
from django.contrib.auth.hashers import check_password
from django.core.management import CommandError, call_command
from django.test import Client
from django.urls import reverse

from apps.accounts.models import User
from apps.accounts.selectors import own_factors, recovery_codes_left
from apps.accounts.services import (
    create_administrator,
    issue_one_time_password,
    new_recovery_codes,
)
from tests.people import enrolled, log_in, signed_in

pytestmark = pytest.mark.django_db
OWN = "correct horse battery"


@pytest.fixture
def administrator(client: Client) -> tuple[User, str]:
    """The administrator, signed in with the one-time password."""
    user, password = create_administrator()
    assert password is not None
    answer = log_in(client, "admin", password)
    assert answer.status_code == 302
    return user, password


def _change(client: Client, old: str, new: str):
    fields = {"old_password": old, "new_password1": new, "new_password2": new}
    return client.post(reverse("admin:password_change"), fields)


def test_the_administrator_is_made_once():
    first, password = create_administrator()
    second, nothing = create_administrator()

    assert first == second
    assert nothing is None
    assert first.is_superuser
    assert first.must_change_password
    assert check_password(password, first.password)


def test_a_one_time_password_is_long_and_never_the_same():
    passwords = {issue_one_time_password(create_administrator()[0]) for _ in range(5)}

    assert len(passwords) == 5
    assert min(map(len, passwords)) >= 16


@pytest.mark.parametrize("path", ["/", "/admin/", "/admin/accounts/user/", "/admin/x/"])
def test_nothing_else_opens(client, administrator, path):
    answer = client.get(path)

    assert answer.status_code == 302
    assert answer.url == reverse("admin:password_change")


def test_an_action_is_refused_as_well(client, administrator):
    before = User.objects.count()

    answer = client.post("/admin/accounts/user/add/", {"username": "other"})

    assert answer.url == reverse("admin:password_change")
    assert User.objects.count() == before


@pytest.mark.parametrize("path", ["/static/../admin/", "/static/%2e%2e/admin/", "//admin/"])
def test_no_way_of_writing_the_path_gets_around_it(client, administrator, path):
    answer = client.get(path)

    assert answer.status_code in (302, 404)


def test_the_page_that_replaces_it_opens_and_so_does_the_way_out(client, administrator):
    assert client.get(reverse("admin:password_change")).status_code == 200
    assert client.post(reverse("admin:logout")).status_code == 200


def test_a_password_of_ones_own_opens_the_enrolment(client, administrator):
    user, password = administrator

    _change(client, password, OWN)

    user.refresh_from_db()
    assert not user.must_change_password
    assert client.get(reverse("admin:index")).url == reverse("admin:enrol")
    assert client.get(reverse("admin:enrol")).status_code == 200


def test_it_has_its_time(client, later):
    _, password = create_administrator()

    later(days=4)
    page = log_in(client, "admin", password).content.decode()

    assert "one-time password has expired" in page
    assert not client.session.get("_auth_user_id")


@pytest.mark.parametrize(("old", "new"), [("wrong", OWN), (None, "short")])
def test_a_change_that_failed_opens_nothing(client, administrator, old, new):
    user, password = administrator

    assert _change(client, old or password, new).status_code == 200

    user.refresh_from_db()
    assert user.must_change_password
    assert client.get(reverse("admin:index")).status_code == 302


def test_the_one_time_password_itself_is_no_password_of_ones_own(client, administrator):
    user, password = administrator

    _change(client, password, password)

    user.refresh_from_db()
    assert user.must_change_password


def test_who_forgot_gets_a_new_one_time_password(client, administrator, capsys):
    _change(client, administrator[1], OWN)

    call_command("one_time_password", "admin")

    new = capsys.readouterr().out.split()[-1]
    assert client.get(reverse("admin:index")).status_code == 302  # the session has ended
    assert log_in(client, "admin", new).status_code == 302
    assert client.get(reverse("admin:index")).url == reverse("admin:password_change")


def test_who_lost_the_second_factor_as_well_enrols_anew(client, capsys):
    user, _ = create_administrator()
    enrolled(user)
    new_recovery_codes(user)
    elsewhere = signed_in(user)

    call_command("one_time_password", "admin", "--forget-factors")

    new = capsys.readouterr().out.split()[-1]
    assert elsewhere.get(reverse("admin:index")).status_code == 302
    assert not own_factors(user)
    assert recovery_codes_left(user) == 0
    assert log_in(client, "admin", new).url == reverse("admin:index")
    _change(client, new, OWN)
    assert client.get(reverse("admin:index")).url == reverse("admin:enrol")


def test_nobody_gets_one_for_a_name_that_does_not_exist():
    with pytest.raises(CommandError, match="Nobody is called ghost"):
        call_command("one_time_password", "ghost")
