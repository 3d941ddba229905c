"""Putting acts on record: who, what, from where; nothing that must not be kept."""

from __future__ import annotations

from uuid import uuid4

import pytest
from django.db import transaction

from apps.audit.actions import SUBJECTS, Act
from apps.audit.canonical import event_form, is_genuine
from apps.audit.models import AppendOnlyError, AuditEvent, AuditPending
from apps.audit.origin import Channel, Origin, acting_from
from apps.audit.services import STRANGER, Subject, name_digest, record
from apps.core.clock import first_id_at, id_at, now
from tests.people import administrator

pytestmark = pytest.mark.django_db


def stored(event: AuditEvent) -> AuditEvent:
    return AuditEvent.objects.get(pk=event.pk)


def test_an_event_says_who_did_what_to_which_object():
    user = administrator("maria")
    subject = Subject("rules.rule", "7", "Customers")

    event = stored(record(Act.RULE_CHANGED, subject, actor=user, reason="wrong filter"))

    assert (event.actor_kind, event.actor_id, event.actor_label) == (
        "person",
        str(user.pk),
        "maria",
    )
    assert (event.action, event.outcome) == ("rule.changed", "success")
    assert (event.object_type, event.object_id, event.object_label) == (
        "rules.rule",
        "7",
        "Customers",
    )
    assert event.reason == "wrong filter"


def test_an_object_is_named_by_its_own_words_or_by_others():
    user = administrator("maria")

    own = record(Act.PERSON_CHANGED, user, actor=None)
    other = record(Act.PERSON_CHANGED, Subject.of(user, "somebody"), actor=None)

    assert (own.object_type, own.object_id) == ("accounts.user", str(user.pk))
    assert (own.object_label, other.object_label) == ("maria", "somebody")


@pytest.mark.parametrize(
    ("actor", "origin", "kind", "label"),
    [
        (None, Origin(), "system", "the system"),
        (None, Origin(Channel.COMMAND, operator="ada"), "system", "command line (ada)"),
        (STRANGER, Origin(Channel.WEB), "stranger", "nobody"),
    ],
)
def test_who_is_not_a_person_has_a_name_too(actor, origin, kind, label):
    with acting_from(origin):
        event = record(Act.RUN_REQUESTED, actor=actor)

    assert (event.actor_kind, event.actor_id, event.actor_label) == (kind, "", label)


def test_an_act_that_is_rolled_back_leaves_no_event():
    with transaction.atomic():
        record(Act.RULE_CHANGED, actor=None)
        transaction.set_rollback(True)

    assert not AuditEvent.objects.exists()
    assert not AuditPending.objects.exists()


def test_an_action_that_is_not_on_the_list_is_refused():
    with pytest.raises(ValueError, match=r"rule\.danced"):
        record("rule.danced", actor=None)


@pytest.mark.parametrize("value", [1.5, b"bytes", object(), {"deep": [2**60]}])
def test_details_that_a_database_may_alter_are_refused(value):
    with pytest.raises(TypeError, match="details of an audit event"):
        record(Act.RULE_CHANGED, actor=None, details={"value": value})


def test_texts_come_back_as_they_were_hashed():
    odd = "nul \x00 tab \t half \ud800 turtle 🐢 " + "x" * 600
    with acting_from(Origin(Channel.WEB, "::1", uuid4().hex, odd)):
        event = record(
            Act.RULE_CHANGED,
            Subject("t", odd, odd),
            actor=None,
            reason=odd,
            details={odd: [odd, {"b": None, "a": True, "n": -3}], "many": ["x"] * 250},
        )

    found = stored(event)
    assert is_genuine(event_form(found), found.key_id, found.mac)
    assert event_form(found) == event_form(event)
    assert len(found.reason) == 500
    assert found.details["many"][-1] == "… and 150 more"


def test_every_column_but_the_hash_is_in_the_form():
    event = record(Act.RULE_CHANGED, actor=None)
    before = event_form(event)
    for field in AuditEvent._meta.fields:
        if field.name == "mac":
            continue
        kept = getattr(event, field.name)
        changed = {"id": uuid4(), "at": now(), "details": {"other": 1}}.get(field.name, "other")
        setattr(event, field.name, changed)
        assert event_form(event) != before, field.name
        setattr(event, field.name, kept)


def test_events_are_never_changed_or_deleted_by_our_own_code():
    event = record(Act.RULE_CHANGED, actor=None)
    for attempt in (
        event.delete,
        event.save,
        AuditEvent.objects.all().delete,
        lambda: AuditEvent.objects.filter(pk=event.pk).update(reason="x"),
        lambda: AuditEvent.objects.bulk_update([event], ["reason"]),
    ):
        with pytest.raises(AppendOnlyError):
            attempt()


def test_every_action_belongs_to_a_subject_with_a_name():
    assert {action.subject for action in Act} == set(SUBJECTS)


def test_ids_sort_as_moments_do():
    moments = [now() for _ in range(200)]
    ids = [id_at(moment) for moment in moments]

    assert all(first_id_at(moment) <= one for moment, one in zip(moments, ids, strict=True))
    assert [one.version for one in ids] == [7] * 200
    apart = sorted(set(moments))
    assert [first_id_at(m) for m in apart] == sorted(first_id_at(m) for m in apart)


def test_a_typed_name_is_kept_as_a_digest_that_is_the_same_for_the_same_name():
    assert name_digest("Maria ") == name_digest("maria")
    assert name_digest("maria") != name_digest("mario")
    assert "maria" not in name_digest("maria")
