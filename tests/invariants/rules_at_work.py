"""A rule between two platforms: reading, planning and writing, without a run around it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import orjson
import pyarrow as pa

from apps.connectors.base import Fence, WriteProblem, WriteStatus
from apps.engine.codec import encode_images, image_hash
from apps.engine.execution import Runner
from apps.engine.program import LEFT_KEY
from apps.engine.reconcile import BASE, DECISIONS, Reconciler
from apps.engine.spec import FieldPolicy, MappingSpec, RuleSpec
from apps.ledger.selectors import PlannedChange
from apps.ledger.services import Stored
from apps.runs.services.receipts import Fate, doubt, fate_of
from tests.invariants.mini_ledger import NO_RECORD, Link
from tests.invariants.platforms import FIELD_TYPES, Outcome, Platform, typed
from tests.invariants.setups import Record, programs

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
Rows = list[dict[str, Any]]
COUNTED_ALIKE = WriteProblem(WriteStatus.STALE, "record.stale", "counted to the same value")


@dataclass(frozen=True)
class Planned:
    """What a plan handed out, as rows."""

    changes: Rows
    conflicts: Rows
    refreshes: Rows
    gone: Rows


@dataclass
class Written:
    """What became of changes, by sequence.

    already: nothing had to be written; doubts: of what moved while it may have got through, the
    patch to the base of its link.
    """

    problems: dict[int, WriteProblem] = field(default_factory=dict)
    stored: dict[int, Stored] = field(default_factory=dict)
    already: set[int] = field(default_factory=set)
    doubts: dict[int, str] = field(default_factory=dict)


Receipts = Mapping[int, Stored]
Note = Callable[[Receipts], None]


class RuleAtWork:
    """A context manager; keeps the programs of the rule ready."""

    def __init__(
        self,
        mapping: MappingSpec,
        rule: RuleSpec,
        left: Platform,
        right: Platform,
        numbers: Iterator[int],
    ) -> None:
        self.mapping, self.rule = mapping, rule
        self.left, self.right = left, right
        self.numbers = numbers
        self.programs = programs(mapping, rule)
        self.mapped = {spec.right: FIELD_TYPES[spec.right] for spec in mapping.fields}
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        compiled = self.programs
        self.forward = self._stack.enter_context(Runner(compiled.forward))
        self.backward = self._stack.enter_context(Runner(compiled.backward))
        self.evaluate = (
            self._stack.enter_context(Runner(compiled.evaluate)) if compiled.evaluate else None
        )
        self._spill = Path(self._stack.enter_context(tempfile.TemporaryDirectory()))
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stack.close()

    def platform(self, side: str) -> Platform:
        return self.left if side == "left" else self.right

    def views(self, lefts: Sequence[Record]) -> dict[str, Record]:
        """The left view of each left record that passes, by left key."""
        if not lefts:
            return {}
        table = typed(lefts).select(list(self.programs.forward.left_fields))
        done = self.forward.run(table.combine_chunks().to_batches()[0]).records
        images = encode_images(done.select(list(self.mapped)), self.mapped)
        keys = done.column(LEFT_KEY).to_pylist()
        return {key: orjson.loads(image) for key, image in zip(keys, images, strict=True)}

    def plan(
        self, left: pa.Table, right: pa.Table, links: Sequence[Link], decisions: Rows
    ) -> Planned:
        """Plan over these records, as a run does that compares everything."""
        with Reconciler(
            self.mapping,
            self.rule,
            complete=True,
            forward=self.forward.run,
            backward=self.backward.run,
            evaluate=self.evaluate.run if self.evaluate else None,
            memory_limit_mb=256,
            spill_directory=self._spill,
            now=NOW,
            threads=1,
        ) as reconciler:
            names = list(self.programs.forward.left_fields)
            for batch in left.select(names).combine_chunks().to_batches():
                outcome = self.forward.run(batch)
                reconciler.add_left(outcome.records)
                reconciler.add_left_out(outcome.left_out)
            for batch in right.select(list(reconciler.right_fields)).to_batches():
                reconciler.add_right(batch)
            reconciler.add_decisions(pa.Table.from_pylist(decisions, schema=DECISIONS))
            _add_links(reconciler, links)
            reconciler.plan()
            return Planned(
                _rows(reconciler.changes()),
                _rows(reconciler.conflicts()),
                _rows(reconciler.refreshes()),
                _rows(reconciler.gone()),
            )

    def write(
        self, changes: Sequence[PlannedChange], receipts: Receipts, *, fence: Fence, note: Note
    ) -> Written:
        """Write changes to one side, and tell what its links have to remember of them.

        receipts: what a worker that is lost has noted of some of them; note: is given those of
        this batch before it is committed.
        """
        written = Written()
        rest = self._not_there(changes, receipts, written)
        side = changes[0].side
        names = self.programs.forward.left_fields if side == "left" else tuple(self.mapped)

        def told(part: Sequence[PlannedChange], outcome: Outcome) -> None:
            self._take(part, outcome, receipts, written)
            made = [c.sequence for c in part if c.sequence not in written.already]
            made = [sequence for sequence in made if sequence not in written.problems]
            note({sequence: written.stored.get(sequence, Stored()) for sequence in made})

        if rest:
            in_doubt = any(change.sequence in receipts for change in rest)
            self.platform(side).write(rest, names, in_doubt=in_doubt, fence=fence, note=told)
        written.doubts = {n: text for n, text in written.doubts.items() if n in written.problems}
        return written

    def _not_there(
        self, changes: Sequence[PlannedChange], receipts: Receipts, written: Written
    ) -> list[PlannedChange]:
        """Those of the changes that no worker before is known to have written."""
        rest, live = [], self.platform(changes[0].side).records()
        for change in changes:
            fate = None
            if change.sequence in receipts and change.operation != "delete":
                stored = receipts[change.sequence]
                fate = fate_of(change, stored, live.get(change.own_key), ("id",))
            if fate is Fate.WRITTEN:
                written.already.add(change.sequence)
                written.stored[change.sequence] = receipts[change.sequence]
                continue
            rest.append(change)
            if fate is Fate.UNCLEAR:
                written.doubts[change.sequence] = doubt(change, self.rule)
        return rest

    def _take(
        self,
        changes: Sequence[PlannedChange],
        outcome: Outcome,
        receipts: Receipts,
        written: Written,
    ) -> None:
        written.problems |= outcome.problems
        written.already |= outcome.already
        is_left = changes[0].side == "left"
        images = {c: outcome.stored[c.sequence] for c in changes if c.sequence in outcome.stored}
        views = self.views(list(images.values())) if is_left else {}
        for change in changes:
            found = change.sequence in outcome.already and change.sequence not in receipts
            if found and self._counted().intersection(change.fields):
                written.problems[change.sequence] = COUNTED_ALIKE
            image = images.get(change)
            if image is not None and change.sequence not in written.problems:
                view = views.get(change.key_after) if is_left else image
                written.stored[change.sequence] = _as_stored(change, image, view)

    def _counted(self) -> set[str]:
        two_way = self.rule.two_way
        policies = two_way.fields if two_way else ()
        return {item.field for item in policies if item.policy is FieldPolicy.COUNTER}


def _as_stored(change: PlannedChange, image: Record, view: Record | None) -> Stored:
    """A change with what is stored in place of what was sent.

    view: the record in right space; only the fields of the planned patch count, and of these the
    ones whose base is to be what is written.
    """
    written = {**orjson.loads(change.after), **{n: image[n] for n in change.fields if n in image}}
    after = orjson.dumps(written).decode()
    is_left = change.side == "left"
    planned = change.base_left if is_left else change.base_right
    if view is None or not planned or planned == NO_RECORD:
        return Stored(after=after)
    fields = orjson.loads(planned)
    sent = {} if is_left else orjson.loads(change.after)
    told = {n: v for n, v in view.items() if n in fields and sent.get(n, fields[n]) == fields[n]}
    patch = orjson.dumps({**fields, **told}).decode()
    return Stored(after=after, **{"base_left" if is_left else "base_right": patch})


def _add_links(reconciler: Reconciler, links: Sequence[Link]) -> None:
    rows = [
        {
            "left_key": link.left_key,
            "right_key": link.right_key,
            "state": link.state,
            "left_image": "" if link.left is None else image_hash(link.left),
            "right_image": "" if link.right is None else image_hash(link.right),
        }
        for link in links
    ]
    names = ("left_key", "right_key", "left_image", "right_image", "state")
    reconciler.add_links(pa.Table.from_pylist(rows, pa.schema([(n, pa.string()) for n in names])))
    by_keys = {link.keys: link for link in links}
    for needed in reconciler.bases_needed():
        found = [by_keys[row["left_key"], row["right_key"]] for row in needed.to_pylist()]
        bases = [
            {
                "left_key": link.left_key,
                "right_key": link.right_key,
                "left": None if link.left is None else orjson.dumps(link.left).decode(),
                "right": None if link.right is None else orjson.dumps(link.right).decode(),
                "state": link.state,
            }
            for link in found
        ]
        reconciler.add_bases(pa.Table.from_pylist(bases, schema=BASE))


def _rows(tables: Iterator[pa.Table]) -> Rows:
    return [row for table in tables for row in table.to_pylist()]
