"""Plan both ways: what has to change on either side so that both agree again.

The algorithm, set by set (decision 3 says why):

1. *readable*: records that share a key, or have none, are present and unknown: left alone.
2. *links*: a link whose sides both equal its images is done with. The others are pairs, or one of
   their sides is gone or left the filter (`links`).
3. *match*: unlinked records find each other, are ambiguous, or are new (`matching`).
4. *absent*: by policy the counterpart is deleted, marked, kept, comes back, or a person is asked
   (`absence`).
5. *pairs*: each field is judged against the base, and by its policy where both sides changed it
   (`verdicts`, `merging`, `decisions`).
6. *left*: what would be written to the left goes backward, and forward again (`writes`).
7. *outcome*: what that makes of each pair and each new record (`outcome`), less what would take a
   key or a unique value from another record (`clashes`).

Steps 5 to 7 go slice by slice of the pairs, so that memory is bounded however many have changed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import Self

import pyarrow as pa

from apps.connectors.types import NeutralType
from apps.engine.program import LEFT_KEY, RIGHT_KEY, RecordRejection, Transformed
from apps.engine.reconcile import outputs
from apps.engine.reconcile.absence import judge_absent
from apps.engine.reconcile.clashes import park_clashes
from apps.engine.reconcile.decisions import apply_decisions, ask
from apps.engine.reconcile.layout import Layout
from apps.engine.reconcile.links import find_unreadable, open_links, weigh_edits
from apps.engine.reconcile.matching import match
from apps.engine.reconcile.outcome import (
    finish_inserts,
    make_final,
    make_inserts,
    make_outcome,
)
from apps.engine.reconcile.pending import merge_pending
from apps.engine.reconcile.store import Store
from apps.engine.reconcile.summary import ReconcileSummary, summarise
from apps.engine.reconcile.verdicts import choose_pairs, make_pairs
from apps.engine.reconcile.writes import make_written, try_inserts, try_updates
from apps.engine.spec import MappingSpec, RuleSpec

Program = Callable[[pa.RecordBatch], Transformed]
NO_FIELDS: Mapping[str, NeutralType] = MappingProxyType({})
_LINK = ("left_key", "right_key", "left_image", "right_image", "state")
_DECISION = ("left_key", "right_key", "kind", "seen", "decision")


class Reconciler:
    """Collects both sides, plans once, then hands out the plan. A context manager.

    complete: both sides of every record in scope were given, so that absence means deletion. (For
              a run over changed keys the scope is what the links given name: both of their sides
              were looked up.) Else a record that is not there is left alone;
    forward, backward, evaluate: run the programs of `compile_two_way` (in the sandbox);
    now:      modification times beyond it are taken for it;
    extra_left, extra_right: fields beyond the mapped ones that only deletes tell, in `before`.

    Order of calls: add_*; bases_needed and add_bases; plan; the outputs. Raises
    ConfigurationError when rule and mapping do not fit; SandboxDied from the programs.
    """

    def __init__(
        self,
        mapping: MappingSpec,
        rule: RuleSpec,
        *,
        complete: bool,
        forward: Program,
        backward: Program,
        evaluate: Program | None = None,
        memory_limit_mb: int,
        spill_directory: Path,
        now: datetime,
        threads: int = 2,
        extra_left: Mapping[str, NeutralType] = NO_FIELDS,
        extra_right: Mapping[str, NeutralType] = NO_FIELDS,
    ) -> None:
        self.layout = Layout(mapping, rule, extra_left, extra_right)
        self.complete = complete
        self.forward = forward
        self.backward = backward
        self.evaluate = evaluate
        self.now = now
        self.store = Store(self.layout, memory_limit_mb, spill_directory, threads)
        self._judged = False
        self._summary: ReconcileSummary | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Forget everything and remove the spill files."""
        self.store.close()

    @property
    def right_fields(self) -> tuple[str, ...]:
        """The right fields that `add_right` needs."""
        return self.layout.right_fields

    def add_left(self, records: pa.Table) -> None:
        """Left views with what rides along: `Transformed.records` of the forward program."""
        self.store.add_left(records)

    def add_left_out(self, keys: pa.Table) -> None:
        """Keys (`Transformed.left_out`) of left records that the filter leaves out."""
        columns = [("lk", keys[LEFT_KEY]), ("rk", keys[RIGHT_KEY])]
        self.store.add_texts("left_out", columns)

    def add_rejected(self, keys: Sequence[tuple[str | None, str | None]]) -> None:
        """(left key, right key) of left records kept out so far; None where it is unknown."""
        left = pa.array([pair[0] for pair in keys], pa.string())
        right = pa.array([pair[1] for pair in keys], pa.string())
        self.store.add_texts("rejected", [("lk", left), ("rk", right)])

    def add_right(self, batch: pa.RecordBatch | pa.Table) -> None:
        """Right records with `right_fields`, in the storage of their types."""
        self.store.add_right(batch)

    def add_links(self, table: pa.Table) -> None:
        """Links in scope: left_key, right_key, left_image, right_image (hashes), state."""
        names = ("lk", "rk", "li", "ri", "state")
        columns = [(short, table[name]) for short, name in zip(names, _LINK, strict=True)]
        self.store.add_texts("links", columns)

    def add_other_links(self, table: pa.Table) -> None:
        """Links (left_key, right_key) of records that are not in scope.

        They tell that a record belongs to another one; none of them ever counts as absent.
        """
        columns = [("lk", table["left_key"]), ("rk", table["right_key"])]
        self.store.add_texts("other_links", columns)

    def add_decisions(self, table: pa.Table) -> None:
        """What people decided: left_key, right_key, kind, seen, decision (JSON).

        A decision: {"record": "left" | "right" | "delete" | "keep" | "insert", "fields": {field:
        {"take": "left" | "right" | "base" | "value", "value": canonical text or null}},
        "match": key of the other side}; each part may be left out. It counts where the conflict
        that would be reported has the same `seen`; else the conflict is reported anew.
        """
        names = ("lk", "rk", "kind", "seen", "decision")
        columns = [(short, table[name]) for short, name in zip(names, _DECISION, strict=True)]
        self.store.add_texts("decisions", columns)

    def bases_needed(self, batch_rows: int = 50_000) -> Iterator[pa.Table]:
        """`left_key`, `right_key` of the links whose base images must be given.

        After this only bases can be added.
        """
        self._judge_links()
        sql = (
            "SELECT lk, rk FROM link WHERE became IN "
            "('pair', 'left_gone', 'right_gone', 'left_new', 'right_new')"
        )
        return self.store.batches(sql, outputs.KEYS, batch_rows)

    def add_bases(self, table: pa.Table) -> None:
        """Base images of links: left_key, right_key, left, right (JSON texts).

        An empty right image is the same as the left one. A field that an image lacks, like a link
        without any image, has an unknown base.
        """
        self.store.add_bases(table)

    def plan(self) -> ReconcileSummary:
        """Decide. After this nothing can be added."""
        if self._summary is None:
            self._judge_links()
            self.store.flush()
            weigh_edits(self.store)
            match(self.store)
            judge_absent(self.store)
            make_final(self.store)
            make_written(self.store)
            for rows in choose_pairs(self.store):
                self._decide(rows)
            make_inserts(self.store)
            try_inserts(self.store, self.backward, self.forward)
            finish_inserts(self.store)
            park_clashes(self.store)
            self._summary = summarise(self.store)
        return self._summary

    def _decide(self, rows: tuple[int, int]) -> None:
        """Decide a slice of the pairs."""
        make_pairs(self.store, rows, self.now)
        merge_pending(self.store, self.evaluate)
        apply_decisions(self.store)
        ask(self.store)
        try_updates(self.store, self.backward, self.forward)
        make_outcome(self.store)

    def changes(self, batch_rows: int = 10_000) -> Iterator[pa.Table]:
        """The planned changes (schema `CHANGES`): the right side's, then the left side's.

        On each side deletes and marks come first, then updates, then inserts.

        left_key, right_key: as the record is known now; NULL where its side assigns it;
        key_after: the key afterwards on the side written to, where the change moves it;
        fields, before, after: in the space of the side written to;
        image: hash of that side's whole record afterwards, in right space (NULL for deletes);
        base_left, base_right: the patch to the link's base (NULL for deletes).

        A merged value that both sides get is in two changes. The right one comes first; the left
        one (cause `merged` or `decided`) is for when the right one was applied: its patch takes
        that for granted.
        """
        self.plan()
        for rows, sql in outputs.changes_sql(self.layout):
            if self.store.count(rows):
                yield from self.store.batches(sql, outputs.CHANGES, batch_rows)

    def conflicts(self, batch_rows: int = 10_000) -> Iterator[pa.Table]:
        """What people have to decide (schema `CONFLICTS`)."""
        self.plan()
        sql = (
            "SELECT kind, lk, rk, fields, left_image, right_image, bl, br, seen, "
            "timezone('UTC', left_time), timezone('UTC', right_time), candidates FROM conflict"
        )
        return self.store.batches(sql, outputs.CONFLICTS, batch_rows)

    def refreshes(self, batch_rows: int = 10_000) -> Iterator[pa.Table]:
        """Links to store without a write (schema `REFRESHES`), with their whole base.

        They are to be stored before the patches of changes.
        """
        self.plan()
        for rows, sql in outputs.refreshes_sql(self.layout):
            if self.store.count(rows):
                yield from self.store.batches(sql, outputs.REFRESHES, batch_rows)

    def gone(self, batch_rows: int = 50_000) -> Iterator[pa.Table]:
        """Links to forget (left_key, right_key).

        Neither side is there; or one comes back under another key, to which the insert links it.
        """
        self.plan()
        return self.store.batches(outputs.gone_sql(), outputs.KEYS, batch_rows)

    def rejections(self) -> Iterator[RecordRejection]:
        """Records that are kept out: shared keys, and what the left side would not take."""
        return self._rejections(stop=False)

    def stops(self) -> Iterator[RecordRejection]:
        """Records whose check, on what would be written to the left, says that the run stops."""
        return self._rejections(stop=True)

    def _judge_links(self) -> None:
        if not self._judged:
            self._judged = True
            self.store.ready()
            find_unreadable(self.store)
            open_links(self.store, complete=self.complete)

    def _rejections(self, *, stop: bool) -> Iterator[RecordRejection]:
        self.plan()
        sql = (
            "SELECT lk AS left_key, rk AS right_key, code, message, field, name AS check, record "
            f"FROM refused WHERE stop = {stop} UNION ALL SELECT coalesce(a.lk, i.lk), "
            "coalesce(a.rk, i.rk), w.code, w.message, w.field, w.name, w.record "
            "FROM refused_write w LEFT JOIN tried a ON a.id = w.id "
            f"LEFT JOIN dropping i ON i.id = w.id WHERE w.stop = {stop}"
        )
        for table in self.store.batches(sql, None, 5_000):
            for row in table.to_pylist():
                yield RecordRejection(**{**row, "record": json.loads(row["record"])})
