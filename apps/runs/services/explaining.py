"""Why a record did not sync: findings from the ledger, and from the record as it is now."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING
from uuid import UUID

import orjson
import pyarrow as pa
import pyarrow.compute as pc
from django.db.models import Q, QuerySet

from apps.connectors.errors import RecordError
from apps.connectors.types import NeutralType
from apps.core.clock import now
from apps.core.selectors import require
from apps.engine.codec import encode_images, encode_keys
from apps.engine.program import LEFT_KEY, RIGHT_KEY
from apps.engine.types_sql import key_text
from apps.ledger.models import Change, Conflict, Link, Rejection
from apps.ledger.selectors import (
    ChangeFilter,
    key_hash,
    links_named,
    record_changes,
    rule_masks,
    run_changes,
)
from apps.mappings.masking import CLEAR, Mask
from apps.rules.models import Rule
from apps.rules.schedule import due_times
from apps.rules.selectors import rules
from apps.runs.models import ACTIVE_STATUSES, RunStatus
from apps.runs.services.context import RunContext, load_context
from apps.runs.services.reading import Image, SideReader, live_images
from apps.runs.services.requesting import unsaved_run
from apps.runs.services.scope import KeyPair
from apps.runs.services.views import LeftViews

if TYPE_CHECKING:
    from apps.accounts.models import User


MOST_OPENED = 1_000
"""Ambiguous matches that are looked into for one record, the newest."""


class Reason(StrEnum):
    """What keeps a record, or lets it be as it is."""

    NEVER_SEEN = "never_seen"
    FILTERED_OUT = "filtered_out"
    REJECTED = "rejected"
    REFUSED = "refused"  # by the side it was to be written to
    CONFLICT = "conflict"
    WAITING = "waiting"
    MOVED = "moved"
    SKIPPED = "skipped"
    HELD = "held"
    DELETED = "deleted"
    RUNNING = "running"
    NOT_DUE = "not_due"
    PAUSED = "paused"
    IN_STEP = "in_step"
    DIFFERS = "differs"


@dataclass(frozen=True, slots=True)
class Finding:
    """One answer, the most telling first.

    reason: see `Reason`; sentence: for a person; the ids lead to where it can be looked at.
    """

    reason: Reason
    sentence: str
    run_id: UUID | None = None
    conflict_id: UUID | None = None
    rejection_id: UUID | None = None
    change_id: int | None = None


@dataclass(frozen=True, slots=True)
class RecordNow:
    """A record as both sides hold it this moment; images are canonical texts, None: not there.

    left: its left fields; left_view: what the right side would hold if the left had its way (None
    where it is left out or rejected); right: the mapped right fields; left_out: by the filter;
    problems: sentences of what keeps it out; is_equal: whether both sides hold the same, under the
    mapping.
    """

    left_key: str
    right_key: str
    left: Image | None
    left_view: Image | None
    right: Image | None
    left_out: bool = False
    problems: tuple[str, ...] = ()

    is_equal: bool = False

    def masked(self, mask: Mask) -> RecordNow:
        """The same as a face shows it."""
        images = ((self.left, "left"), (self.left_view, "right"), (self.right, "right"))
        return replace(
            self,
            left=mask.image(self.left, "left"),
            left_view=mask.image(self.left_view, "right"),
            right=mask.image(self.right, "right"),
            problems=tuple(mask.text(problem, "", *images) for problem in self.problems),
        )


def record_now(
    rule: Rule, key: str | KeyPair, *, actor: User | None, revealed: bool = False
) -> RecordNow:
    """Read one record from both sides and run the rule's program over it.

    key: a canonical key text or the plain value of a key of one field, of either side; or the
    canonical keys of both sides, empty where unknown; revealed: with its personal values, which a
    person has asked for with a reason. Raises PermissionDenied and the errors of the sources.
    """
    require(actor, rules, "view", rule)
    found = _record_now(load_context(unsaved_run(rule)), key)
    return found.masked(_mask(rule, revealed))


def _mask(rule: Rule, revealed: bool) -> Mask:
    return CLEAR if revealed else rule_masks([rule.pk])[rule.pk]


def _record_now(context: RunContext, key: str | KeyPair) -> RecordNow:
    rule_id = context.run.rule_id
    is_plain = isinstance(key, str)
    left_key, right_key = _both_keys(context, key) if is_plain else _completed(rule_id, *key)
    fields = {name: context.left.field(name).type for name in context.left_fields}
    left = _live(context.left_reader, fields, left_key)
    view, target, left_out, problems = _viewed(context, left_key) if left else _NO_VIEW
    right_key = right_key or target
    right = _live(context.right_reader, context.mapped_types, right_key)
    is_equal = view is not None and view == right
    return RecordNow(left_key, right_key, left, view, right, left_out, problems, is_equal)


def _live(reader: SideReader, types: dict[str, NeutralType], key: str) -> Image | None:
    try:
        return live_images(reader, types, [key]).get(key) if key else None
    except RecordError:  # no key of this side looks like that
        return None


_NO_VIEW: tuple[Image | None, str, bool, tuple[str, ...]] = (None, "", False, ())


def _viewed(context: RunContext, left_key: str) -> tuple[Image | None, str, bool, tuple[str, ...]]:
    """The left view of a record, the key that it would have, whether it is left out, problems."""
    views = LeftViews(context)
    try:
        for batch in context.left_by_key([left_key]):
            done = views.run(batch.records)
            problems = tuple(item.message for item in [*done.rejected, *done.stops])
            problems += tuple(item.message for item in batch.rejected)
            records = done.records.filter(pc.equal(done.records[LEFT_KEY], left_key))
            if not records.num_rows:
                return None, "", done.left_out.num_rows > 0, problems
            types = context.mapped_types
            image = orjson.loads(encode_images(records.select(list(types)), types)[0])
            return image, records[RIGHT_KEY][0].as_py() or "", False, problems
    finally:
        views.close()
    return _NO_VIEW


def _completed(rule_id: UUID, left_key: str, right_key: str) -> KeyPair:
    """Both keys, where a link knows the one that is missing."""
    if not (left_key and right_key):
        for link in links_named(rule_id, left_key=left_key, right_key=right_key):
            return link.left_key, link.right_key
    return left_key, right_key


def _both_keys(context: RunContext, key: str) -> KeyPair:
    """Left and right key of a record that somebody names by either; empty where unknown."""
    for text in _key_texts(key):
        for link in links_named(context.run.rule_id, left_key=text, right_key=text):
            return link.left_key, link.right_key
    for text in _key_texts(key):
        for reader, place in ((context.left_reader, 0), (context.right_reader, 1)):
            found = _keys_there(reader, text)
            if found:
                return (found, "") if place == 0 else ("", found)
    return _key_texts(key)[-1], ""


def _key_texts(key: str) -> list[str]:
    """The canonical texts that a key may mean."""
    text = key.strip()
    is_canonical = text.startswith("[") and text.endswith("]")
    return [text] if is_canonical else [key_text([text])]


def _keys_there(reader: SideReader, text: str) -> str:
    """The key as the side itself writes it; empty where it has no such record."""
    try:
        for batch in reader.by_key(reader.key, [text]):
            table = pa.Table.from_batches([batch.records])
            for found in encode_keys(table, reader.key_types):
                return found
    except RecordError:  # no key of this side looks like that
        return ""
    return ""


def explain_record(
    rule: Rule, key: str | KeyPair, *, actor: User | None, revealed: bool = False
) -> list[Finding]:
    """Why this record is, or is not, in step; the most telling finding first, never none.

    key, revealed: as `record_now` takes them. Raises PermissionDenied and the errors of the
    sources.
    """
    require(actor, rules, "view", rule)
    return _Explanation(rule, key, _mask(rule, revealed)).findings()


class _Explanation:
    """Asks one place after the other."""

    def __init__(self, rule: Rule, key: str | KeyPair, mask: Mask) -> None:
        self.rule = rule
        self.mask = mask
        self.now = _record_now(load_context(unsaved_run(rule)), key).masked(mask)

    def findings(self) -> list[Finding]:
        steps = (
            self._conflicts,
            self._waiting,
            self._held,
            self._deleted,
            self._as_it_is,
            self._rejections,
            self._last_change,
            self._yet_to_come,
        )
        found = [finding for step in steps for finding in step()]
        return found or [self._in_step()]

    def _hashes(self) -> Q:
        wanted = Q(pk__in=())
        if self.now.left_key:
            wanted |= Q(left_hash=key_hash(self.now.left_key))
        if self.now.right_key:
            wanted |= Q(right_hash=key_hash(self.now.right_key))
        return wanted & Q(rule_id=self.rule.pk)

    def _conflicts(self) -> Iterator[Finding]:
        waiting = Conflict.objects.filter(
            rule_id=self.rule.pk, state__in=(Conflict.State.OPEN, Conflict.State.DECIDED)
        )
        for conflict in [*waiting.filter(self._hashes()), *self._candidacies(waiting)]:
            fields = f" ({', '.join(conflict.field_names)})" if conflict.field_names else ""
            sentence = f"It is parked in a conflict: {conflict.get_kind_display().lower()}{fields}."
            if conflict.state == Conflict.State.DECIDED:
                sentence = "Its conflict is decided; the next run writes it."
            yield Finding(
                Reason.CONFLICT, sentence, run_id=conflict.run_id, conflict_id=conflict.pk
            )

    def _candidacies(self, waiting: QuerySet[Conflict]) -> Iterator[Conflict]:
        """Where it is one of those that a record may be: their keys are sealed."""
        matches = waiting.filter(kind=Conflict.Kind.MATCH).order_by("-pk")
        for conflict in matches[:MOST_OPENED] if self.now.right_key and not self._links() else ():
            if self.now.right_key in conflict.candidates:
                yield conflict

    def _waiting(self) -> Iterator[Finding]:
        run = self.rule.runs.filter(status=RunStatus.WAITING).first()
        if run is None:
            return
        keys = [key for key in (self.now.left_key, self.now.right_key) if key]
        wanted = ChangeFilter(left_keys=tuple(keys), right_keys=tuple(keys))
        for change in run_changes(run.pk, wanted, limit=1) if keys else ():
            yield Finding(
                Reason.WAITING,
                f"Its change waits for approval: {run.waits_for}.",
                run_id=run.pk,
                change_id=change.pk,
            )

    def _held(self) -> Iterator[Finding]:
        for link in self._links():
            if link.state == Link.State.HELD:
                yield Finding(
                    Reason.HELD,
                    "It was put back by an undo, and is left alone until somebody edits it again.",
                    run_id=link.run_id,
                )

    def _deleted(self) -> Iterator[Finding]:
        """One side has deleted it, and by the rule's policy the other one keeps it."""
        record, rule = self.now, self.rule
        for link in self._links():
            if link.state == Link.State.MARKED:
                text = "It is marked as deleted, and stays so until it is back on the other side."
                yield Finding(Reason.DELETED, text, run_id=link.run_id)
            elif link.state == Link.State.LIVE and self._is_kept():
                gone = "left" if record.left is None else "right"
                text = f"The {gone} side has deleted it; the rule '{rule.name}' ignores that."
                yield Finding(Reason.DELETED, text, run_id=link.run_id)

    def _is_kept(self) -> bool:
        record, rule = self.now, self.rule
        if record.left is None:
            return record.right is not None and rule.on_delete == Rule.OnDelete.IGNORE
        ignores = rule.on_right_delete == Rule.OnDelete.IGNORE
        return record.right is None and rule.direction == Rule.Direction.TWO_WAY and ignores

    def _links(self) -> list[Link]:
        keys = {"left_key": self.now.left_key, "right_key": self.now.right_key}
        return links_named(self.rule.pk, **keys)

    def _as_it_is(self) -> Iterator[Finding]:
        record = self.now
        if record.left is None and record.right is None:
            nowhere = "Neither side has a" if record.left_key else "The right side has no"
            yield Finding(Reason.NEVER_SEEN, f"{nowhere} record with this key.")
        elif record.left is None and self.rule.direction != Rule.Direction.TWO_WAY:
            yield Finding(Reason.NEVER_SEEN, "The left side has no record with this key.")
        if record.left_out:
            yield Finding(
                Reason.FILTERED_OUT, f"The rule's filter leaves it out: {self.rule.filter}"
            )
        for problem in record.problems:
            yield Finding(Reason.REJECTED, f"As it is now it would be rejected: {problem}.")

    def _rejections(self) -> Iterator[Finding]:
        wanted = Q(pk__in=())
        for side in ("left_key", "right_key"):
            key = getattr(self.now, side)
            wanted |= Q(**{side: key}) if key else Q(pk__in=())
        open_ones = Rejection.objects.filter(
            wanted, rule_id=self.rule.pk, state=Rejection.State.OPEN
        )
        for rejection in open_ones:
            rejection.mask = self.mask
            check = f" (check '{rejection.check_name}')" if rejection.check_name else ""
            by_side = rejection.stage == Rejection.Stage.WRITE
            yield Finding(
                Reason.REFUSED if by_side else Reason.REJECTED,
                f"It was rejected{check}: {rejection.message}",
                run_id=rejection.run_id,
                rejection_id=rejection.pk,
            )

    def _last_change(self) -> Iterator[Finding]:
        keys = {"left_key": self.now.left_key, "right_key": self.now.right_key}
        for change in record_changes([self.rule.pk], **keys, limit=1):
            known = _OUTCOMES.get(change.outcome)
            if known is not None and not self.now.is_equal:
                yield Finding(*known, run_id=change.run_id, change_id=change.pk)

    def _yet_to_come(self) -> Iterator[Finding]:
        """Both sides differ, and nothing stands in the way but time."""
        record = self.now
        if record.left is None and (record.right is None or self._is_foreign()):
            return
        if self._is_kept() or any(link.state == Link.State.MARKED for link in self._links()):
            return
        if record.is_equal or record.left_out or record.problems:
            return
        active = self.rule.runs.filter(status__in=ACTIVE_STATUSES).first()
        if active is not None:
            text = f"A run goes on: {active.get_status_display().lower()}."
            yield Finding(Reason.RUNNING, text, run_id=active.pk)
        elif self.rule.paused:
            yield Finding(Reason.PAUSED, "The rule is paused.")
        elif self.rule.enabled and self.rule.schedule_kind != Rule.ScheduleKind.MANUAL:
            due = next(iter(due_times(self.rule, now())), None)
            when = f"{due:%Y-%m-%d %H:%M} UTC" if due else "never again"
            yield Finding(Reason.NOT_DUE, f"Both sides differ; the next run is due {when}.")
        else:
            text = "Both sides differ; the rule runs only when somebody starts it."
            yield Finding(Reason.DIFFERS, text)

    def _is_foreign(self) -> bool:
        """A right record that a rule of one direction does not own: it stays as it is."""
        return self.rule.direction != Rule.Direction.TWO_WAY and not self._links()

    def _in_step(self) -> Finding:
        for link in self._links():
            return Finding(Reason.IN_STEP, "Both sides are in step.", run_id=link.run_id)
        return Finding(Reason.IN_STEP, "Both sides are equal, without a link yet.")


_OUTCOMES = {
    Change.Outcome.STALE.value: (
        Reason.MOVED,
        "It was edited while a run was about to write it; the next run takes it up.",
    ),
    Change.Outcome.SKIPPED.value: (Reason.SKIPPED, "Its change was not among those approved."),
    Change.Outcome.REJECTED.value: (Reason.REFUSED, "The side that it goes to refused it."),
    Change.Outcome.IN_DOUBT.value: (
        Reason.CONFLICT,
        "Nobody knows whether it was written: a person has to look.",
    ),
}
