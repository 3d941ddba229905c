"""Guards stop a plan before it does harm, and let a normal one pass."""

from __future__ import annotations

from dataclasses import replace

import pytest

from apps.connectors.errors import EmptySource, GuardStopped
from apps.engine.guards import PlanCounts, TooManyRejections, judge
from apps.engine.spec import Guards, RuleSpec

CALM = PlanCounts(
    inserts=5,
    updates=10,
    deletes=10,
    read=100,
    rejected=0,
    linked=100,
    source_empty=False,
    target_known=True,
)


def rule(**guards):
    return RuleSpec(guards=Guards(**guards))


def test_without_limits_everything_passes():
    judge(RuleSpec(), replace(CALM, deletes=100, updates=1_000_000))


@pytest.mark.parametrize(
    ("guards", "stops"),
    [
        ({"max_deletes": 10}, False),
        ({"max_deletes": 9}, True),
        ({"max_deletes_percent": 10}, False),
        ({"max_deletes_percent": 9.9}, True),
        ({"max_changes": 25}, False),
        ({"max_changes": 24}, True),
        ({"max_changes_percent": 25}, False),
        ({"max_changes_percent": 24.9}, True),
        ({"max_deletes": 0}, True),
    ],
)
def test_limits_are_inclusive(guards, stops):
    if not stops:
        judge(rule(**guards), CALM)
        return
    with pytest.raises(GuardStopped, match="the guard allows"):
        judge(rule(**guards), CALM)


def test_a_first_load_is_no_mass_change():
    first = replace(CALM, linked=0, inserts=1_000, updates=0, deletes=0)
    judge(rule(max_changes_percent=1, max_changes=1), first)


def test_overwriting_records_at_the_first_match_is_judged():
    first = replace(CALM, linked=0, inserts=0, updates=50, deletes=0)
    with pytest.raises(GuardStopped, match="50 changes"):
        judge(rule(max_changes=1), first)


def test_an_empty_source_is_refused_where_something_could_be_lost():
    empty = replace(CALM, read=0, source_empty=True)
    with pytest.raises(EmptySource):
        judge(RuleSpec(), empty)
    judge(rule(refuse_empty_source=False), empty)
    judge(RuleSpec(), replace(empty, target_known=False))


@pytest.mark.parametrize(
    ("limits", "stops"),
    [
        ({"max_rejections": 5}, False),
        ({"max_rejections": 4}, True),
        ({"max_rejections_percent": 5}, False),
        ({"max_rejections_percent": 4.9}, True),
        ({"max_rejections": 0}, True),
    ],
)
def test_rejections_have_a_limit_too(limits, stops):
    plan = replace(CALM, rejected=5)
    if not stops:
        judge(RuleSpec(**limits), plan)
        return
    with pytest.raises(TooManyRejections):
        judge(RuleSpec(**limits), plan)
