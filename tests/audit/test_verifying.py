"""Ten thousand events, tampered with in every way we could think of: each one is found."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.exceptions import PermissionDenied

from apps.audit import canonical
from apps.audit.canonical import event_form, keyed_hash, merkle_root, packed_ids, unpacked_ids
from apps.audit.models import AuditEvent, AuditPending, AuditSeal, AuditVerification
from apps.audit.services import Kind, Report, seal_pending, verify
from apps.audit.services.checkpoints import CheckpointsUnreadable
from apps.core.clock import id_at, now
from tests.audit.streams import checkpoints_in, sql, write_events
from tests.people import administrator, viewer

SEALED, WAITING = 9_990, 10
EVENTS, SEALS = "audit_auditevent", "audit_auditseal"


@pytest.fixture(scope="module")
def stream(
    django_db_setup: None, django_db_blocker: Any, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    """10,000 events, the last ten of which wait for a seal; yields the file of checkpoints."""
    folder = tmp_path_factory.mktemp("audit")
    with django_db_blocker.unblock(), checkpoints_in(folder) as path:
        write_events(SEALED)
        seal_pending()
        write_events(WAITING, SEALED)
        shutil.copy(path, folder / "kept")
        yield path
        for table in (EVENTS, SEALS, "audit_auditpending"):
            sql(f"DELETE FROM {table}")


@pytest.fixture(autouse=True)
def _same_checkpoints(stream: Path, db: None) -> None:
    """Each test finds the stream as it was made: its own changes are rolled back."""
    shutil.copy(stream.with_name("kept"), stream)


def event(number: int) -> AuditEvent:
    """The event at this place of the stream."""
    return AuditEvent.objects.order_by("id")[number]


def last_seal() -> AuditSeal:
    return AuditSeal.objects.order_by("-number")[0]


def delete_event(found: AuditEvent) -> None:
    assert sql(f"DELETE FROM {EVENTS} WHERE id = %s", found.id) == 1


def change(found: AuditEvent, column: str, value: Any) -> None:
    assert sql(f"UPDATE {EVENTS} SET {column} = %s WHERE id = %s", value, found.id) == 1


def copy_of(found: AuditEvent, **changes: Any) -> AuditEvent:
    """Put a copy of an event into the table, as somebody who lacks the key would."""
    forged = AuditEvent.objects.get(pk=found.pk)
    for name, value in changes.items():
        setattr(forged, name, value)
    AuditEvent.objects.bulk_create([forged])
    return forged


def found_first(report: Report) -> tuple[str, Any]:
    assert not report.is_sound
    assert report.first is not None
    return report.first.kind.value, report.first.event_id


def test_an_untouched_stream_is_sound():
    report = verify(actor=None)

    assert report.findings == []
    assert (report.events, report.seals, report.waiting) == (10_000, 10, WAITING)
    assert report.checkpoints == 10


COLUMNS = {
    "actor_label": "somebody else",
    "action": "rule.paused",
    "outcome": "refused",
    "object_label": "Another rule",
    "address": "192.0.2.1",
    "reason": "",
    "details": '{"number": 1}',
    "at": "2020-01-01 00:00:00+00:00",
    "mac": b"\x00" * 32,
}


@pytest.mark.parametrize(("column", "value"), COLUMNS.items(), ids=list(COLUMNS))
def test_a_changed_field_is_found_and_its_event_named(column: str, value: Any):
    target = event(4_321)
    change(target, column, value)

    assert found_first(verify(actor=None)) == ("changed", target.id)


@pytest.mark.parametrize("place", [0, 9_989, 9_995], ids=["first", "sealed last", "waiting"])
def test_a_change_is_found_wherever_the_event_is(place: int):
    target = event(place)
    change(target, "reason", "another")

    assert found_first(verify(actor=None)) == ("changed", target.id)


def test_an_event_that_claims_a_key_which_is_not_there_is_not_taken_for_right():
    target = event(4_321)
    change(target, "key_id", "unheard of")

    report = verify(actor=None)

    assert report.counts == {"key_missing": 1, "seal_changed": 1}
    assert str(target.id) in " ".join(finding.text for finding in report.findings)


@pytest.mark.parametrize("place", [0, 999, 1_000, 5_000, 9_989, 9_995])
def test_a_deleted_event_is_found_and_named(place: int):
    target = event(place)
    delete_event(target)

    assert found_first(verify(actor=None)) == ("missing", target.id)


@pytest.mark.parametrize("place", [0, 5_000, 9_999])
def test_an_inserted_event_is_found_and_named(place: int):
    forged = copy_of(event(place), id=id_at(event(place).at))

    assert found_first(verify(actor=None)) == ("inserted", forged.id)


def test_an_inserted_event_that_pretends_to_wait_is_found():
    forged = copy_of(event(9_999), id=id_at(now()))
    AuditPending.objects.create(event_id=forged.id)

    assert found_first(verify(actor=None)) == ("changed", forged.id)


def test_an_inserted_event_that_a_seal_has_taken_in_is_found():
    forged = copy_of(event(9_999), id=id_at(now()))
    AuditPending.objects.create(event_id=forged.id)
    seal_pending()

    assert found_first(verify(actor=None)) == ("changed", forged.id)


def test_swapped_events_are_found():
    one, two = event(3_000), event(3_001)
    for target, source in ((one, two), (two, one)):
        change(target, "details", f'{{"number": {source.details["number"]}}}')
        change(target, "reason", source.reason)
        change(target, "mac", bytes(source.mac))

    assert found_first(verify(actor=None)) == ("changed", one.id)
    assert verify(actor=None).counts["changed"] == 2


def test_an_event_in_the_place_of_another_is_found():
    one, two = event(3_000), event(3_001)
    delete_event(one)
    change(two, "id", one.id)

    report = verify(actor=None)

    assert found_first(report) == ("changed", one.id)
    assert report.counts["missing"] == 1


def test_a_truncated_tail_is_found_by_the_checkpoints():
    """Events and seals of the end are gone, in step: the rest is sound in itself."""
    for seal in AuditSeal.objects.filter(number__gt=8):
        for one in unpacked_ids(seal.event_ids):
            sql(f"DELETE FROM {EVENTS} WHERE id = %s", one)
    for waiting in AuditPending.objects.all():
        sql(f"DELETE FROM {EVENTS} WHERE id = %s", waiting.event_id)
    AuditPending.objects.all().delete()
    sql(f"DELETE FROM {SEALS} WHERE number > 8")

    report = verify(actor=None)

    assert report.counts == {"seal_missing": 1}
    assert "each of the seals 9 to 10 is known to the checkpoints" in report.first.text


def test_a_tail_that_was_rewritten_with_new_events_is_found_by_the_checkpoints():
    for one in unpacked_ids(last_seal().event_ids):
        sql(f"DELETE FROM {EVENTS} WHERE id = %s", one)
    sql(f"DELETE FROM {SEALS} WHERE number = 10")
    write_events(5)
    seal_pending()

    report = verify(actor=None)

    assert report.counts == {"checkpoint": 1}
    assert "seal 10 is another one" in report.first.text


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("root", b"\x01" * 32),
        ("mac", b"\x01" * 32),
        ("previous_mac", b"\x01" * 32),
        ("sealed_at", "2020-01-01 00:00:00+00:00"),
        ("count", 7),
    ],
)
def test_a_changed_seal_is_found_and_named(column: str, value: Any):
    assert sql(f"UPDATE {SEALS} SET {column} = %s WHERE number = 4", value) == 1

    report = verify(actor=None)

    assert not set(report.counts) & {"missing", "changed", "inserted"}
    assert (report.first.kind, report.first.seal) == (Kind.SEAL_CHANGED, 4)


def test_an_event_taken_out_of_its_seal_is_found():
    target = event(3_500)
    seal = AuditSeal.objects.get(number=4)
    kept = [one for one in unpacked_ids(seal.event_ids) if one != target.id]
    delete_event(target)
    sql(f"UPDATE {SEALS} SET event_ids = %s WHERE number = 4", packed_ids(kept))

    report = verify(actor=None)

    assert (report.first.kind, report.first.seal) == (Kind.SEAL_CHANGED, 4)


@pytest.mark.parametrize("number", [1, 5, 10], ids=["first", "middle", "last"])
def test_a_deleted_seal_is_found(number: int):
    count = AuditSeal.objects.get(number=number).count
    sql(f"DELETE FROM {SEALS} WHERE number = %s", number)

    report = verify(actor=None)

    assert report.counts["uncovered"] == count
    missing = [f for f in report.in_order() if f.kind is Kind.SEAL_MISSING]
    assert [f.seal for f in missing] == [number] or number == 5


def test_swapped_seals_are_found():
    sql(f"UPDATE {SEALS} SET number = 99 WHERE number = 3")
    sql(f"UPDATE {SEALS} SET number = 3 WHERE number = 4")
    sql(f"UPDATE {SEALS} SET number = 4 WHERE number = 99")

    report = verify(actor=None)

    assert report.counts["seal_changed"] == 2
    assert report.counts["checkpoint"] == 2


def test_an_event_that_was_made_to_stop_waiting_is_found():
    target = event(9_995)
    AuditPending.objects.filter(event_id=target.id).delete()

    assert found_first(verify(actor=None)) == ("uncovered", target.id)


def test_an_event_that_waited_and_is_gone_is_found_also_after_the_next_seal():
    target = event(9_995)
    delete_event(target)
    seal_pending()

    assert found_first(verify(actor=None)) == ("missing", target.id)


def test_whoever_has_no_key_cannot_make_a_new_chain(monkeypatch: pytest.MonkeyPatch, stream: Path):
    """Everything is computed anew after a change, as the code does it, but with another key."""
    target = event(100)
    change(target, "reason", "never happened")
    with monkeypatch.context() as patch:
        patch.setattr(canonical, "derived_keys", lambda purpose: {target.key_id: b"A" * 32})
        forged = AuditEvent.objects.get(pk=target.pk)
        change(target, "mac", keyed_hash(event_form(forged), forged.key_id))

    assert found_first(verify(actor=None)) == ("changed", target.id)


def test_a_line_of_the_checkpoints_that_cannot_be_read_is_told(stream: Path):
    lines = stream.read_bytes().splitlines(keepends=True)
    stream.write_bytes(b"".join([*lines[:4], b"scribble\n", *lines[5:]]))

    report = verify(actor=None)

    assert report.counts == {"checkpoint": 1}
    assert "line 5" in report.first.text


def test_a_copy_of_the_checkpoints_can_be_named(stream: Path, tmp_path: Path):
    copy = tmp_path / "copy"
    shutil.copy(stream, copy)
    stream.unlink()
    sql(f"DELETE FROM {SEALS} WHERE number = 10")

    assert verify(actor=None).counts["seal_missing"] == 0
    assert verify(actor=None, checkpoints=copy).counts["seal_missing"] == 1
    with pytest.raises(CheckpointsUnreadable, match="nowhere"):
        verify(actor=None, checkpoints=tmp_path / "nowhere")


def test_what_is_recorded_and_sealed_meanwhile_is_no_finding(monkeypatch: pytest.MonkeyPatch):
    from apps.audit.services import verifying

    whole: Callable[..., Any] = verifying._Chain.check

    def meanwhile(chain: Any, newest: int) -> set[int]:
        flawed: set[int] = whole(chain, newest)
        write_events(30)
        seal_pending(batch=10)
        write_events(3)
        return flawed

    monkeypatch.setattr(verifying._Chain, "check", meanwhile)
    report = verify(actor=None)

    assert report.findings == []
    assert report.events == 10_033


def test_each_verification_is_kept_and_put_on_record():
    target = event(7)
    delete_event(target)
    user = administrator()

    verify(actor=user)

    kept = AuditVerification.objects.latest()
    assert not kept.is_sound
    assert kept.counts == {"missing": 1}
    assert kept.findings[0]["event"] == str(target.id)
    told = AuditEvent.objects.order_by("-id")[0]
    assert (told.action, told.outcome, told.actor_id) == (
        "audit.verified",
        "failed",
        str(user.pk),
    )


def test_verifying_needs_its_permission():
    with pytest.raises(PermissionDenied):
        verify(actor=viewer())


def test_a_missing_key_is_told_once_and_hides_no_other_fault(monkeypatch: pytest.MonkeyPatch):
    delete_event(event(7))
    monkeypatch.setattr(canonical, "derived_keys", lambda purpose: {"another": b"A" * 32})

    report = verify(actor=None)

    assert report.counts["missing"] == 1
    assert report.counts["key_missing"] == 1 + 10
    assert report.counts["changed"] == 0


def test_a_merkle_root_depends_on_every_leaf_and_their_order():
    leaves = [bytes([n]) * 32 for n in range(7)]
    roots = {merkle_root(leaves[:n]) for n in range(8)}
    roots |= {merkle_root(leaves[::-1]), merkle_root([*leaves, leaves[-1]])}

    assert len(roots) == 10
