"""Sealing in batches, late events, and the checkpoints outside the database."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from unittest import mock

import pytest

from apps.audit import tasks
from apps.audit.canonical import unpacked_ids
from apps.audit.models import AuditEvent, AuditPending, AuditSeal
from apps.audit.services import seal_pending, sealing, verify
from apps.core.clock import now
from config import settings as configured
from tests.audit.streams import checkpoints_in, write_events

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def file(tmp_path: Path) -> Iterator[Path]:
    with checkpoints_in(tmp_path) as path:
        yield path


def seals() -> list[AuditSeal]:
    return list(AuditSeal.objects.order_by("number"))


def lines(file: Path) -> list[dict]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_every_event_goes_into_one_seal_in_the_order_of_ids():
    made = [event.id for event in write_events(25)]

    assert seal_pending(batch=10) == 25

    assert [seal.count for seal in seals()] == [10, 10, 5]
    assert [one for seal in seals() for one in unpacked_ids(seal.event_ids)] == made
    assert not AuditPending.objects.exists()
    assert seal_pending() == 0
    assert len(seals()) == 3


def test_each_seal_links_to_the_one_before():
    write_events(6)
    seal_pending(batch=2)

    first, second, third = seals()
    assert bytes(first.previous_mac) == sealing.NO_SEAL
    assert bytes(second.previous_mac) == bytes(first.mac)
    assert bytes(third.previous_mac) == bytes(second.mac)


def test_an_event_that_appears_late_goes_into_the_next_seal_whatever_its_time():
    with mock.patch("apps.audit.services.recording.now", return_value=now() - timedelta(hours=3)):
        [late] = write_events(1)
    AuditPending.objects.all().delete()
    write_events(3)
    seal_pending()
    AuditPending.objects.create(event_id=late.id)  # as when its transaction commits now

    assert verify(actor=None).findings == []
    seal_pending()

    assert unpacked_ids(seals()[1].event_ids)[0] == late.id
    assert verify(actor=None).findings == []


def test_events_that_are_gone_do_not_keep_others_from_being_sealed():
    AuditPending.objects.bulk_create([AuditPending(event_id=e.id) for e in unsaved(5)])
    write_events(3)

    assert seal_pending(batch=2) == 3


def unsaved(count: int) -> list[AuditEvent]:
    from apps.core.clock import id_at

    return [AuditEvent(id=id_at(now() - timedelta(hours=1))) for _ in range(count)]


# Checkpoints


def test_each_seal_is_told_to_the_file_once(file: Path, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO, "lockstep.audit")
    for _ in range(3):
        write_events(2)
        seal_pending()
        seal_pending()

    assert [line["seal"] for line in lines(file)] == [1, 2, 3]
    assert lines(file)[1]["mac"] == bytes(seals()[1].mac).hex()
    assert file.stat().st_mode & 0o777 == 0o600
    assert sum("Audit seal" in message for message in caplog.messages) == 3


def test_lines_that_were_lost_are_made_up_for(file: Path):
    write_events(6)
    seal_pending(batch=2)
    whole = file.read_text()
    file.write_text(whole[: len(whole) - 40])  # a crash in the middle of the last line

    seal_pending()

    good = [line for line in file.read_text().splitlines() if line.endswith("}")]
    assert [json.loads(line)["seal"] for line in good] == [1, 2, 3]


def test_a_file_that_cannot_be_written_stops_no_seal(file: Path, caplog: pytest.LogCaptureFixture):
    file.mkdir()
    write_events(2)

    assert seal_pending() == 2
    assert any("cannot be written" in message for message in caplog.messages)
    file.rmdir()
    seal_pending()
    assert [line["seal"] for line in lines(file)] == [1]


def test_the_scheduler_seals_and_verifies():
    schedule = configured.CELERY_BEAT_SCHEDULE
    assert {"audit.seal", "audit.verify"} <= {entry["task"] for entry in schedule.values()}
    write_events(2)
    tasks.seal()
    tasks.verify()
    assert len(seals()) == 1
    assert AuditEvent.objects.order_by("-id")[0].action == "audit.verified"
