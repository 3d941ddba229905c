"""People reach only what was granted to them, alone, by a role, by a tag; and as far as it says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from django.apps import apps
from django.contrib import admin
from django.contrib.auth.models import Group, Permission
from django.core.exceptions import PermissionDenied
from django.urls import reverse

from apps.accounts.models import Grant, Level, User
from apps.accounts.selectors import who_reaches
from apps.accounts.services import give_grant, set_tags, take_grant
from apps.audit.actions import Act
from apps.audit.models import AuditEvent
from apps.core.models import Tag
from apps.core.selectors import needs_grants, reached, reaches, scoped
from apps.ledger.models import Change
from apps.mappings.models import Mapping
from apps.mappings.services import save_mapping
from apps.rules.models import Rule
from apps.rules.services import save_rule
from apps.runs.models import Run
from apps.runs.services import request_run
from apps.sources.models import Dataset, Drift, Field, Source
from apps.sources.services import create_dataset
from tests.people import administrator, person, signed_in
from tests.platforms import PLAIN_FIELDS, Pair

pytestmark = pytest.mark.django_db


def able(name: str) -> User:
    """Somebody who may do everything, to nothing."""
    user = person(name, reaches_all=False)
    user.user_permissions.set(Permission.objects.exclude(codename="reach_all_objects"))
    return user


@pytest.fixture
def mine(tmp_path: Path) -> Pair:
    return Pair(tmp_path, name="mine", fields=PLAIN_FIELDS)


@pytest.fixture
def theirs(tmp_path: Path) -> Pair:
    return Pair(tmp_path, name="theirs", fields=PLAIN_FIELDS)


def seen(model: Any, user: User, action: str = "view") -> set[Any]:
    return set(scoped(model.objects.all(), user, action))


@pytest.mark.django_db(transaction=True)
def test_without_a_grant_nothing_is_reached_whatever_the_permissions(mine):
    mine.add_customers(2)
    mine.run()
    user = able("nobody's")
    reach = [model for model in apps.get_models() if reached(model._base_manager.all(), user)]
    assert [model.__name__ for model in reach if needs_grants(model)] == []
    assert reached(Change.objects.all(), administrator()).count() == 2


def test_every_model_with_pages_says_what_grants_mean_for_it():
    """One that says nothing is closed to all who reach not everything: never by accident."""
    user = able("nobody's")
    give_grant(user, Tag.objects.create(name="any"), Level.CHANGE, actor=None)
    silent = [
        model.__name__
        for model in admin.site._registry
        if needs_grants(model) and reached(model.objects.all(), user).query.is_empty()
    ]
    assert silent == []


@pytest.mark.django_db(transaction=True)
def test_a_rule_brings_what_hangs_on_it(mine, theirs):
    for pair in (mine, theirs):
        pair.add_customers(3)
        pair.run()
    user = able("operator")
    give_grant(user, mine.rule, Level.SEE, actor=None)

    assert seen(Rule, user) == {mine.rule}
    assert seen(Mapping, user) == {mine.mapping}
    assert set(seen(Run, user)) == set(mine.rule.runs.all())
    assert {change.rule_id for change in seen(Change, user)} == {mine.rule.pk}
    assert not seen(Source, user)
    assert not seen(Dataset, user)


def test_a_source_brings_its_datasets_and_a_dataset_only_its_fields(mine, theirs):
    user, other = able("one"), able("two")
    source = mine.mapping.left.source
    drift = Drift.objects.create(source=source, dataset_name="customers", kind="dataset_added")
    give_grant(user, source, Level.SEE, actor=None)
    give_grant(other, mine.mapping.left, Level.SEE, actor=None)

    assert seen(Source, user) == {source}
    assert not seen(Source, other)
    for somebody in (user, other):
        assert seen(Dataset, somebody) == {mine.mapping.left}
        assert seen(Field, somebody) == set(mine.mapping.left.fields.all())
        assert seen(Drift, somebody) == {drift}


def test_a_tag_brings_all_that_carry_it(mine, theirs):
    user = able("by tag")
    give_grant(user, Tag.objects.create(name="finance"), Level.RUN, actor=None)
    assert not seen(Rule, user)

    set_tags(mine.rule, ["finance", " north "], actor=None)
    set_tags(theirs.mapping.left.source, ["finance"], actor=None)

    assert seen(Rule, user, "run") == {mine.rule}
    assert seen(Dataset, user) == {theirs.mapping.left}
    set_tags(mine.rule, ["north"], actor=None)
    assert not seen(Rule, user)


def test_a_role_brings_what_was_granted_to_it(mine):
    user = able("member")
    role = Group.objects.create(name="Night shift")
    give_grant(role, mine.rule, Level.SEE, actor=None)
    assert not seen(Rule, user)

    user.groups.add(role)

    assert seen(Rule, user) == {mine.rule}


@pytest.mark.parametrize(
    ("level", "may_run", "may_change"),
    [(Level.SEE, False, False), (Level.RUN, True, False), (Level.CHANGE, True, True)],
)
def test_a_grant_goes_as_far_as_it_says(mine, level, may_run, may_change):
    user = able("someone")
    give_grant(user, mine.rule, level, actor=None)

    assert reaches(user, "view", mine.rule)
    for action in ("run", "pause", "approve", "undo", "decide"):
        assert reaches(user, action, mine.rule) is may_run, action
    for action in ("change", "delete"):
        assert reaches(user, action, mine.rule) is may_change, action


def test_the_permission_is_needed_as_well(mine):
    user = person("looker", "rules.view_rule", reaches_all=False)
    give_grant(user, mine.rule, Level.CHANGE, actor=None)

    assert seen(Rule, user) == {mine.rule}
    assert not seen(Rule, user, "run")
    with pytest.raises(PermissionDenied):
        request_run(mine.rule, actor=user)


def test_a_mapping_of_somebody_elses_rule_is_not_changed(mine):
    user = able("editor")
    give_grant(user, mine.rule, Level.CHANGE, actor=None)
    assert seen(Mapping, user, "change") == {mine.mapping}

    save_rule(Rule(name="another", mapping=mine.mapping), (), actor=None)

    assert seen(Mapping, user) == {mine.mapping}
    assert not seen(Mapping, user, "change")


def test_nobody_writes_to_a_dataset_by_a_rule_of_ones_own(mine, theirs):
    """Reading one and writing the other needs a grant to change what is written to."""
    user = able("builder")
    give_grant(user, mine.mapping.left, Level.SEE, actor=None)
    give_grant(user, theirs.mapping.right, Level.RUN, actor=None)
    wanted = Mapping(name="new", left=mine.mapping.left, right=theirs.mapping.right)
    with pytest.raises(PermissionDenied, match="you may not change this dataset"):
        save_mapping(wanted, PLAIN_FIELDS, ["client_id"], actor=user)

    give_grant(user, theirs.mapping.right, Level.CHANGE, actor=None)
    save_mapping(wanted, PLAIN_FIELDS, ["client_id"], actor=user)
    rule = Rule(name="own", mapping=wanted)
    save_rule(rule, (), actor=user)

    assert seen(Rule, user, "change") == {rule}
    rule.direction = Rule.Direction.TWO_WAY
    with pytest.raises(PermissionDenied, match="you may not change this dataset"):
        save_rule(rule, (), actor=user)
    rule.refresh_from_db()
    rule.mapping = theirs.mapping
    with pytest.raises(PermissionDenied, match="you may not view this mapping"):
        save_rule(rule, (), actor=user)


def test_a_dataset_is_made_only_where_the_source_may_be_changed(mine):
    user = able("builder")
    give_grant(user, mine.mapping.right.source, Level.RUN, actor=None)
    with pytest.raises(PermissionDenied, match="you may not change this source"):
        create_dataset(mine.mapping.right.source, mine.mapping.right.schema(), actor=user)


# Giving


def test_nobody_gives_more_than_is_reached(mine, theirs):
    giver, friend = able("giver"), able("friend")
    give_grant(giver, mine.rule, Level.RUN, actor=None)

    give_grant(friend, mine.rule, Level.RUN, actor=giver)
    for obj, level in ((mine.rule, Level.CHANGE), (theirs.rule, Level.SEE)):
        for holder in (friend, giver):
            with pytest.raises(PermissionDenied):
                give_grant(holder, obj, level, actor=giver)
    with pytest.raises(PermissionDenied):
        give_grant(giver, Tag.objects.create(name="all"), Level.SEE, actor=giver)
    with pytest.raises(PermissionDenied):
        set_tags(mine.rule, ["all"], actor=giver)

    assert seen(Rule, friend) == {mine.rule}
    assert not mine.rule.tags.exists()


def test_giving_needs_its_permission(mine):
    user = person("plain", "rules.view_rule")
    with pytest.raises(PermissionDenied, match="you may not grant anything"):
        give_grant(user, mine.rule, Level.SEE, actor=user)


def test_what_is_taken_back_ends_at_once_and_both_are_on_record(mine):
    user = able("guest")
    boss = administrator()
    grant = give_grant(user, mine.rule, Level.SEE, actor=boss, reason="ticket 17")
    again = give_grant(user, mine.rule, Level.RUN, actor=boss)
    assert again.pk == grant.pk
    take_grant(again, mine.rule, actor=boss)

    assert not seen(Rule, user)
    told = AuditEvent.objects.filter(action__startswith="grant.").order_by("id")
    assert [(e.action, e.reason, e.details) for e in told] == [
        (Act.GRANT_GIVEN, "ticket 17", {"person": "guest", "level": "See"}),
        (Act.GRANT_GIVEN, "", {"person": "guest", "level": "Run"}),
        (Act.GRANT_TAKEN, "", {"person": "guest", "level": "Run"}),
    ]


def test_who_sees_an_object_and_why(mine):
    administrator("root")
    user, member, stranger = able("alone"), able("member"), able("stranger")
    role = Group.objects.create(name="Night shift")
    member.groups.add(role)
    give_grant(user, mine.mapping.left, Level.SEE, actor=None)
    give_grant(role, Tag.objects.create(name="crm"), Level.RUN, actor=None)
    set_tags(mine.mapping.left, ["crm"], actor=None)

    found = {r.person.username: (r.level.label, r.why) for r in who_reaches(mine.mapping.left)}

    assert found == {
        "root": ("Change", "administrator"),
        "alone": ("See", "own grant, on the dataset"),
        "member": ("Run", "role Night shift, on a tag"),
    }
    assert stranger.username not in found


def test_nobody_takes_over_an_account_that_reaches_more(mine):
    manager = person("manager", "accounts.view_user", "accounts.change_user", reaches_all=False)
    guest = person("guest", reaches_all=False)
    give_grant(guest, mine.rule, Level.SEE, actor=None)
    address = reverse("admin:auth_user_password_change", args=(guest.pk,))
    fields = {"usable_password": "true", "password1": "Zebra-42-x", "password2": "Zebra-42-x"}

    assert signed_in(manager).post(address, fields).status_code == 403


# Pages


@pytest.fixture
def boss_client():
    return signed_in(administrator())


def test_grants_are_given_and_taken_on_the_page_of_an_object(mine, boss_client):
    user = able("guest")
    page = reverse("admin:rules_rule_access", args=(mine.rule.pk,))
    rule_page = boss_client.get(reverse("admin:rules_rule_change", args=(mine.rule.pk,)))
    assert page in rule_page.content.decode()

    fields = {"holder": f"person:{user.pk}", "level": "2", "reason": "ticket 4"}
    boss_client.post(f"{page}grant/", fields)
    boss_client.post(f"{page}tag/", {"tags": "crm, north"})

    assert seen(Rule, user, "run") == {mine.rule}
    text = boss_client.get(page).content.decode()
    assert "guest" in text
    assert "crm, north" in text
    boss_client.post(f"{page}ungrant/", {"grant": str(Grant.objects.get().pk)})
    assert not Grant.objects.exists()


@pytest.mark.parametrize("of", ["person", "role"])
def test_grants_are_given_and_taken_on_the_page_of_a_holder(mine, boss_client, of):
    if of == "person":
        holder: Any = able("guest")
        page = reverse("admin:accounts_user_grants", args=(holder.pk,))
    else:
        holder = Group.objects.create(name="Night shift")
        page = reverse("admin:auth_group_grants", args=(holder.pk,))
    source = mine.mapping.left.source

    boss_client.post(f"{page}give/", {"object": f"source:{source.pk}", "level": "1"})

    grant = Grant.objects.get(**{of: holder})
    assert (grant.kind, grant.object_id, grant.level) == ("source", source.pk, Level.SEE)
    assert source.name in boss_client.get(page).content.decode()
    boss_client.post(f"{page}take/", {"grant": str(grant.pk)})
    assert not Grant.objects.exists()


def test_choices_and_filters_name_only_what_may_be_seen(mine, theirs):
    user = able("editor")
    give_grant(user, mine.rule, Level.CHANGE, actor=None)
    client = signed_in(user)
    pages = [
        reverse("admin:rules_rule_change", args=(mine.rule.pk,)),
        *(
            reverse(f"admin:{name}_changelist")
            for name in (
                "rules_rule",
                "runs_run",
                "mappings_mapping",
                "ledger_change",
                "ledger_rejection",
                "ledger_conflict",
                "sources_source",
                "sources_dataset",
                "sources_field",
            )
        ),
        reverse("admin:index"),
        reverse("admin:ledger_change_find"),
        reverse("admin:search") + "?s=their&extended=1",
    ]
    for page in pages:
        answer = client.get(page)
        assert answer.status_code == 200, page
        assert "theirs" not in answer.content.decode(), page


def test_what_one_may_not_see_stays_chosen(mine, theirs):
    """A form without a choice does not take away what somebody else has chosen."""
    mine.rule.depends_on.add(theirs.rule)
    user = able("editor")
    give_grant(user, mine.rule, Level.CHANGE, actor=None)
    client = signed_in(user)
    address = reverse("admin:rules_rule_change", args=(mine.rule.pk,))
    form = client.get(address).context["adminform"].form
    fields = {
        name: "" if value is None or value is False else value
        for name, value in form.initial.items()
        if name not in ("depends_on", "two_way_digest")
    }
    for prefix in ("field_policies", "checks"):
        fields |= {f"{prefix}-TOTAL_FORMS": "0", f"{prefix}-INITIAL_FORMS": "0"}

    answer = client.post(address, {**fields, "description": "typed"})

    assert answer.status_code == 302, answer.context["errors"]
    mine.rule.refresh_from_db()
    assert mine.rule.description == "typed"
    assert list(mine.rule.depends_on.all()) == [theirs.rule]
