"""The values that runs replaced or removed become searchable once the run is over, in the
background: a run need not wait for it, and what was missed is found by its row."""

from __future__ import annotations

from apps.ledger.services import keep_former_values
from apps.mappings.marking import searched_sides
from apps.runs.models import Checkpoint, Run

MOST_RUNS = 500


def keep_former_values_of_runs() -> int:
    """Make the old values of runs that are over searchable, the oldest first; how many runs."""
    over = Run.objects.filter(former_values_kept=False, finished_at__isnull=False)
    runs = list(over.order_by("finished_at").select_related("rule__mapping")[:MOST_RUNS])
    searched = searched_sides(run.rule.mapping for run in runs)
    for run in runs:
        sides = searched[run.rule.mapping_id]
        if not run.is_dry:
            keep_former_values(run.pk, left=sides.left, right=sides.right)
        Run.objects.filter(pk=run.pk).update(former_values_kept=True)
    return len(runs)


def follow_searchable_fields() -> int:
    """Have the old values of rules kept anew whose searchable fields have changed; how many."""
    changed = 0
    checkpoints = list(Checkpoint.objects.select_related("rule__mapping"))
    searched = searched_sides(checkpoint.rule.mapping for checkpoint in checkpoints)
    for checkpoint in checkpoints:
        sides = searched[checkpoint.rule.mapping_id]
        names = {side: sorted(fields) for side, fields in sides._asdict().items() if fields}
        if names == checkpoint.searched:
            continue
        Run.objects.filter(rule=checkpoint.rule).update(former_values_kept=False)
        Checkpoint.objects.filter(pk=checkpoint.pk).update(searched=names)
        changed += 1
    return changed
