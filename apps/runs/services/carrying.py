"""What a cursor would not show again though it is not in step yet."""

from __future__ import annotations

from apps.ledger.models import Change, Conflict
from apps.ledger.selectors import open_rejection_keys
from apps.runs.models import Run, RunStatus
from apps.runs.services.scope import KeyPair

MOST_RUNS = 100
MOST_KEYS = 50_000
_NOT_WRITTEN = (Change.Outcome.STALE, Change.Outcome.SKIPPED, Change.Outcome.IN_DOUBT)


def carried_keys(run: Run) -> list[KeyPair]:
    """Left and right keys (empty where unknown) of records that the run must look at as well.

    Open rejections, conflicts that a person has decided, and changes that were not written though
    planned, in any run since (and with) the last one that moved the checkpoint.
    """
    rejected = [(key, "") for key in open_rejection_keys(run.rule_id)]
    decided = Conflict.objects.filter(rule_id=run.rule_id, state=Conflict.State.DECIDED)
    unwritten = Change.objects.filter(run_id__in=_runs_since(run), outcome__in=_NOT_WRITTEN)
    pairs = [*rejected]
    for rows in (decided, unwritten):
        pairs += rows.values_list("left_key", "right_key")[:MOST_KEYS]
    return pairs


def _runs_since(run: Run) -> list[object]:
    runs = run.rule.runs.exclude(pk=run.pk).filter(mode=Run.Mode.APPLY, kind=Run.Kind.SYNC)
    settled = (RunStatus.SUCCEEDED, RunStatus.PARTIAL)
    moving = runs.filter(status__in=settled, rejection_ids=[], selection=[])
    last = moving.order_by("-created_at").first()
    if last is not None:
        runs = runs.filter(created_at__gte=last.created_at)
    return list(runs.order_by("-created_at").values_list("pk", flat=True)[:MOST_RUNS])
