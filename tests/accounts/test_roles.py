"""The roles that Lockstep brings are there, are given new permissions once, and stay as edited."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import Group, Permission
from django.contrib.contenttypes.models import ContentType
from django.core.management import call_command
from django.urls import reverse

from apps.accounts.models import StandardRole, User
from apps.accounts.roles import ROLES
from apps.accounts.services import hand_out
from apps.audit.actions import Act
from apps.audit.models import AuditEvent
from apps.core.selectors import REACH_ALL
from tests.people import administrator, person, signed_in

pytestmark = pytest.mark.django_db


def member(key: str, name: str = "somebody") -> User:
    somebody = person(name)
    somebody.groups.add(StandardRole.objects.get(key=key).group)
    return User.objects.get(pk=somebody.pk)


def test_migrating_makes_every_role():
    assert set(StandardRole.objects.values_list("group__name", flat=True)) == {
        role.name for role in ROLES
    }


def test_an_administrator_holds_every_permission_there_is():
    assert Permission.objects.count() == member("administrator").groups.get().permissions.count()


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.key)
def test_every_pattern_names_something_that_exists(role):
    every = [f"{p.content_type.app_label}.{p.codename}" for p in Permission.objects.all()]

    idle = [
        pattern
        for pattern in role.patterns
        if not any(type(role)("", "", "", (pattern,)).wants(name) for name in every)
    ]

    assert idle == []


def test_who_looks_changes_nothing():
    for key in ("auditor", "support"):
        verbs = {name.partition(".")[2].partition("_")[0] for name in held(key)}
        allowed = {"view", "export", "verify", "reach", "add"}
        assert verbs <= allowed, key
    assert {name for name in held("auditor") if ".add_" in name} == set()
    assert {name for name in held("support") if ".add_" in name} == {"runs.add_restorerequest"}


def test_only_who_sees_the_whole_reaches_all_objects():
    assert {role.key for role in ROLES if REACH_ALL in held(role.key)} == {
        "administrator",
        "auditor",
    }


def test_only_administrators_hand_out_rights_and_write_expressions():
    for right in ("accounts.assign_rights", "mappings.author_expressions", "auth.change_group"):
        assert [role.key for role in ROLES if right in held(role.key)] == ["administrator"], right


def held(key: str) -> set[str]:
    permissions = StandardRole.objects.get(key=key).group.permissions
    pairs = permissions.values_list("content_type__app_label", "codename")
    return {f"{room}.{codename}" for room, codename in pairs}


def test_what_an_administrator_edited_stays():
    operator = StandardRole.objects.get(key="operator").group
    run, approve = (
        Permission.objects.get(codename=codename) for codename in ("run_rule", "approve_run")
    )
    operator.permissions.remove(run)
    operator.permissions.add(approve)
    operator.name = "Night shift"
    operator.save()
    Group.objects.get(name="Support").delete()

    call_command("migrate", verbosity=0)

    operator.refresh_from_db()
    assert operator.name == "Night shift"
    assert run not in operator.permissions.all()
    assert approve in operator.permissions.all()
    assert not Group.objects.filter(name__startswith="Support").exists()


def test_the_permissions_of_a_later_model_reach_the_roles():
    model = ContentType.objects.create(app_label="ledger", model="novelty")
    for verb in ("view", "change"):
        Permission.objects.create(content_type=model, codename=f"{verb}_novelty", name=verb)

    hand_out("ledger")

    assert "ledger.view_novelty" in held("support")
    assert "ledger.change_novelty" not in held("support")
    assert "ledger.change_novelty" in held("administrator")
    told = AuditEvent.objects.filter(action=Act.ROLE_RIGHTS_CHANGED, object_label="Support")
    assert told.get().details == {"gained": ["ledger.view_novelty"], "lost": []}


def test_a_group_of_ones_own_with_such_a_name_is_left_alone():
    StandardRole.objects.filter(key="support").delete()
    own = Group.objects.get(name="Support")
    own.permissions.clear()

    hand_out("ledger")

    assert not own.permissions.exists()
    assert StandardRole.objects.get(key="support").group.name == "Support (Lockstep)"


def test_who_assigns_rights_gives_only_what_one_holds():
    chief = person("chief", "accounts.view_user", "accounts.change_user", "accounts.assign_rights")
    chief.user_permissions.add(*StandardRole.objects.get(key="api_client").group.permissions.all())
    newcomer = person("newcomer")
    client = signed_in(chief)
    address = reverse("admin:accounts_user_change", args=(newcomer.pk,))

    def assign(key: str, **more: str) -> None:
        role = StandardRole.objects.get(key=key).group
        fields = {"username": "newcomer", "is_active": "on", "is_staff": "on", "groups": [role.pk]}
        client.post(address, {**fields, **more})

    assign("administrator", is_superuser="on")
    assert not newcomer.groups.exists()
    assign("api_client", is_superuser="on")
    newcomer.refresh_from_db()
    assert newcomer.groups.get().standard_role.key == "api_client"
    assert not newcomer.is_superuser


def test_a_wider_role_is_neither_changed_nor_deleted():
    chief = person(
        "chief",
        "auth.view_group",
        "auth.change_group",
        "auth.delete_group",
        "accounts.assign_rights",
    )
    role = Group.objects.get(name="Operator")
    before = held("operator")
    client = signed_in(chief)

    for page in ("change", "delete"):
        address = reverse(f"admin:auth_group_{page}", args=(role.pk,))
        assert client.post(address, {"name": "Mine", "post": "yes"}).status_code == 403
    chosen = {"action": "delete_selected", "_selected_action": [role.pk], "post": "yes"}
    assert client.post(reverse("admin:auth_group_changelist"), chosen).status_code == 403

    role.refresh_from_db()
    assert role.name == "Operator"
    assert held("operator") == before


def test_a_role_page_opens():
    address = reverse("admin:auth_group_change", args=(Group.objects.get(name="Operator").pk,))
    assert signed_in(administrator()).get(address).status_code == 200
