"""Verifying the stream: every event and every seal is looked at, and the first fault is named.

1. The checkpoints are read first, then the number of the newest seal: what is added meanwhile is
   not looked at, and nothing needs to be locked.
2. The chain: each seal's keyed hash, its link to the one before, its line in the checkpoints; a
   number that is left out; a seal that only the checkpoints still know.
3. The events in the order of their ids, a chunk at a time, beside the seals in the order of their
   first ids. Each event's keyed hash says whether it is as it was written. An event that a seal
   names and that does not come is missing. One that no seal names must wait for a seal, or be in
   one that is newer than this verification; else it was put there. When all events of a seal have
   come, its root is computed anew.
4. Events that wait for a seal and are gone.

Time is linear in the events; memory is that of a chunk and of the seals that overlap it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID

from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.db.models import Exists, Max, OuterRef, Q

from apps.audit.actions import Act
from apps.audit.canonical import (
    AuditKeyMissing,
    event_form,
    is_genuine,
    leaf,
    merkle_root,
    seal_form,
    unpacked_ids,
)
from apps.audit.models import AuditEvent, AuditPending, AuditSeal, AuditVerification, Outcome
from apps.audit.services.checkpoints import read_checkpoints
from apps.audit.services.findings import (
    MOST_SHOWN,
    Finding,
    Kind,
    Report,
    describe,
    describe_id,
)
from apps.audit.services.recording import record
from apps.audit.services.sealing import NO_SEAL
from apps.core.clock import now

if TYPE_CHECKING:
    from django.contrib.auth.models import AbstractUser

CHUNK = 2_000
SEAL_CHUNK = 100


def verify(*, actor: AbstractUser | None, checkpoints: Path | None = None) -> Report:
    """Look at every event and seal; keep what was found, and put it on record.

    checkpoints: another file than our own, such as a copy that is kept elsewhere. Raises
    PermissionDenied and CheckpointsUnreadable.
    """
    if actor is not None and not actor.has_perm("audit.verify_auditevent"):
        raise PermissionDenied("you may not verify the audit log")
    report = Report(now())
    known = _known_seals(report, checkpoints)
    newest = AuditSeal.objects.aggregate(newest=Max("number"))["newest"] or 0
    flawed = _Chain(report, known).check(newest)
    _Events(report, newest, flawed).check()
    _check_waiting(report)
    _keep(report, actor)
    return report


@transaction.atomic
def _keep(report: Report, actor: AbstractUser | None) -> None:
    AuditVerification.objects.create(
        started_at=report.started_at,
        finished_at=now(),
        events=report.events,
        seals=report.seals,
        waiting=report.waiting,
        is_sound=report.is_sound,
        counts=dict(report.counts),
        findings=[finding.as_json() for finding in report.in_order()[:MOST_SHOWN]],
    )
    record(
        Act.AUDIT_VERIFIED,
        actor=actor,
        outcome=Outcome.SUCCESS if report.is_sound else Outcome.FAILED,
        details={"events": report.events, "seals": report.seals, "findings": report.counts},
    )


def _known_seals(report: Report, path: Path | None) -> dict[int, bytes]:
    """Keyed hash of each seal by number, as the checkpoints have it."""
    known: dict[int, bytes] = {}
    for checkpoint in read_checkpoints(path):
        report.checkpoints += 1
        if checkpoint.seal is None:
            text = f"line {checkpoint.line} of the checkpoints cannot be read"
            report.add(Finding(Kind.CHECKPOINT, text))
        elif known.setdefault(checkpoint.seal, checkpoint.mac) != checkpoint.mac:
            text = f"the checkpoints know two seals {checkpoint.seal}"
            report.add(Finding(Kind.CHECKPOINT, text, seal=checkpoint.seal))
    return known


class _Chain:
    """The seals in the order of their numbers."""

    def __init__(self, report: Report, known: dict[int, bytes]) -> None:
        self.report = report
        self.known = known
        self.expected = 1
        self.previous: bytes | None = NO_SEAL  # None: unknown, or not to be trusted
        self.flawed: set[int] = set()

    def check(self, newest: int) -> set[int]:
        """Look at all seals up to `newest`; returns the numbers of those that are not right."""
        rows = AuditSeal.objects.filter(number__lte=newest).order_by("number")
        for seal in rows.iterator(chunk_size=SEAL_CHUNK):
            self.report.seals += 1
            self._check_seal(seal)
            self.expected = seal.number + 1
            self.previous = None if seal.number in self.flawed else bytes(seal.mac)
        lost = [number for number in self.known if number > newest]
        if lost:
            self._miss(newest + 1, max(lost), "is known to the checkpoints, but gone")
        return self.flawed

    def _check_seal(self, seal: AuditSeal) -> None:
        if seal.number != self.expected:
            self._miss(self.expected, seal.number - 1, "is gone")
            self.previous = None
        fault = self._fault(seal)
        if fault:
            self.flawed.add(seal.number)
            self.report.add(
                Finding(Kind.SEAL_CHANGED, f"seal {seal.number} {fault}", seal=seal.number)
            )
        if self.known.get(seal.number, bytes(seal.mac)) != bytes(seal.mac):
            text = f"seal {seal.number} is another one than the checkpoints know"
            self.report.add(Finding(Kind.CHECKPOINT, text, seal=seal.number))

    def _fault(self, seal: AuditSeal) -> str:
        try:
            if not is_genuine(seal_form(seal), seal.key_id, seal.mac):
                return "is not as it was written"
        except AuditKeyMissing as error:
            text = f"seal {seal.number} cannot be checked: {error.message}"
            self.report.add(Finding(Kind.KEY_MISSING, text, seal=seal.number))
        if self.previous is not None and bytes(seal.previous_mac) != self.previous:
            return "does not follow the seal before it"
        return ""

    def _miss(self, first: int, last: int, what: str) -> None:
        which = f"seal {first}" if first == last else f"each of the seals {first} to {last}"
        self.report.add(Finding(Kind.SEAL_MISSING, f"{which} {what}", seal=first))


class _Events:
    """The events in the order of their ids, beside the seals that name them."""

    def __init__(self, report: Report, newest: int, flawed: set[int]) -> None:
        self.report = report
        self.newest = newest
        self.flawed = flawed
        self.expected: dict[UUID, _Tree] = {}
        self.later: set[UUID] = set()
        self.later_read = newest
        self.missing_keys: set[str] = set()

    def check(self) -> None:
        seals = _seals_by_start(self.newest)
        ahead = next(seals, None)
        for chunk in _chunks():
            while ahead is not None and ahead.first_event_id <= chunk[-1].id:
                self._expect(ahead)
                ahead = next(seals, None)
            self._check_chunk(chunk)
        while ahead is not None:
            self._expect(ahead)
            ahead = next(seals, None)
        self._miss(list(self.expected))

    def _expect(self, seal: AuditSeal) -> None:
        tree = _Tree(seal)
        for one in tree.ids:
            self.expected[one] = tree

    def _check_chunk(self, chunk: Sequence[AuditEvent]) -> None:
        strange: list[tuple[AuditEvent, bool]] = []
        for event in chunk:
            self.report.events += 1
            form, genuine = self._form(event)
            tree = self.expected.pop(event.id, None)
            if tree is None:
                strange.append((event, genuine))
                continue
            if not genuine:
                self._tell(Kind.CHANGED, event, "is not as it was written", tree)
            self._put(tree, event.id, form)
        if strange:
            self._judge(strange)
        end = chunk[-1].id
        self._miss([one for one in self.expected if one <= end])

    def _form(self, event: AuditEvent) -> tuple[bytes, bool]:
        """The canonical form, and whether the event is as it was written."""
        try:
            form = event_form(event)
        except (TypeError, ValueError, AttributeError):  # a value that we never write
            return b"", False
        try:
            return form, is_genuine(form, event.key_id, event.mac)
        except AuditKeyMissing as error:
            if event.key_id not in self.missing_keys:
                self.missing_keys.add(event.key_id)
                text = f"{describe(event)} and others cannot be checked: {error.message}"
                self.report.add(Finding(Kind.KEY_MISSING, text, event.id))
            return form, True

    def _put(self, tree: _Tree, event_id: UUID, form: bytes) -> None:
        tree.put(event_id, form)
        seal = tree.seal
        if tree.is_whole and not tree.fits and not tree.is_told and seal.number not in self.flawed:
            text = f"the events of seal {seal.number} are not those that were sealed"
            self.report.add(Finding(Kind.SEAL_CHANGED, text, seal=seal.number))

    def _judge(self, strange: Sequence[tuple[AuditEvent, bool]]) -> None:
        """Events that no seal up to the newest names: they wait, or are in one made since."""
        waiting = self._waiting([event.id for event, _ in strange])
        self._read_later_seals()
        for event, genuine in strange:
            if event.id in waiting or event.id in self.later:
                self.report.waiting += 1
                if not genuine:
                    self._tell(Kind.CHANGED, event, "is not as it was written")
            elif genuine:
                self._tell(Kind.UNCOVERED, event, "is in no seal, and does not wait for one")
            else:
                self._tell(Kind.INSERTED, event, "was not written by Lockstep")

    @staticmethod
    def _waiting(ids: Sequence[UUID]) -> set[UUID]:
        found: set[UUID] = set()
        for start in range(0, len(ids), 500):
            rows = AuditPending.objects.filter(event_id__in=ids[start : start + 500])
            found.update(rows.values_list("event_id", flat=True))
        return found

    def _read_later_seals(self) -> None:
        for seal in AuditSeal.objects.filter(number__gt=self.later_read).order_by("number"):
            self.later.update(unpacked_ids(seal.event_ids))
            self.later_read = seal.number

    def _miss(self, ids: Sequence[UUID]) -> None:
        for one in sorted(ids):
            tree = self.expected.pop(one)
            tree.is_told = True
            text = f"{describe_id(one)}, sealed in seal {tree.seal.number}, is gone"
            self.report.add(Finding(Kind.MISSING, text, one, tree.seal.number))

    def _tell(self, kind: Kind, event: AuditEvent, what: str, tree: _Tree | None = None) -> None:
        number = None
        if tree is not None:
            tree.is_told, number = True, tree.seal.number
        self.report.add(Finding(kind, f"{describe(event)} {what}", event.id, number))


class _Tree:
    """A seal whose events are coming in."""

    def __init__(self, seal: AuditSeal) -> None:
        self.seal = seal
        self.ids = unpacked_ids(seal.event_ids)
        self.leaves: dict[UUID, bytes] = {}
        self.is_told = False  # one of its events is named already

    def put(self, event_id: UUID, form: bytes) -> None:
        self.leaves[event_id] = leaf(form)

    @property
    def is_whole(self) -> bool:
        return len(self.leaves) == len(self.ids)

    @property
    def fits(self) -> bool:
        return merkle_root([self.leaves[one] for one in self.ids]) == bytes(self.seal.root)


def _chunks() -> Iterator[list[AuditEvent]]:
    rows = AuditEvent.objects.order_by("id")
    chunk = list(rows[:CHUNK])
    while chunk:
        yield chunk
        chunk = list(rows.filter(id__gt=chunk[-1].id)[:CHUNK])


def _seals_by_start(newest: int) -> Iterator[AuditSeal]:
    rows = AuditSeal.objects.filter(number__lte=newest).order_by("first_event_id", "number")
    chunk = list(rows[:SEAL_CHUNK])
    while chunk:
        yield from chunk
        first, number = chunk[-1].first_event_id, chunk[-1].number
        after = Q(first_event_id__gt=first) | Q(first_event_id=first, number__gt=number)
        chunk = list(rows.filter(after)[:SEAL_CHUNK])


def _check_waiting(report: Report) -> None:
    """Events that were deleted before a seal could fix them."""
    there = Exists(AuditEvent.objects.filter(pk=OuterRef("event_id")))
    for one in AuditPending.objects.filter(~there).order_by("event_id").iterator():
        text = f"{describe_id(one.event_id)}, which waits for a seal, is gone"
        report.add(Finding(Kind.MISSING, text, one.event_id))
