"""Deciding conflicts, and syncing just these records at once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from uuid import UUID

from apps.connectors.errors import LockstepError
from apps.ledger.models import Conflict
from apps.ledger.services import Decision, decide_many
from apps.rules.models import Rule
from apps.runs.models import Run
from apps.runs.services.requesting import queue_run, require_unpaused

if TYPE_CHECKING:
    from apps.accounts.models import User


@dataclass(frozen=True, slots=True)
class Decided:
    """What became of decisions about many conflicts.

    failed: conflicts that could not be decided, and why; runs: those that write the others;
    later: rules (by id) whose next run writes them, and why none could start now.
    """

    failed: dict[UUID, LockstepError] = field(default_factory=dict)
    runs: list[Run] = field(default_factory=list)
    later: dict[UUID, str] = field(default_factory=dict)


def decide_and_sync(
    seen: Mapping[UUID, str], decision: Decision, *, actor: User | None, note: str = ""
) -> Decided:
    """Decide conflicts alike and let runs of just these records write it.

    seen: each conflict's id and its `seen` when the person looked. Who may decide conflicts may
    have them written; a rule whose run goes on, or that is paused, writes them with its next run.
    Raises PermissionDenied.
    """
    decided = Decided(failed=decide_many(seen, decision, actor=actor, note=note))
    by_rule: dict[UUID, list[list[str]]] = defaultdict(list)
    done = [pk for pk in seen if pk not in decided.failed]
    for conflict in Conflict.objects.filter(pk__in=done, state=Conflict.State.DECIDED):
        keys = [conflict.left_key, conflict.right_key]
        by_rule[conflict.rule_id].append(keys)
        by_rule[conflict.rule_id] += [["", key] for key in conflict.candidates]
    for rule in Rule.objects.filter(pk__in=list(by_rule)):
        try:
            require_unpaused(rule)
            decided.runs.append(
                queue_run(
                    rule,
                    actor=actor,
                    trigger=Run.Trigger.DECISION,
                    selection=by_rule[rule.pk],
                )
            )
        except LockstepError as error:
            decided.later[rule.pk] = error.message
    return decided
