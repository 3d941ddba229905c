"""Runs of single records that a page starts at once: decided conflicts."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from django.core.exceptions import PermissionDenied

from apps.connectors.errors import LockstepError
from apps.core.admin import explain
from apps.ledger.models import Conflict
from apps.rules.selectors import rules
from apps.runs.models import Run
from apps.runs.services import request_run

if TYPE_CHECKING:
    from apps.accounts.models import User

MOST_RECORDS = 5_000
"""More than this is the business of a whole run."""


def write_decisions(decided: Iterable[Conflict], *, actor: User) -> tuple[list[Run], list[str]]:
    """One run per rule, of just these records; and why some could not start.

    Raises PermissionDenied where the actor may start no runs at all.
    """
    keys: dict[object, list[tuple[str, str]]] = {}
    for conflict in decided:
        keys.setdefault(conflict.rule_id, []).append((conflict.left_key, conflict.right_key))
    started: list[Run] = []
    problems: list[str] = []
    allowed = {rule.pk: rule for rule in rules(actor, "run").filter(pk__in=list(keys))}
    if keys and not allowed:
        raise PermissionDenied("you may not start runs of these rules")
    for rule_id, rule in allowed.items():
        try:
            run = request_run(
                rule,
                actor=actor,
                trigger=Run.Trigger.DECISION,
                keys=keys[rule_id] if len(keys[rule_id]) <= MOST_RECORDS else (),
            )
            started.append(run)
        except LockstepError as error:
            problems.append(f"{rule.name}: {explain(error)}")
    return started, problems
