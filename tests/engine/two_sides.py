"""Two small sides that a two-way plan is made for and applied to, as a run would, in memory.

A `World` holds the records of both sides by key, the links with their bases, and keeps all that a
plan hands out. Sides may be lossy: what they store is then not what was written.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from apps.engine.codec import decode_images, encode_images, image_hash
from apps.engine.execution import Runner
from apps.engine.program import RecordRejection
from apps.engine.reconcile import (
    BASE,
    DECISIONS,
    ReconcileSummary,
    TwoWayPrograms,
    compile_two_way,
    reconcile,
)
from apps.engine.spec import DatasetSpec, MappingSpec, RuleSpec
from apps.engine.types_sql import key_text

NOW = datetime(2026, 1, 1, tzinfo=UTC)
Record = dict[str, str | None]
"""Canonical texts by field."""


def no_loss(record: Record) -> Record:
    return record


@dataclass
class Plan:
    """What a plan handed out, as rows."""

    summary: ReconcileSummary
    changes: list[dict[str, Any]]
    conflicts: list[dict[str, Any]]
    refreshes: list[dict[str, Any]]
    gone: list[dict[str, Any]]
    rejections: list[RecordRejection]
    stops: list[RecordRejection]

    def brief(self) -> list[tuple[str, str, str]]:
        """(side, operation, cause) of each change, sorted."""
        return sorted((c["side"], c["operation"], c["cause"]) for c in self.changes)

    def only(self, side: str) -> dict[str, Any]:
        """The one change of a side, its images parsed."""
        (change,) = [change for change in self.changes if change["side"] == side]
        return {
            name: json.loads(value) if value and name in _IMAGES else value
            for name, value in change.items()
        }


_TABLES = ("changes", "conflicts", "refreshes", "gone")
_IMAGES = ("before", "after", "base_left", "base_right")


@dataclass
class Link:
    left: Record
    right: Record
    state: str = "live"


@dataclass
class World:
    mapping: MappingSpec
    rule: RuleSpec
    left: dict[str, Record] = field(default_factory=dict)
    right: dict[str, Record] = field(default_factory=dict)
    links: dict[tuple[str, str], Link] = field(default_factory=dict)
    decisions: list[dict[str, str]] = field(default_factory=list)
    store_left: Callable[[Record], Record] = no_loss
    store_right: Callable[[Record], Record] = no_loss
    numbers: int = 1000

    def put_left(self, **values: Any) -> str:
        return _put(self.left, self.mapping.left, self.mapping.left.key, values)

    def put_right(self, **values: Any) -> str:
        return _put(self.right, self.mapping.right, self.mapping.key, values)

    def edit_left(self, key: str, **values: Any) -> None:
        self.left[key] = {**self.left[key], **_texts(values)}

    def edit_right(self, key: str, **values: Any) -> None:
        self.right[key] = {**self.right[key], **_texts(values)}

    def plan(self, **options: Any) -> Plan:
        """Plan in this process."""
        base = [
            {"left_key": lk, "right_key": rk, "state": link.state,
             "left": _image(link.left), "right": _image(link.right)}
            for (lk, rk), link in self.links.items()
        ]  # fmt: skip
        programs = _programs(self.mapping, self.rule)
        names = programs.forward.left_fields
        plan = reconcile(
            self.mapping,
            self.rule,
            _records(list(self.left.values()), self.mapping.left, names),
            _records(list(self.right.values()), self.mapping.right),
            pa.Table.from_pylist(base, schema=BASE),
            decisions=pa.Table.from_pylist(self.decisions, schema=DECISIONS),
            programs=programs,
            **{"now": NOW, **options},
        )
        rows = {name: getattr(plan, name).to_pylist() for name in _TABLES}
        return Plan(plan.summary, **rows, rejections=plan.rejections, stops=plan.stops)

    def sync(self, **options: Any) -> Plan:
        """Plan and apply."""
        plan = self.plan(**options)
        self.apply(plan)
        return plan

    def apply(self, plan: Plan, *, refused: Callable[[dict[str, Any]], bool] | None = None) -> None:
        """Apply a plan as a run does: links first, the right side, then the left side."""
        for row in plan.gone:
            self.links.pop((row["left_key"], row["right_key"]), None)
        for row in plan.refreshes:
            link = Link(json.loads(row["base_left"]), json.loads(row["base_right"]))
            assert image_hash(link.left) == row["left_image"]
            assert image_hash(link.right) == row["right_image"]
            self.links[row["left_key"], row["right_key"]] = link
        failed: set[tuple[str, str]] = set()
        for change in plan.changes:
            pair = change["left_key"], change["right_key"]
            follows = change["cause"] in ("merged", "decided") and change["side"] == "left"
            if (refused and refused(change)) or (follows and pair in failed):
                failed.add(pair)
                continue
            self._apply(change)

    def _apply(self, change: dict[str, Any]) -> None:
        side, key = change["side"], change[f"{change['side']}_key"]
        records = getattr(self, side)
        before = json.loads(change["before"]) if change["before"] else {}
        after = json.loads(change["after"]) if change["after"] else {}
        pair = change["left_key"], change["right_key"]
        if change["operation"] == "delete":
            assert records[key].items() >= before.items()
            del records[key]
            self.links.pop(pair, None)
            return
        lossy = self.store_left if side == "left" else self.store_right
        if change["operation"] == "insert":
            record, key = self._inserted(side, after)
            assert key not in records, f"{side} {key} is taken"
            assert change[f"{side}_key"] in (None, key)
        else:
            assert records[key].items() >= before.items(), (records[key], before)
            record = {**records.pop(key), **after}
            key = change["key_after"] or key
            assert key not in records, f"{side} {key} is taken"
        records[key] = lossy(record)
        self._patch(change, pair, key)

    def _inserted(self, side: str, after: Record) -> tuple[Record, str]:
        dataset = self.mapping.left if side == "left" else self.mapping.right
        names = dataset.key if side == "left" else self.mapping.key
        record = {spec.name: None for spec in dataset.fields} | after
        for name in names:
            if record[name] is None:
                self.numbers += 1
                record[name] = str(self.numbers)
        return record, key_text([record[name] for name in names])

    def _patch(self, change: dict[str, Any], pair: tuple[str, str], key: str) -> None:
        """Patch the link's base, with what was stored in place of what was sent."""
        side = change["side"]
        new = (key, pair[1]) if side == "left" else (pair[0], key)
        old = self.links.pop(pair, None)
        if old is None and pair[0] is None:
            old = next((self.links.pop(p) for p in list(self.links) if p[1] == pair[1]), None)
        for known in [p for p in self.links if p[1] == new[1]]:
            del self.links[known]
        left, right = (json.loads(change[f"base_{s}"] or "{}") for s in ("left", "right"))
        stored = self._views(side, getattr(self, side)[key])
        sent = {} if side == "left" else json.loads(change["after"])
        for patch in [left if side == "left" else right]:  # of half a merge, it is not what is sent
            told = [name for name in patch if sent.get(name, patch[name]) == patch[name]]
            patch.update({name: stored[name] for name in told})
        state = "marked" if change["cause"] == "marked" else "live"
        base = old or Link({}, {})
        self.links[new] = Link(base.left | left, base.right | right, state)

    def _views(self, side: str, record: Record) -> Record:
        if side == "right":
            return record
        program = _programs(self.mapping, self.rule).forward
        with Runner(program) as runner:
            records = _records([record], self.mapping.left, program.left_fields)
            outcome = runner.run(records.combine_chunks().to_batches()[0])
        if not outcome.records.num_rows:
            return {spec.right: None for spec in self.mapping.fields}
        view: Record = json.loads(encode_images(outcome.records, program.right_types)[0])
        return view

    def decide(self, conflict: dict[str, Any], **decision: Any) -> None:
        """Decide a conflict as it is shown."""
        keys = {name: conflict[name] for name in ("left_key", "right_key", "kind", "seen")}
        self.decisions.append({**keys, "decision": json.dumps(decision)})


@functools.lru_cache(maxsize=200)
def _programs(mapping: MappingSpec, rule: RuleSpec) -> TwoWayPrograms:
    return compile_two_way(mapping, rule)


def _image(record: Record) -> str | None:
    """A base's image; an empty one is that of a side that was absent."""
    return json.dumps(record) if record else None


def _put(
    records: dict[str, Record], dataset: DatasetSpec, key: tuple[str, ...], values: dict[str, Any]
) -> str:
    record = {spec.name: None for spec in dataset.fields} | _texts(values)
    text = key_text([record[name] for name in key])
    records[text] = record
    return text


def _texts(values: dict[str, Any]) -> Record:
    return {name: None if value is None else str(value) for name, value in values.items()}


def _records(
    rows: list[Record], dataset: DatasetSpec, names: tuple[str, ...] | None = None
) -> pa.Table:
    chosen = names or tuple(spec.name for spec in dataset.fields)
    types = {name: dataset.field(name).neutral_type for name in chosen}
    return decode_images([json.dumps(row) for row in rows], types)
