"""Repairing: what a verification found is brought back into step, once somebody has approved."""

from __future__ import annotations

from typing import TYPE_CHECKING

from apps.core.selectors import require
from apps.rules.selectors import rules
from apps.runs.models import ENDED_WELL, Run
from apps.runs.selectors import runs
from apps.runs.services.errors import RunRefused
from apps.runs.services.requesting import request_run

if TYPE_CHECKING:
    from apps.accounts.models import User


def propose_repair(run: Run, *, actor: User | None) -> Run:
    """Plan what brings both sides back into step; the plan waits for approval.

    run: a verification that found differences. Raises RunRefused and what `request_run` raises.
    """
    require(actor, runs, "view", run)
    require(actor, rules, "run", run.rule)
    finished = run.status in ENDED_WELL
    if run.mode != Run.Mode.VERIFY or not finished:
        raise RunRefused("this run is no finished verification", remedy="Verify the rule first.")
    if not run.planned:
        raise RunRefused("the verification found nothing to repair", remedy="Nothing to do.")
    return request_run(run.rule, actor=actor, trigger=Run.Trigger.REPAIR, asks_approval=True)
