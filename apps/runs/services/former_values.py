"""The values that runs replaced or removed become searchable once the run is over, in the
background: a run need not wait for it, and what was missed is found by its row.

Any number of workers may be at it: each claims a run by a lease on its row, and writes only while
that is its own. A run whose changes cannot be read is tried again later, and holds up no other.
When the searchable fields of a rule change, its words go, every claim is void, and all its runs
wait to be kept anew.
"""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Collection
from datetime import timedelta
from math import inf
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import Exists, OuterRef, Q, QuerySet

from apps.connectors.errors import LeaseLost, LockstepError
from apps.core.clock import now
from apps.ledger.selectors import subject_side
from apps.ledger.services import forget_former_values, keep_former_values
from apps.mappings.marking import Sides, searched_sides
from apps.rules.models import Rule
from apps.runs.models import Checkpoint, Run, RunLog
from apps.runs.services.errors import Unexpected
from apps.runs.services.logs import log

logger = logging.getLogger(__name__)

MOST_RUNS = 500
LEASE = timedelta(minutes=5)
FIRST_PAUSE = timedelta(minutes=1)  # after a failure; doubled by each further one
LONGEST_PAUSE = timedelta(days=1)


def keep_former_values_of_runs(seconds: float = inf) -> int:
    """Make the old values of runs that are over searchable, the oldest first; how many runs.

    seconds: no further run is begun after so long, so that other tasks have their turn.
    """
    until = time.monotonic() + seconds
    waiting = _waiting().order_by("finished_at").select_related(*_DATASETS)
    runs = list(waiting[:MOST_RUNS])
    _follow(list({run.rule_id: run.rule for run in runs}.values()))
    kept = 0
    for run in runs:
        kept += _keep(run)
        if time.monotonic() >= until:
            break
    return kept


_DATASETS = ("rule__mapping__left", "rule__mapping__right")


def _waiting() -> QuerySet[Run]:
    """Runs that are over and nobody is at."""
    free = Q(former_values_after=None) | Q(former_values_after__lte=now())
    return Run.objects.filter(free, former_values_kept=False, finished_at__isnull=False)


class _Claim:
    """One worker's right to a run, by the time that it has set: nobody else sets the same."""

    def __init__(self, run_id: UUID) -> None:
        self._run_id = run_id
        self._until = self._before = now() + LEASE

    def take(self) -> bool:
        return bool(_waiting().filter(pk=self._run_id).update(former_values_after=self._until))

    def renew(self) -> None:
        """In the transaction that writes. Raises LeaseLost."""
        until = now() + LEASE
        self.end(former_values_after=until)
        self._before, self._until = self._until, until

    def end(self, **values: Any) -> None:
        """Raises LeaseLost where the run is another worker's, or waits to be kept anew."""
        own = (self._until, self._before)  # the one before: the transaction was taken back
        mine = Run.objects.filter(pk=self._run_id, former_values_after__in=own)
        if not mine.filter(former_values_kept=False).update(**values):
            raise LeaseLost("another worker keeps the old values of this run")


_CLEAR = {"former_values_after": None, "former_values_failures": 0, "former_values_error": ""}


def _keep(run: Run) -> bool:
    """Keep the old values of one run; False where that is another worker's, or failed."""
    claim = _Claim(run.pk)
    if not claim.take():
        return False
    try:
        if not run.is_dry:
            names = Checkpoint.objects.values_list("searched", flat=True).get(rule=run.rule_id)
            sides = {side: frozenset(names.get(side, ())) for side in Sides._fields}
            keep_former_values(run.rule_id, run.pk, sides, before_each=claim.renew)
        claim.end(former_values_kept=True, **_CLEAR)
    except LeaseLost:
        return False
    except LockstepError as error:
        _failed(run, claim, error)
        return False
    except Exception as error:
        # Not the message: libraries quote values in theirs.
        places = "".join(traceback.format_tb(error.__traceback__))
        logger.error("old values of %s: %s at\n%s", run.pk, type(error).__name__, places)
        _failed(run, claim, Unexpected(f"{type(error).__name__} in reading its changes"))
        return False
    if run.former_values_error:
        log(run, "Its old values can be found by searching now.")
    return True


def _failed(run: Run, claim: _Claim, error: LockstepError) -> None:
    """Let the run wait, longer each time, and say so in its log where the reason is a new one."""
    failures = run.former_values_failures + 1
    pause = min(FIRST_PAUSE * 2 ** min(failures - 1, 20), LONGEST_PAUSE)
    try:
        claim.end(
            former_values_after=now() + pause,
            former_values_failures=min(failures, 1_000),
            former_values_error=error.code,
        )
    except LeaseLost:
        return
    if error.code != run.former_values_error:
        text = f"Its old values cannot be found by searching yet: {error} ({error.code})."
        log(run, f"{text} {error.remedy}", level=RunLog.Level.ERROR)


def follow_searchable_fields() -> int:
    """Have the old values of rules kept anew whose searchable fields have changed; how many."""
    has_run = Exists(Run.objects.filter(rule=OuterRef("pk")))
    rules = Rule.objects.filter(has_run).select_related("mapping__left", "mapping__right")
    return _follow(list(rules))


def _follow(rules: Collection[Rule]) -> int:
    searched = searched_sides(rule.mapping for rule in rules)
    known = Checkpoint.objects.in_bulk([rule.pk for rule in rules])
    changed = 0
    for rule in rules:
        names = _names(rule, searched[rule.mapping_id])
        before = known[rule.pk].searched if rule.pk in known else None
        if names != before:
            _begin_anew(rule, names)
            changed += bool(names or before)
    return changed


def _names(rule: Rule, sides: Sides) -> dict[str, list[str]]:
    """What is searched, as a checkpoint keeps it, and which field says whom records are about."""
    names = {side: sorted(fields) for side, fields in sides._asdict().items() if fields}
    subject = subject_side(rule.mapping)
    if names and subject:
        names["subject"] = [subject, getattr(rule.mapping, subject).subject_field]
    return names


def _begin_anew(rule: Rule, names: dict[str, list[str]]) -> None:
    """Remove the rule's words, and let all its runs wait: no claim on one holds any more."""
    with transaction.atomic():
        Checkpoint.objects.get_or_create(rule=rule)
        Checkpoint.objects.select_for_update().get(rule=rule)  # two such at once, one by one
        Run.objects.filter(rule=rule).update(former_values_kept=False, **_CLEAR)
        forget_former_values(rule.pk)
        Checkpoint.objects.filter(rule=rule).update(searched=names)
