"""Reconcile small tables in one call, for scripts and property tests.

Everything runs in the caller's process: expressions must be the caller's own. Runs use
`Reconciler`, whose programs run in the sandbox.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import orjson
import pyarrow as pa

from apps.engine.codec import image_hash
from apps.engine.execution import Runner
from apps.engine.program import RecordRejection, Transformed, TransformProgram
from apps.engine.reconcile.outputs import CHANGES, CONFLICTS, KEYS, REFRESHES
from apps.engine.reconcile.programs import TwoWayPrograms, compile_two_way
from apps.engine.reconcile.reconciler import Reconciler
from apps.engine.reconcile.summary import ReconcileSummary
from apps.engine.spec import MappingSpec, RuleSpec

BATCH_ROWS = 50_000
BASE = pa.schema([(n, pa.string()) for n in ("left_key", "right_key", "left", "right", "state")])
DECISIONS = pa.schema(
    [(n, pa.string()) for n in ("left_key", "right_key", "kind", "seen", "decision")]
)


@dataclass(frozen=True, slots=True)
class Reconciled:
    """A whole plan: tables as `Reconciler` hands them out."""

    summary: ReconcileSummary
    changes: pa.Table
    conflicts: pa.Table
    refreshes: pa.Table
    gone: pa.Table
    rejections: list[RecordRejection]
    stops: list[RecordRejection]


def reconcile(
    mapping: MappingSpec,
    rule: RuleSpec,
    left: pa.Table,
    right: pa.Table,
    base: pa.Table | None = None,
    *,
    decisions: pa.Table | None = None,
    lookups: Mapping[str, pa.Table] | None = None,
    complete: bool = True,
    now: datetime | None = None,
    memory_limit_mb: int = 256,
    programs: TwoWayPrograms | None = None,
) -> Reconciled:
    """Plan both ways over all left and right records.

    left, right: records in the storage of their types; base: text columns as in BASE, the images
    JSON texts (NULL: that side was absent); decisions: text columns as in DECISIONS.
    Raises ConfigurationError and its subclasses.
    """
    compiled = programs or compile_two_way(mapping, rule, lookups=lookups or {})
    with ExitStack() as stack:
        spill = stack.enter_context(tempfile.TemporaryDirectory())
        forward = _runner(stack, compiled.forward, lookups)
        reconciler = stack.enter_context(
            Reconciler(
                mapping,
                rule,
                complete=complete,
                forward=forward,
                backward=_runner(stack, compiled.backward, lookups),
                evaluate=_runner(stack, compiled.evaluate, lookups) if compiled.evaluate else None,
                memory_limit_mb=memory_limit_mb,
                spill_directory=Path(spill),
                now=now or datetime.now(UTC),
            )
        )
        _add_sides(reconciler, forward, left.select(compiled.forward.left_fields), right)
        if decisions is not None:
            reconciler.add_decisions(decisions.cast(DECISIONS))
        _add_links(reconciler, BASE.empty_table() if base is None else base.cast(BASE))
        return _collected(reconciler)


def _runner(
    stack: ExitStack, program: TransformProgram, lookups: Mapping[str, pa.Table] | None
) -> Callable[[pa.RecordBatch], Transformed]:
    return stack.enter_context(Runner(program, lookups)).run


def _add_sides(
    reconciler: Reconciler,
    forward: Callable[[pa.RecordBatch], Transformed],
    left: pa.Table,
    right: pa.Table,
) -> None:
    for batch in left.combine_chunks().to_batches(BATCH_ROWS):
        outcome = forward(batch)
        reconciler.add_left(outcome.records)
        reconciler.add_left_out(outcome.left_out)
        reconciler.add_rejected([(item.left_key, item.right_key) for item in outcome.rejected])
    for batch in right.select(reconciler.right_fields).to_batches(BATCH_ROWS):
        reconciler.add_right(batch)


def _add_links(reconciler: Reconciler, base: pa.Table) -> None:
    columns: dict[str, list[str]] = {
        f"{side}_image": [
            "" if text is None else image_hash(orjson.loads(text))
            for text in base[side].to_pylist()
        ]
        for side in ("left", "right")
    }
    keys = {name: base[name] for name in ("left_key", "right_key", "state")}
    reconciler.add_links(pa.table({**keys, **columns}))
    rows = {(row["left_key"], row["right_key"]): row for row in base.to_pylist()}
    needed = [row for table in reconciler.bases_needed() for row in table.to_pylist()]
    found = [rows[row["left_key"], row["right_key"]] for row in needed]
    reconciler.add_bases(pa.Table.from_pylist(found, schema=BASE))


def _collected(reconciler: Reconciler) -> Reconciled:
    return Reconciled(
        summary=reconciler.plan(),
        changes=pa.concat_tables([CHANGES.empty_table(), *reconciler.changes()]),
        conflicts=pa.concat_tables([CONFLICTS.empty_table(), *reconciler.conflicts()]),
        refreshes=pa.concat_tables([REFRESHES.empty_table(), *reconciler.refreshes()]),
        gone=pa.concat_tables([KEYS.empty_table(), *reconciler.gone()]),
        rejections=list(reconciler.rejections()),
        stops=list(reconciler.stops()),
    )
