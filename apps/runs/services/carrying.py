"""What a cursor would not show again though it is not in step yet."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import UUID

from apps.ledger.models import Conflict
from apps.ledger.selectors import (
    moved_changes,
    open_rejection_keys,
    open_right_rejection_keys,
)
from apps.runs.models import ENDED_WELL, Run
from apps.runs.services.scope import KeyPair

PAGE = 5_000


def carried_keys(run: Run) -> set[KeyPair]:
    """Left and right keys (empty where unknown) of records that the run must look at as well.

    Open rejections, conflicts that a person has decided, records that wait for a value which others
    have (and these others: an edit of theirs may set it free), and changes that were not written
    though planned, in any run since (and with) the last one that moved the checkpoint. All of them:
    what is left out here would stay out of step until the next sweep.
    """
    decided = Conflict.objects.filter(rule_id=run.rule_id, state=Conflict.State.DECIDED)
    pairs = {(key, "") for key in open_rejection_keys(run.rule_id)}
    pairs |= {("", key) for key in open_right_rejection_keys(run.rule_id)}
    pairs.update(decided.values_list("left_key", "right_key").iterator(PAGE))
    pairs.update(_about_taken_values(run.rule_id))
    pairs.update((item.left_key, item.right_key) for item in moved_changes(_runs_since(run)))
    return pairs


def _about_taken_values(rule_id: UUID) -> Iterator[KeyPair]:
    waiting = Conflict.objects.filter(rule_id=rule_id, kind=Conflict.Kind.UNIQUE)
    states = (Conflict.State.OPEN, Conflict.State.DECIDED)
    for conflict in waiting.filter(state__in=states).iterator(PAGE):
        yield conflict.left_key, conflict.right_key
        for key in conflict.candidates:  # of either side
            yield from ((key, ""), ("", key))


def _runs_since(run: Run) -> list[UUID]:
    runs = run.rule.runs.exclude(pk=run.pk).filter(mode=Run.Mode.APPLY, kind=Run.Kind.SYNC)
    moving = runs.filter(status__in=ENDED_WELL, rejection_ids=[], selection=[])
    last = moving.order_by("-created_at").values_list("created_at", flat=True).first()
    if last is not None:
        runs = runs.filter(created_at__gte=last)
    return list(runs.order_by("-created_at").values_list("pk", flat=True))
