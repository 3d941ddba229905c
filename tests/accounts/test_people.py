"""Who looks after people and roles gives nobody more rights than they have themselves."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import Group, Permission
from django.urls import reverse

from apps.accounts.models import User
from tests.people import administrator, person, signed_in

pytestmark = pytest.mark.django_db
OTHER = "Zebra-crossing-42"
LOOK_AFTER_PEOPLE = ("accounts.view_user", "accounts.change_user", "accounts.delete_user")


def set_password(actor: User, whose: User) -> int:
    address = reverse("admin:auth_user_password_change", args=(whose.pk,))
    fields = {"usable_password": "true", "password1": OTHER, "password2": OTHER}
    return signed_in(actor).post(address, fields).status_code


@pytest.fixture
def manager() -> User:
    return person("manager", *LOOK_AFTER_PEOPLE)


def test_only_an_administrator_sets_an_administrators_password(manager):
    root = administrator()

    assert set_password(manager, root) == 403

    root.refresh_from_db()
    assert not root.check_password(OTHER)


@pytest.mark.parametrize("is_active", [True, False])
def test_nobody_takes_over_an_account_that_may_do_more(manager, is_active):
    operator = person("operator", "rules.run_rule")
    User.objects.filter(pk=operator.pk).update(is_active=is_active)

    assert set_password(manager, operator) == 403


def test_rights_that_come_from_a_role_count(manager):
    role = Group.objects.create(name="Operators")
    role.permissions.set(Permission.objects.filter(codename="run_rule"))
    operator = person("operator")
    operator.groups.add(role)

    assert set_password(manager, operator) == 403


def test_an_account_with_no_more_rights_can_be_looked_after(manager):
    colleague = person("colleague", "accounts.view_user")

    assert set_password(manager, colleague) == 302

    colleague.refresh_from_db()
    assert colleague.check_password(OTHER)


def test_an_administrator_is_neither_changed_nor_deleted_by_others(manager):
    root, client = administrator(), signed_in(manager)

    assert client.get(reverse("admin:accounts_user_change", args=(root.pk,))).status_code == 200
    for page in ("change", "delete"):
        address = reverse(f"admin:accounts_user_{page}", args=(root.pk,))
        assert client.post(address, {"post": "yes", "username": "mine"}).status_code == 403
    chosen = {"action": "delete_selected", "_selected_action": [root.pk], "post": "yes"}
    client.post(reverse("admin:accounts_user_changelist"), chosen)

    root.refresh_from_db()
    assert root.username == "root"


def test_nobody_widens_a_role():
    actor = person("roles", "auth.view_group", "auth.change_group", "auth.add_group")
    role = Group.objects.create(name="Mine")
    actor.groups.add(role)
    every = [str(pk) for pk in Permission.objects.values_list("pk", flat=True)]
    fields = {"name": "Renamed", "permissions": every}

    signed_in(actor).post(reverse("admin:auth_group_change", args=(role.pk,)), fields)
    signed_in(actor).post(reverse("admin:auth_group_add"), {**fields, "name": "New"})

    role.refresh_from_db()
    assert role.name == "Renamed"
    assert not role.permissions.exists()
    assert not Group.objects.get(name="New").permissions.exists()


def test_an_administrator_says_what_a_role_may_do():
    role = Group.objects.create(name="Operators")
    right = Permission.objects.get(codename="run_rule")
    fields = {"name": "Operators", "permissions": [str(right.pk)]}

    client = signed_in(administrator())
    client.post(reverse("admin:auth_group_change", args=(role.pk,)), fields)

    assert list(role.permissions.all()) == [right]
