"""Conflicts: records that wait for a person.

A run records what it met and withdraws what it no longer meets. A decision holds for exactly the
values that the person saw: the next run honours it if they are still the same, else it opens the
conflict again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any
from uuid import UUID

import orjson
import pyarrow as pa
from django.db import transaction
from django.db.models import QuerySet

from apps.audit.actions import Act
from apps.audit.services import Subject, record
from apps.connectors.errors import Action, LockstepError
from apps.core.clock import now
from apps.core.protected import seal, seal_json
from apps.core.selectors import require
from apps.ledger.models import Conflict, EarlierValues, Image, seal_base
from apps.ledger.selectors.inbox import OPEN
from apps.ledger.selectors.keys import key_hash, key_hash_or_none
from apps.ledger.selectors.link_tables import links_named
from apps.ledger.selectors.scopes import conflicts
from apps.ledger.services.work import WorkIdentity

if TYPE_CHECKING:
    from apps.accounts.models import User

CHUNK = 500
TAKES = frozenset({"left", "right", "base", "value"})
RECORD_CHOICES = ("left", "right", "delete", "keep", "insert")

_REQUIRED = ("kind", "left_key", "right_key", "fields", "left", "right")
_OPTIONAL = (
    "base_left",
    "base_right",
    "candidates",
    "left_changed_at",
    "right_changed_at",
    "seen",
)
_REFRESHED = (
    "run_id",
    "partition_id",
    "state",
    "fields",
    "seen",
    "sealed_left",
    "sealed_right",
    "sealed_base",
    "sealed_candidates",
    "left_changed_at",
    "right_changed_at",
    "sealed_decision",
    "decided_seen",
    "decided_by_id",
    "decided_at",
    "note",
    "resolved_at",
    "resolved_run_id",
    "updated_at",
)


class ConflictMoved(LockstepError):
    """A value has changed since the person looked at it."""

    code = "conflict.moved"
    action = Action.ASK
    default_remedy = "Look at the conflict as it is now, and decide again."


class ConflictClosed(LockstepError):
    """There is nothing to decide any more."""

    code = "conflict.closed"
    action = Action.ASK
    default_remedy = "Nothing to do: the conflict was resolved, or is no longer one."


class DecisionUnfit(LockstepError):
    """A decision that does not fit the conflict."""

    code = "conflict.decision_unfit"
    action = Action.ASK
    default_remedy = "Choose a side, or give a value for each of the open fields."


@dataclass(frozen=True, slots=True)
class Choice:
    """What one field becomes. take: `left`, `right`, `base`, or `value`, which both sides get."""

    take: str
    value: str | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """What a person decided, as `Reconciler.add_decisions` reads it.

    record: `left` or `right`: that side's values win, for every open field that `fields` does not
            name; `delete`, `keep`, `insert`: what becomes of the record as a whole;
    fields: right field -> choice;
    match:  key of the record on the other side that this one is linked with.
    """

    record: str = ""
    fields: Mapping[str, Choice] = field(default_factory=dict)
    match: str = ""

    def as_json(self) -> dict[str, Any]:
        """The form in which it is kept, sealed, and handed to the reconciler."""
        fields = {
            name: {"take": choice.take, "value": choice.value}
            if choice.take == "value"
            else {"take": choice.take}
            for name, choice in self.fields.items()
        }
        parts = {"record": self.record, "fields": fields, "match": self.match}
        return {name: value for name, value in parts.items() if value}


def conflict_identity(kind: str, left_key: str | None, right_key: str | None) -> bytes:
    """What makes two meetings the same conflict: kind and both keys."""
    return key_hash("\x1f".join((kind, left_key or "", right_key or "")))


def seen_hash(left: str | None, right: str | None, candidates: Sequence[str] | None = None) -> str:
    """What stands for the values of a conflict where the reconciler does not say."""
    parts = [left or "", right or "", *sorted(candidates or ())]
    return hashlib.md5("\n".join(parts).encode(), usedforsecurity=False).hexdigest()


Tried = Collection[tuple[bytes, str]]
"""Identity and `seen` of conflicts whose decisions a run has followed."""


def tried_decisions(decisions: pa.Table) -> Tried:
    """What `record_conflicts` takes as `tried`, of the decisions (`decisions_for`) of a run."""
    return {
        (conflict_identity(row["kind"], row["left_key"], row["right_key"]), row["seen"])
        for row in decisions.to_pylist()
    }


def record_conflicts(work: WorkIdentity, table: pa.Table, *, tried: Tried = ()) -> int:
    """Keep the conflicts that a run met; returns how many are open now.

    table: kind, left_key, right_key (NULL: none), fields (list of open right fields), left, right
    (whole images in right space as JSON; NULL: no record); perhaps base_left, base_right, seen
    (hash of both sides' values), candidates (keys: a list, or one as JSON), left_changed_at and
    right_changed_at. `Reconciler.conflicts` yields all of them.
    One that is known is refreshed; a decided one whose values changed is open again. What it held
    before is kept beside it.
    tried: decisions that the run has followed. One that is met all the same did not help, so its
    conflict is open again.
    """
    opened = 0
    rows = list(_rows(table))
    for start in range(0, len(rows), CHUNK):
        chunk = {
            conflict_identity(row["kind"], row["left_key"], row["right_key"]): row
            for row in rows[start : start + CHUNK]
        }
        opened += _record_chunk(work, chunk, tried)
    return opened


@transaction.atomic
def _record_chunk(work: WorkIdentity, chunk: Mapping[bytes, dict[str, Any]], tried: Tried) -> int:
    found = Conflict.objects.filter(rule_id=work.rule_id, identity_hash__in=list(chunk))
    known = {bytes(conflict.identity_hash): conflict for conflict in found}
    moved = [conflict for key, conflict in known.items() if conflict.seen != _seen(chunk[key])]
    EarlierValues.objects.bulk_create([_earlier(conflict) for conflict in moved])
    for key, conflict in known.items():
        if (key, conflict.decided_seen) in tried:
            _reopen(conflict)
    made = [_met(work, known.get(key), key, row) for key, row in chunk.items()]
    Conflict.objects.bulk_create(
        made,
        update_conflicts=True,
        unique_fields=["rule_id", "identity_hash"],
        update_fields=_REFRESHED,
    )
    return sum(conflict.state == Conflict.State.OPEN for conflict in made)


def _rows(table: pa.Table) -> Iterator[dict[str, Any]]:
    present = [name for name in (*_REQUIRED, *_OPTIONAL) if name in table.column_names]
    missing = dict.fromkeys(set(_OPTIONAL) - set(present))
    for batch in table.select(present).to_batches(CHUNK):
        for row in batch.to_pylist():
            candidates = row.get("candidates")
            row["candidates"] = (
                orjson.loads(candidates) if isinstance(candidates, str) else candidates or []
            )
            yield {**missing, **row}


def _seen(row: dict[str, Any]) -> str:
    return row["seen"] or seen_hash(row["left"], row["right"], row["candidates"])


def _earlier(conflict: Conflict) -> EarlierValues:
    return EarlierValues(
        conflict=conflict,
        run_id=conflict.run_id,
        met_at=conflict.updated_at,
        seen=conflict.seen,
        sealed_left=conflict.sealed_left,
        sealed_right=conflict.sealed_right,
    )


def _met(work: WorkIdentity, known: Conflict | None, key: bytes, row: dict[str, Any]) -> Conflict:
    """The conflict as this run met it; a new one, or the known one refreshed."""
    conflict = known or Conflict(
        rule_id=work.rule_id,
        first_run_id=work.run_id,
        kind=row["kind"],
        left_key=row["left_key"] or "",
        right_key=row["right_key"] or "",
        left_hash=key_hash_or_none(row["left_key"]),
        right_hash=key_hash_or_none(row["right_key"]),
        identity_hash=key,
    )
    seen = _seen(row)
    if conflict.state != Conflict.State.DECIDED or conflict.decided_seen != seen:
        _reopen(conflict)
    conflict.run_id, conflict.partition_id = work.run_id, work.partition_id
    conflict.seen = seen
    conflict.fields = orjson.dumps(row["fields"] or []).decode()
    conflict.left_changed_at = row["left_changed_at"]
    conflict.right_changed_at = row["right_changed_at"]
    _seal_values(conflict, row)
    conflict.updated_at = now()
    return conflict


def _reopen(conflict: Conflict) -> None:
    conflict.state = Conflict.State.OPEN
    conflict.sealed_decision = None
    conflict.decided_seen, conflict.note = "", ""
    conflict.decided_by_id = conflict.decided_at = None
    conflict.resolved_at = conflict.resolved_run_id = None


def _seal_values(conflict: Conflict, row: dict[str, Any]) -> None:
    for part in ("left", "right"):
        text = row[part]
        identity = conflict.side_identity(part, conflict.seen)
        sealed = seal(text.encode(), identity) if text else None
        setattr(conflict, f"sealed_{part}", sealed)
    base = (row["base_left"], row["base_right"])
    conflict.sealed_base = seal_base(*base, conflict.identity("base")) if any(base) else None
    candidates = row["candidates"]
    conflict.sealed_candidates = (
        seal_json(candidates, conflict.identity("candidates")) if candidates else None
    )


def withdraw_conflicts(
    rule_id: UUID, run_id: UUID, *, left_keys: Sequence[str] = (), right_keys: Sequence[str] = ()
) -> int:
    """Withdraw the conflicts of these records that this run did not meet again."""
    rows = _not_met(rule_id, run_id)
    if not rows.exists():
        return 0
    count = 0
    for side, keys in (("left", left_keys), ("right", right_keys)):
        for start in range(0, len(keys), CHUNK):
            hashes = [key_hash(key) for key in keys[start : start + CHUNK]]
            count += _withdraw(rows.filter(**{f"{side}_hash__in": hashes}))
    return count


def withdraw_all_conflicts(rule_id: UUID, run_id: UUID) -> int:
    """After a run that compared every record: withdraw all that it did not meet again."""
    return _withdraw(_not_met(rule_id, run_id))


def _not_met(rule_id: UUID, run_id: UUID) -> QuerySet[Conflict]:
    return Conflict.objects.filter(rule_id=rule_id, state__in=OPEN).exclude(run_id=run_id)


def _withdraw(rows: QuerySet[Conflict]) -> int:
    moment = now()
    return rows.update(state=Conflict.State.WITHDRAWN, resolved_at=moment, updated_at=moment)


def resolve_conflicts(
    rule_id: UUID, run_id: UUID, *, left_keys: Sequence[str] = (), right_keys: Sequence[str] = ()
) -> int:
    """Close the decided conflicts of these records: what was decided has been written."""
    moment = now()
    done = {
        "state": Conflict.State.RESOLVED,
        "resolved_at": moment,
        "resolved_run_id": run_id,
        "updated_at": moment,
    }
    return sum(rows.update(**done) for rows in _decided(rule_id, left_keys, right_keys))


def keep_decided(
    rule_id: UUID, run_id: UUID, *, left_keys: Sequence[str] = (), right_keys: Sequence[str] = ()
) -> None:
    """What was decided of these records could not be written: it stays decided, for the next run.

    The run has met their conflicts, so that it does not withdraw them.
    """
    for rows in _decided(rule_id, left_keys, right_keys):
        rows.update(run_id=run_id, updated_at=now())


def _decided(
    rule_id: UUID, left_keys: Sequence[str], right_keys: Sequence[str]
) -> Iterator[QuerySet[Conflict]]:
    """The decided conflicts of these records, some at a time."""
    rows = Conflict.objects.filter(rule_id=rule_id, state=Conflict.State.DECIDED)
    if not rows.exists():
        return
    for side, keys in (("left", left_keys), ("right", right_keys)):
        for start in range(0, len(keys), CHUNK):
            hashes = [key_hash(key) for key in keys[start : start + CHUNK]]
            yield rows.filter(**{f"{side}_hash__in": hashes})


def resolve_matches(rule_id: UUID, run_id: UUID) -> int:
    """Close the decided conflicts of the kind `match` whose record is linked by now.

    Nothing else tells: two records that are found to be one may need no write at all.
    """
    decided = Conflict.objects.filter(
        rule_id=rule_id, kind=Conflict.Kind.MATCH, state=Conflict.State.DECIDED
    )
    linked = [conflict.pk for conflict in decided if _is_linked(conflict)]
    moment = now()
    return decided.filter(pk__in=linked).update(
        state=Conflict.State.RESOLVED,
        resolved_at=moment,
        resolved_run_id=run_id,
        updated_at=moment,
    )


def _is_linked(conflict: Conflict) -> bool:
    keys = {"left_key": conflict.left_key, "right_key": conflict.right_key}
    return bool(links_named(conflict.rule_id, **keys))


def decide(
    conflict: Conflict, decision: Decision, *, seen: str, actor: User | None, note: str = ""
) -> Conflict:
    """Keep what a person decided; the rule's next run writes it.

    seen: the conflict's `seen` when the person looked. Raises ConflictMoved, ConflictClosed,
    DecisionUnfit, PermissionDenied.
    """
    require(actor, conflicts, "decide", conflict)
    with transaction.atomic():
        now_there = Conflict.objects.select_for_update().get(pk=conflict.pk)
        if now_there.state not in OPEN:
            raise ConflictClosed("this is no longer a conflict", where=str(now_there))
        if now_there.seen != seen:
            raise ConflictMoved("a value has changed since you looked", where=str(now_there))
        decision = _by_field(now_there, decision)
        _require_fit(now_there, decision)
        now_there.sealed_decision = seal_json(decision.as_json(), now_there.identity("decision"))
        now_there.state = Conflict.State.DECIDED
        now_there.decided_seen = seen
        now_there.decided_by_id = actor.pk if actor else None
        now_there.decided_at = now()
        now_there.note = note[:255]
        now_there.save()
        _record_decision(now_there, decision, actor)
    return now_there


def _record_decision(conflict: Conflict, decision: Decision, actor: User | None) -> None:
    """Which side was taken for which field; no value, and no key of a record."""
    record(
        Act.CONFLICT_DECIDED,
        Subject.of(conflict, conflict.get_kind_display()),
        actor=actor,
        reason=conflict.note,
        details={
            "rule": str(conflict.rule_id),
            "record": decision.record,
            "matched": bool(decision.match),
            "fields": {name: choice.take for name, choice in decision.fields.items()},
        },
    )


def decide_many(
    seen: Mapping[UUID, str], decision: Decision, *, actor: User | None, note: str = ""
) -> dict[UUID, LockstepError]:
    """Decide many alike; returns those that could not be, with the reason.

    seen: each conflict's id and its `seen` when the person looked.
    """
    require(actor, conflicts, "decide")
    failed: dict[UUID, LockstepError] = {}
    ids = list(seen)
    for start in range(0, len(ids), CHUNK):
        for conflict in Conflict.objects.filter(pk__in=ids[start : start + CHUNK]):
            try:
                decide(conflict, decision, seen=seen[conflict.pk], actor=actor, note=note)
            except LockstepError as error:
                failed[conflict.pk] = error
    return failed


def _by_field(conflict: Conflict, decision: Decision) -> Decision:
    """A side for the whole record is that side for each field whose value is taken."""
    if conflict.kind != Conflict.Kind.UNIQUE or decision.record not in ("left", "right"):
        return decision
    sides = dict.fromkeys(conflict.field_names, Choice(decision.record))
    return replace(decision, record="", fields={**sides, **decision.fields})


def _require_fit(conflict: Conflict, decision: Decision) -> None:
    if not conflict.can_be_decided:
        raise DecisionUnfit(
            "the record is new, and another one has its value",
            where=str(conflict),
            remedy="Change the value in either record: the next run sees that it is free.",
        )
    takes = {choice.take for choice in decision.fields.values()}
    if takes - TAKES or decision.record not in ("", *RECORD_CHOICES):
        raise DecisionUnfit("this is none of the choices there are", where=str(conflict))
    named, open_fields = set(decision.fields), set(conflict.field_names)
    unknown = named - open_fields - _known_fields(conflict.left, conflict.right)
    if unknown:
        raise DecisionUnfit(f"there is no field '{min(unknown)}'", where=str(conflict))
    if decision.match and decision.match not in conflict.candidates:
        raise DecisionUnfit("the chosen record is none of the candidates", where=str(conflict))
    if not (decision.record or decision.match or (named and open_fields <= named)):
        raise DecisionUnfit("not every open field is decided", where=str(conflict))


def _known_fields(*images: Image | None) -> set[str]:
    return {name for image in images if image for name in image}
