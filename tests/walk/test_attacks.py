"""What somebody tries who may do everything, but was granted one rule only: each is refused.

The walk tries the ids in addresses. Here are the ids, fields and lines in what is sent along.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.auth.models import Group, Permission
from django.core.exceptions import PermissionDenied
from django.test import Client
from django.urls import reverse

from apps.accounts.models import Grant, Level, User
from apps.accounts.services import give_grant
from apps.core.models import Tag
from apps.ledger.models import Change, Conflict, Rejection
from apps.ledger.services import Decision, decide_many, dismiss_rejection, edit_rejection
from apps.rules.models import Rule
from apps.runs.models import RestoreRequest, Run
from apps.runs.services import replay_rejections
from apps.sources.models import Dataset, Drift, Field, Source
from tests.people import person, signed_in
from tests.walk.world import Realm, World

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World.build(tmp_path)


def attacker(world: World) -> Client:
    return world.clients["one_rule"]


def of(realm: Realm, model: type) -> Any:
    return model.objects.get(pk=realm.rows[model].pk)  # type: ignore[attr-defined]


def test_ids_of_others_in_what_is_sent_do_nothing(world):
    client, theirs, mine = attacker(world), world.theirs, world.mine
    conflict, rejection = of(theirs, Conflict), of(theirs, Rejection)
    counts = (Run.objects.count(), RestoreRequest.objects.count(), Grant.objects.count())
    own = theirs.grants[Rule]

    seen = orjson.dumps({str(conflict.pk): conflict.seen}).decode()
    client.post(reverse("admin:ledger_conflict_bulk") + "?choice=left", {"seen": seen})
    for action in ("replay_chosen", "dismiss_chosen"):
        fields = {"action": action, ACTION_CHECKBOX_NAME: [rejection.pk], "confirmed": "yes"}
        client.post(reverse("admin:ledger_rejection_changelist"), fields)
    change = of(theirs, Change)
    for scope in (
        {"run": theirs.rows[Run].pk},
        {"rule": theirs.rows[Rule].pk, "chosen": change.pk},
        {"rule": mine.rows[Rule].pk, "run": theirs.rows[Run].pk},
        {"rule": mine.rows[Rule].pk, "chosen": change.pk, "what": "chosen"},
    ):
        client.post(reverse("admin:runs_run_undo"), {**scope, "reason": "mine"})
    client.post(reverse("admin:ledger_conflict_write") + f"?rule={theirs.rows[Rule].pk}")
    page = reverse("admin:rules_rule_ungrant", args=(mine.rows[Rule].pk,))
    assert client.post(page, {"grant": own.pk}).status_code == 404
    page = reverse("admin:accounts_user_take", args=(world.shared[User].pk,))
    assert client.post(page, {"grant": own.pk}).status_code == 403

    assert of(theirs, Conflict).state == Conflict.State.OPEN
    assert of(theirs, Rejection).state == Rejection.State.OPEN
    new_runs = Run.objects.exclude(rule=mine.rows[Rule]).count()
    assert new_runs == Run.objects.filter(rule=theirs.rows[Rule]).count() == 2
    assert RestoreRequest.objects.count() == counts[1]
    assert Grant.objects.count() == counts[2]
    undone = Run.objects.filter(kind=Run.Kind.UNDO)
    assert not [run for run in undone if run.planned]


def test_services_refuse_what_faces_would_not_offer(world):
    user, theirs = world.people["one_rule"], world.theirs
    rejection, conflict = of(theirs, Rejection), of(theirs, Conflict)
    for attempt in (
        lambda: edit_rejection(rejection, {"name": "x"}, actor=user),
        lambda: dismiss_rejection(rejection, actor=user),
        lambda: replay_rejections([rejection], actor=user),
        lambda: decide_many({conflict.pk: conflict.seen}, Decision(record="left"), actor=user),
    ):
        with pytest.raises(PermissionDenied, match="you may not"):
            attempt()
    assert of(theirs, Rejection).sealed_edit is None


def test_lists_that_can_be_edited_change_no_row_of_others(world):
    client = attacker(world)
    give_grant(world.people["one_rule"], world.mine.rows[Dataset], Level.SEE, actor=None)
    for realm in (world.mine, world.theirs):
        field = of(realm, Field)
        fields = {
            "form-TOTAL_FORMS": "1",
            "form-INITIAL_FORMS": "1",
            "form-0-id": str(field.pk),
            "form-0-personal_data": "",
            "_save": "Save",
        }
        client.post(reverse("admin:sources_field_changelist"), fields)
        assert of(realm, Field).personal_data == "contact"


def test_a_line_of_another_object_is_not_smuggled_into_an_inline(world):
    user = world.people["one_rule"]
    mine, theirs = of(world.mine, Dataset), of(world.theirs, Field)
    give_grant(user, mine, Level.CHANGE, actor=None)
    address = reverse("admin:sources_dataset_change", args=(mine.pk,))
    fields = {
        "key": "id",
        "criticality": "normal",
        "fields-TOTAL_FORMS": "2",
        "fields-INITIAL_FORMS": "1",
        "fields-0-id": str(theirs.pk),
        "fields-0-dataset": str(mine.pk),
        "fields-0-personal_data": "",
        "fields-1-id": "",
        "fields-1-dataset": str(mine.pk),
        "fields-1-name": "smuggled",
    }
    attacker(world).post(address, fields)

    assert of(world.theirs, Field).personal_data == "contact"
    assert of(world.theirs, Field).dataset_id == world.theirs.rows[Dataset].pk
    assert not Field.objects.filter(name="smuggled").exists()


def rule_form(client: Client, rule: Rule) -> dict[str, Any]:
    page = client.get(reverse("admin:rules_rule_change", args=(rule.pk,)))
    initial = page.context["adminform"].form.initial
    fields = {
        name: value for name, value in initial.items() if value is not None and value is not False
    }
    fields.pop("depends_on", None)
    formsets = page.context["inline_admin_formsets"]
    for entry in formsets:
        for form in entry.formset.forms:
            for name in form.fields:
                value = form[name].value()
                fields[f"{form.prefix}-{name}"] = "" if value in (None, [], False) else value
        prefix, count = entry.formset.prefix, entry.formset.initial_form_count()
        fields[f"{prefix}-TOTAL_FORMS"] = entry.formset.total_form_count()
        fields[f"{prefix}-INITIAL_FORMS"] = count
    return fields


def _errors(answer: Any) -> Any:
    context = answer.context
    formsets = [entry.formset.errors for entry in context["inline_admin_formsets"]]
    return context["adminform"].form.errors, formsets


def test_a_rule_is_not_pointed_at_what_was_not_granted(world):
    client = attacker(world)
    rule, theirs = of(world.mine, Rule), of(world.theirs, Rule)
    address = reverse("admin:rules_rule_change", args=(rule.pk,))
    for taken in ({"mapping": theirs.mapping_id}, {"depends_on": [theirs.pk]}):
        answer = client.post(address, {**rule_form(client, rule), **taken})
        assert answer.status_code == 200
        assert "Select a valid choice" in answer.content.decode()
    rule.refresh_from_db()
    assert rule.mapping_id == world.mine.pair.mapping.pk
    assert not rule.depends_on.exists()


def test_fields_that_a_form_does_not_show_are_not_taken(world):
    """Mass assignment: what is not offered is not stored, whoever sends it."""
    client = world.clients["administrator"]
    rule, dataset, source = (of(world.mine, kind) for kind in (Rule, Dataset, Source))
    tag = Tag.objects.create(name="granted to somebody")
    smuggled = {
        "tags": [tag.pk],
        "is_demo": "on",
        "paused": "on",
        "enabled": "on",
        "id": "0",
        "created_at": "2000-01-01",
        "schedule_since": "2000-01-01",
        "row_count": "1",
        "source": world.theirs.rows[Source].pk,
        "sealed_secrets": "x",
        "secrets_set_at": "{}",
        "health": "failing",
        "discovered_at": "2000-01-01",
    }
    answer = client.post(
        reverse("admin:rules_rule_change", args=(rule.pk,)),
        {**rule_form(client, rule), "description": "typed", **smuggled},
    )
    assert answer.status_code == 302, _errors(answer)
    client.post(
        reverse("admin:sources_dataset_change", args=(dataset.pk,)),
        {
            "key": "id",
            "criticality": "normal",
            "description": "typed",
            "fields-TOTAL_FORMS": "0",
            "fields-INITIAL_FORMS": "0",
            **smuggled,
        },
    )

    changed = of(world.mine, Rule)
    assert changed.description == "typed"
    assert (changed.is_demo, changed.paused, changed.enabled) == (False, False, False)
    assert changed.created_at == rule.created_at
    assert not changed.tags.exists()
    kept = of(world.mine, Dataset)
    assert kept.description == "typed"
    assert (kept.source_id, kept.row_count, kept.missing_since) == (
        dataset.source_id,
        dataset.row_count,
        None,
    )
    assert not kept.tags.exists()
    assert of(world.mine, Source).health == source.health


def test_nobody_becomes_more_by_a_form(world):
    """Rights that are posted to one's own page, to a friend's, or to a role of one's own."""
    chief = person(
        "chief",
        "accounts.view_user",
        "accounts.change_user",
        "accounts.add_user",
        "accounts.assign_rights",
        "auth.view_group",
        "auth.change_group",
        "auth.add_group",
        reaches_all=False,
    )
    client = signed_in(chief)
    role = Group.objects.create(name="Chief's own")
    every = [str(pk) for pk in Permission.objects.values_list("pk", flat=True)]
    groups = [str(pk) for pk in Group.objects.values_list("pk", flat=True)]
    friend = person("friend", reaches_all=False)
    give_grant(role, world.theirs.rows[Rule], Level.SEE, actor=None)
    for who in (chief, friend):
        fields = {
            "username": who.username,
            "is_active": "on",
            "is_staff": "on",
            "is_superuser": "on",
            "user_permissions": every,
            "groups": groups,
            "grants": "1",
        }
        client.post(reverse("admin:accounts_user_change", args=(who.pk,)), fields)
    taken = {"name": "Taken", "permissions": every}
    client.post(reverse("admin:auth_group_change", args=(role.pk,)), taken)
    client.post(reverse("admin:auth_group_add"), taken)

    for who in (chief, friend):
        fresh = User.objects.get(pk=who.pk)
        assert not fresh.is_superuser
        assert fresh.get_all_permissions() <= chief.get_all_permissions()
        assert not fresh.groups.filter(pk=role.pk).exists(), "its grant is beyond the chief's"
    role.refresh_from_db()
    assert role.name == "Chief's own"
    assert not Group.objects.filter(name="Taken", permissions__isnull=False).exists()


def test_a_grant_is_not_widened_by_its_holder(world):
    """Somebody may give grants, and holds one: neither itself nor another gets wider."""
    user = world.people["one_rule"]
    guest = person("guest", "rules.view_rule", "accounts.give_grant", reaches_all=False)
    rule = of(world.mine, Rule)
    give_grant(guest, rule, Level.SEE, actor=None)
    client = signed_in(guest)
    page = reverse("admin:rules_rule_grant", args=(rule.pk,))
    for holder in (guest, user):
        sent = {"holder": f"person:{holder.pk}", "level": "3"}
        assert client.post(page, sent).status_code == 403
    tags = reverse("admin:rules_rule_tag", args=(rule.pk,))
    assert client.post(tags, {"tags": "all"}).status_code == 403
    for level in ("0", "4", "x"):
        sent = {"holder": f"person:{guest.pk}", "level": level}
        assert client.post(page, sent).status_code == 404
    assert Grant.objects.get(person=guest).level == Level.SEE


def test_history_of_others_is_neither_read_nor_written_back(world):
    client, theirs = attacker(world), of(world.theirs, Rule)
    version = theirs.history.first().pk
    for name, args in (
        ("rules_rule_history", (theirs.pk,)),
        ("rules_rule_simple_history", (theirs.pk, version)),
    ):
        address = reverse(f"admin:{name}", args=args)
        answer = client.get(address)
        assert answer.status_code == 403, name
        assert theirs.name not in answer.content.decode()
        assert client.post(address, {"name": "mine"}).status_code in (403, 405), name
    assert of(world.theirs, Rule).name == "theirs"


def test_history_of_what_was_deleted_is_for_who_reaches_all(world):
    theirs = of(world.theirs, Rule)
    pk = theirs.pk
    theirs.delete()
    address = reverse("admin:rules_rule_history", args=(pk,))
    assert attacker(world).get(address).status_code == 403
    assert world.clients["auditor"].get(address).status_code == 200


def test_filters_search_and_autocomplete_give_nothing_of_others(world):
    client, theirs = attacker(world), world.theirs
    rule = theirs.rows[Rule].pk
    for address in (
        reverse("admin:runs_run_changelist") + f"?rule__id__exact={rule}",
        reverse("admin:ledger_rejection_changelist") + f"?rule={rule}",
        reverse("admin:ledger_rejection_changelist") + f"?run_id__exact={theirs.rows[Run].pk}",
        reverse("admin:ledger_conflict_changelist") + f"?rule={rule}",
        reverse("admin:ledger_change_find") + f"?rule={rule}&key=1",
        reverse("admin:runs_run_changelist") + "?q=theirs",
        reverse("admin:search") + "?s=theirs&extended=1",
    ):
        answer = client.get(address, follow=True)
        text = answer.content.decode()
        for model in (Run, Rejection, Conflict, Change):
            shown = f"/{model._meta.model_name}/{theirs.rows[model].pk}/"
            assert shown not in text, (address, model)
    for model, name in (("rule", "theirs"), ("dataset", "theirs")):
        room = "rules" if model == "rule" else "sources"
        sent = {"app_label": room, "model_name": model, "field_name": "depends_on", "term": name}
        found = client.get(reverse("admin:autocomplete"), sent).json()
        assert found["results"] == []
    assert not Drift.objects.filter(acknowledged_at__isnull=False).exists()
