"""The delta method `checksum`: which records to plan, found by digests inside the databases.

Two-way rules have none, because they compare each side with its own base, not with the other.
Neither side is read; the candidates are then planned as given keys are, with their values as they
are by then. A run reads both sides instead, and says why in its log, where

- the mapping does more than copy, or a type has no form that both sides write (`checksum_plan`);
- a field must be unique, which no single record tells;
- the version has no finished run yet, so that checks and links of unchanged records are missing;
- reading was measured to be faster (`delta_costs`).

What digests do not tell is looked at in any case: records with an open rejection, and links that
are held or marked. And where the records that are equal do not number their links, some pair lacks
its link, or some link both its records: everything is read once.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from django.conf import settings
from django.utils.timezone import now

from apps.connectors.base import (
    Connector,
    CursorWindow,
    DatasetSchema,
    DigestRequest,
    DigestSession,
    DigestsRefused,
)
from apps.connectors.types import Kind
from apps.engine import reading_digests
from apps.engine.checksum import (
    CANDIDATES,
    ONLY_LEFT,
    ONLY_RIGHT,
    SMALL_ROWS,
    DigestComparison,
    Statistics,
)
from apps.engine.checksum_plan import Forms, Side, checksum_plan
from apps.engine.delta_costs import Method, choose, costs_of, measure
from apps.engine.spec import CheckKind, Delta, RuleSpec
from apps.ledger.models import Link
from apps.ledger.selectors import (
    link_count,
    links_of_left,
    links_of_right,
    open_rejection_keys,
)
from apps.runs.models import ENDED_WELL, Run
from apps.runs.services.context import RunContext
from apps.runs.services.narrowing import Narrowing
from apps.runs.services.plan_session import PlanSession
from apps.runs.services.scope import KeyPair
from apps.runs.services.storing import spill_directory

MOST_CANDIDATES = 200_000
"""Beyond so many, reading records by key takes longer than reading all."""


@dataclass(frozen=True, slots=True)
class Checksummed:
    """pairs: left and right key texts of the candidates, empty where a key is not known;
    on_left, on_right: those of them whose record digests were seen of, by that side's key;
    equal: records that are the same on both sides and linked; left_rows: all left records;
    reason: why checksums were chosen, for people; statistics: what the comparison did.
    """

    pairs: list[KeyPair]
    on_left: dict[str, str]
    on_right: dict[str, str]
    equal: int
    left_rows: int
    reason: str
    statistics: Statistics

    def narrowing(self) -> Narrowing:
        """The candidates as those of a first read, of which nothing was rejected or passed."""
        return Narrowing(
            pairs=self.pairs,
            on_left=self.on_left,
            on_right=self.on_right,
            rejected=[],
            unread_right=0,
            equal=self.equal,
            passed=set(),
            cursor="",
            right_cursor="",
        )


def checksum_scope(session: PlanSession) -> Checksummed | None:
    """What a rule with this delta method has to plan, None where both sides are to be read."""
    run = session.run
    if not wants_checksums(run, session.context.rule):
        return None
    try:
        found = checksum_candidates(session.context, check=session.lease.check)
    except DigestsRefused as refused:
        session.note(f"Both sides are read: {refused.reason}")
        return None
    session.note(found.reason)
    statistics = found.statistics
    session.note(
        f"Checksums: {statistics.spans:,} key ranges compared, "
        f"{statistics.differing_spans:,} differ, {len(found.pairs):,} records are looked at, "
        f"{statistics.young:,} are too young"
    )
    return found


def wants_checksums(run: Run, rule: RuleSpec) -> bool:
    """Whether a run is of a checksum rule and neither verifies nor repairs: these read values."""
    ordinary = run.mode != Run.Mode.VERIFY and run.trigger != Run.Trigger.REPAIR
    return rule.delta is Delta.CHECKSUM and run.sees_everything and ordinary


def checksum_candidates(
    context: RunContext, *, check: Callable[[], None] = lambda: None
) -> Checksummed:
    """Compare both sides by digests. Raises DigestsRefused where they are to be read.

    check: called between statements; may raise.
    """
    last = _last_run(context.run)
    _require_suitable(context, last)
    plan = checksum_plan(
        context.mapping,
        context.rule,
        Side(context.left, _forms(context.left_connector), _lag(context)),
        Side(context.right, _forms(context.right_connector)),
    )
    with ExitStack() as stack:
        left = stack.enter_context(_session(context.left_connector, plan.left))
        right = stack.enter_context(_session(context.right_connector, plan.right))
        rows = left.count(), right.count()
        if max(rows) <= SMALL_ROWS:
            raise DigestsRefused(f"{max(rows):,} records are too few to be worth checksums")
        facts = measure(left, rows[0]), measure(right, rows[1])
        choice = choose(*facts, changed=last.planned if last else None)
        if choice.method is Method.READ:
            raise DigestsRefused(choice.reason)
        comparison = DigestComparison(left, right, plan.keys, costs=costs_of(*facts), check=check)
        candidates = _gathered(comparison)
    statistics = comparison.statistics
    on_left = pc.sum(pc.not_equal(candidates.column("kind"), ONLY_RIGHT)).as_py() or 0
    equal = rows[0] - on_left - statistics.young
    _require_links(context.run, candidates, equal, statistics.young)
    found = list(zip(*(column.to_pylist() for column in candidates.columns), strict=True))
    pairs = {(ours, theirs) for ours, theirs, _ in found} | _always(context.run)
    return Checksummed(
        pairs=sorted(pairs),
        on_left={ours: theirs for ours, theirs, kind in found if kind != ONLY_RIGHT},
        on_right={theirs: ours for ours, theirs, kind in found if kind != ONLY_LEFT},
        equal=equal,
        left_rows=rows[0],
        reason=choice.reason,
        statistics=statistics,
    )


def _require_suitable(context: RunContext, last: Run | None) -> None:
    """Raises DigestsRefused where digests do not tell what has to be planned."""
    if any(item.kind is CheckKind.UNIQUE for item in context.rule.checks):
        raise DigestsRefused("the rule has a unique check, which is about all records")
    if last is None:
        raise DigestsRefused("this version of the rule has no finished run yet")


def _last_run(run: Run) -> Run | None:
    """The latest run of the same version that has compared and written everything."""
    finished = Run.objects.filter(
        rule_id=run.rule_id,
        version_id=run.version_id,
        mode=Run.Mode.APPLY,
        kind=Run.Kind.SYNC,
        status__in=ENDED_WELL,
        selection=[],
        rejection_ids=[],
    )
    return finished.order_by("-created_at").first()


def _forms(connector: Connector[Any]) -> Forms:
    if connector.capabilities.checksum:
        return connector.digest_forms
    return reading_digests.digest_forms


def _session(
    connector: Connector[Any], request: DigestRequest
) -> AbstractContextManager[DigestSession]:
    """Digests by the source, or of what is read where it computes none."""
    if connector.capabilities.checksum:
        return connector.digest_session(request)
    memory_mb = int(settings.LOCKSTEP["MEMORY_LIMIT_MB"])
    return reading_digests.ReadingDigestSession(
        connector, request, memory_mb=memory_mb, spill=spill_directory()
    )


def _lag(context: RunContext) -> CursorWindow | None:
    """Left records that changed within the declared lag are for the next run."""
    rule = context.rule
    if not rule.cursor_field or not rule.cursor_lag_seconds:
        return None
    moment = now() - timedelta(seconds=rule.cursor_lag_seconds)
    kind = _kind_of(context.left, rule.cursor_field)
    if kind is Kind.TIMESTAMP:
        return CursorWindow(rule.cursor_field, moment.replace(tzinfo=None))
    return CursorWindow(rule.cursor_field, moment) if kind is Kind.TIMESTAMPTZ else None


def _kind_of(dataset: DatasetSchema, name: str) -> Kind | None:
    return next((field.type.kind for field in dataset.fields if field.name == name), None)


def _gathered(comparison: DigestComparison) -> pa.Table:
    """All candidates. Raises DigestsRefused where there are too many to read by key."""
    tables: list[pa.Table] = []
    for table in comparison.candidates():
        tables.append(table)
        if comparison.statistics.candidates > MOST_CANDIDATES:
            raise DigestsRefused(f"more than {MOST_CANDIDATES:,} records differ")
    return pa.concat_tables(tables) if tables else CANDIDATES.empty_table()


def _require_links(run: Run, candidates: pa.Table, equal: int, young: int) -> None:
    """Raises DigestsRefused unless the links beside the candidates' are as many as equal pairs."""
    keys = [sorted(set(candidates.column(place).to_pylist())) for place in (0, 1)]
    tables = links_of_left(run.rule_id, keys[0]), links_of_right(run.rule_id, keys[1])
    theirs = {key for table in tables for key in table.column("right_key").to_pylist()}
    others = link_count(run.rule_id) - len(theirs)
    if abs(others - equal) > young:
        raise DigestsRefused(f"{equal:,} records are equal, but {others:,} are linked")


def _always(run: Run) -> set[KeyPair]:
    """What is looked at whatever its digest says."""
    pairs: set[KeyPair] = {(key, "") for key in open_rejection_keys(run.rule_id)}
    usual = (Link.State.LIVE, Link.State.GONE)
    odd = Link.objects.filter(rule_id=run.rule_id).exclude(state__in=usual)
    return pairs | set(odd.values_list("left_key", "right_key"))
