"""Guards: limits judged on the whole plan, before anything is written.

Per cent are of the records that the rule links already, or of the records read where it links
none yet: a first load of a thousand records is no "100 % changed".
"""

from __future__ import annotations

from dataclasses import dataclass

from apps.connectors.errors import (
    ConfigurationError,
    EmptySource,
    GuardStopped,
    LockstepError,
)
from apps.engine.spec import RuleSpec


class TooManyRejections(ConfigurationError):
    code = "guard.too_many_rejections"
    default_remedy = "Look at the rejections; correct their cause or raise the rule's limit."


def is_guard(error: LockstepError) -> bool:
    """Whether an error is a limit that a person may decide to exceed."""
    return isinstance(error, GuardStopped | TooManyRejections | EmptySource)


@dataclass(frozen=True, slots=True)
class PlanCounts:
    """What a plan would do; numbers of records.

    source_empty: everything was to be read and nothing was there;
    target_known: the rule links records, or the target holds some.
    """

    inserts: int
    updates: int
    deletes: int
    read: int
    rejected: int
    linked: int
    source_empty: bool
    target_known: bool


def judge(rule: RuleSpec, plan: PlanCounts) -> None:
    """Raises EmptySource, GuardStopped or TooManyRejections for a plan beyond its limits."""
    guards = rule.guards
    if plan.source_empty and plan.target_known and guards.refuse_empty_source:
        raise EmptySource("the source returned nothing")
    whole = plan.linked or plan.read
    changes = plan.updates + plan.deletes
    if plan.linked:  # the inserts of a first load take nobody's value away
        changes += plan.inserts
    _limit("deletes", plan.deletes, guards.max_deletes, guards.max_deletes_percent, whole)
    _limit("changes", changes, guards.max_changes, guards.max_changes_percent, whole)
    _limit_rejections(rule, plan)


def _limit(word: str, count: int, most: int | None, percent: float | None, whole: int) -> None:
    if most is not None and count > most:
        raise GuardStopped(f"the plan has {count:,} {word}, the guard allows {most:,}")
    if percent is not None and whole and count * 100 > percent * whole:
        share = count * 100 / whole
        raise GuardStopped(
            f"the plan has {count:,} {word}, {share:.1f} % of {whole:,} records; "
            f"the guard allows {percent:g} %"
        )


def _limit_rejections(rule: RuleSpec, plan: PlanCounts) -> None:
    if rule.max_rejections is not None and plan.rejected > rule.max_rejections:
        raise TooManyRejections(
            f"{plan.rejected:,} records were rejected, the rule allows {rule.max_rejections:,}"
        )
    percent = rule.max_rejections_percent
    if percent is not None and plan.read and plan.rejected * 100 > percent * plan.read:
        raise TooManyRejections(
            f"{plan.rejected:,} of {plan.read:,} records were rejected, "
            f"the rule allows {percent:g} %"
        )
