"""Plans that wait for a person: when they do, who may decide, and what is applied then."""

from __future__ import annotations

import shutil
import sqlite3
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.core.exceptions import PermissionDenied

from apps.core.clock import now
from apps.engine.types_sql import key_text
from apps.ledger.selectors import run_changes
from apps.mappings.services import save_mapping
from apps.rules.services import save_rule
from apps.runs.models import Run
from apps.runs.services import (
    ChangeSelection,
    approve_run,
    cancel_run,
    reject_run,
    request_run,
    tick,
    work_until_finished,
)
from apps.runs.services.errors import NotWaiting, RunRefused
from apps.sources.services import save_source
from tests.people import person
from tests.platforms import PLAIN_FIELDS, Pair, lines

pytestmark = pytest.mark.django_db(transaction=True)


def made(folder: Path, name: str = "pair", **facts: Any) -> Pair:
    pair = Pair(folder, name, fields=PLAIN_FIELDS, facts=facts)
    pair.add_customers(5)
    return pair


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return made(tmp_path, approval="always")


def test_an_approved_plan_is_applied_exactly(pair: Pair) -> None:
    run = pair.run()
    assert (run.status, run.planned, pair.clients()) == ("waiting", 5, []), lines(run)
    pair.on_left("UPDATE customers SET name = 'later' WHERE id = 1")
    boss = person("boss", "runs.view_run", "runs.approve_run")
    approve_run(run, actor=boss, note="looks right")
    run = work_until_finished(run)
    assert (run.status, run.inserted, run.decided_by) == ("succeeded", 5, boss), lines(run)
    assert pair.clients()[0][1] == " Name 1 "


def test_records_that_moved_while_a_plan_waited_are_refused_and_the_rest_is_applied(
    tmp_path: Path,
) -> None:
    pair = made(tmp_path)
    pair.add_customers(115, start=6)
    pair.run()
    pair.rule.approval = "always"
    pair.rule.save()
    pair.on_left("UPDATE customers SET balance = balance + 1")
    run = pair.run()
    pair.on_right("UPDATE clients SET balance = 0 WHERE client_id BETWEEN 11 AND 30")
    approve_run(run, actor=None)
    run = work_until_finished(run)
    assert (run.updated, run.stale, run.replanned) == (100, 20, 0), lines(run)
    stale = {change.right_key for change in pair.changes(run) if change.outcome == "stale"}
    assert stale == {f'["{key}"]' for key in range(11, 31)}
    untouched = [row for row in pair.clients() if 11 <= row[0] <= 30]
    assert all(row[3] == 0 for row in untouched)


def test_a_selection_is_applied_and_the_rest_is_skipped(pair: Pair) -> None:
    run = pair.run()
    ids = tuple(change.pk for change in pair.changes(run)[:2])
    approve_run(run, actor=None, selection=ChangeSelection(ids=ids))
    run = work_until_finished(run)
    assert (run.inserted, run.skipped, run.status) == (2, 3, "succeeded"), lines(run)
    outcomes = [change.outcome for change in pair.changes(run)]
    assert outcomes == ["applied"] * 2 + ["skipped"] * 3
    again = pair.run()
    assert (again.status, again.planned_inserts) == ("waiting", 3), lines(again)


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        (ChangeSelection(operations=("update",)), (0, 2, 0)),
        (ChangeSelection(operations=("insert", "delete")), (1, 0, 1)),
        (ChangeSelection(field="mail"), (1, 1, 0)),
        (ChangeSelection(causes=("deleted",)), (0, 0, 1)),
        (ChangeSelection(operations=("update",), field="mail"), (0, 1, 0)),
    ],
)
def test_selections_by_filter(
    tmp_path: Path, selection: ChangeSelection, expected: tuple[int, int, int]
) -> None:
    pair = made(tmp_path)
    pair.run()
    pair.rule.approval = "always"
    pair.rule.save()
    pair.add_customers(1, start=20)
    pair.on_left("UPDATE customers SET name = 'x' WHERE id = 1")
    pair.on_left("UPDATE customers SET email = 'x@x.org' WHERE id = 2")
    pair.on_left("DELETE FROM customers WHERE id = 3")
    run = pair.run()
    assert run.planned == 4, lines(run)
    approve_run(run, actor=None, selection=selection)
    run = work_until_finished(run)
    assert (run.inserted, run.updated, run.deleted) == expected, lines(run)
    assert run.skipped == 4 - sum(expected)


def test_a_selection_of_nothing_is_refused(pair: Pair) -> None:
    run = pair.run()
    with pytest.raises(NotWaiting, match="none of the plan's changes"):
        approve_run(run, actor=None, selection=ChangeSelection(operations=("delete",)))
    run.refresh_from_db()
    assert run.status == "waiting"
    assert {change.outcome for change in pair.changes(run)} == {"planned"}


def test_a_rejected_plan_is_never_written(pair: Pair) -> None:
    run = pair.run()
    reject_run(run, actor=None, note="wrong table")
    run.refresh_from_db()
    assert (run.status, run.cause_code) == ("rejected", "run.rejected")
    assert "wrong table" in run.cause
    assert work_until_finished(run).written == 0
    with pytest.raises(NotWaiting):
        approve_run(run, actor=None)


def test_a_plan_expires(pair: Pair) -> None:
    run = pair.run()
    tick()
    run.refresh_from_db()
    assert run.status == "waiting"
    Run.objects.filter(pk=run.pk).update(expires_at=now() - timedelta(seconds=1))
    with pytest.raises(NotWaiting, match="expired"):
        approve_run(run, actor=None)
    tick()
    run.refresh_from_db()
    assert (run.status, run.cause_code) == ("expired", "run.expired")
    assert pair.run().status == "waiting"


def test_a_waiting_plan_stops_other_runs_of_its_rule_and_can_be_cancelled(pair: Pair) -> None:
    run = pair.run()
    with pytest.raises(RunRefused, match="waits for approval since") as refusal:
        request_run(pair.rule, actor=None)
    assert "Approve or reject" in refusal.value.remedy
    cancel_run(run, actor=None)
    run.refresh_from_db()
    assert run.status == "cancelled"
    assert pair.run().status == "waiting"


def test_deciding_needs_its_own_permission(pair: Pair) -> None:
    run = pair.run()
    runner = person("runner", "runs.view_run", "rules.run_rule", "runs.cancel_run")
    for decide in (approve_run, reject_run):
        with pytest.raises(PermissionDenied):
            decide(run, actor=runner)
    run.refresh_from_db()
    assert run.status == "waiting"


def test_four_eyes(tmp_path: Path) -> None:
    pair = made(tmp_path, approval="always", four_eyes=True)
    rights = ("runs.view_run", "runs.approve_run", "rules.view_rule", "rules.run_rule")
    asker, other = person("asker", *rights), person("other", *rights)
    run = work_until_finished(request_run(pair.rule, actor=asker))
    with pytest.raises(PermissionDenied, match="somebody else"):
        approve_run(run, actor=asker)
    approve_run(run, actor=other)
    assert work_until_finished(run).status == "succeeded"


def test_four_eyes_on_a_run_that_nobody_asked_for(tmp_path: Path) -> None:
    """Who last changed what it does does not let it pass."""
    pair = made(tmp_path, approval="always", four_eyes=True)
    rights = ("runs.view_run", "runs.approve_run", "rules.change_rule", "mappings.change_mapping")
    author, mapper, other = (person(n, *rights) for n in ("author", "mapper", "other"))
    pair.rule.max_changes = 1_000
    save_rule(pair.rule, (), actor=author)
    run = work_until_finished(request_run(pair.rule, actor=None, trigger="schedule"))
    with pytest.raises(PermissionDenied, match="last changed the rule"):
        approve_run(run, actor=author)
    reject_run(run, actor=author)

    save_mapping(pair.mapping, PLAIN_FIELDS[:3], ["client_id"], actor=mapper)
    run = work_until_finished(request_run(pair.rule, actor=None, trigger="schedule"))
    with pytest.raises(PermissionDenied, match="last changed the rule"):
        approve_run(run, actor=mapper)
    approve_run(run, actor=other)
    assert work_until_finished(run).status == "succeeded"


def test_the_first_run_alone_asks(tmp_path: Path) -> None:
    pair = made(tmp_path, approval="first")
    assert pair.run(mode="dry_run").status == "planned"
    run = pair.run()
    assert run.status == "waiting"
    approve_run(run, actor=None)
    work_until_finished(run)
    pair.add_customers(1, start=9)
    assert pair.run().status == "succeeded"


def test_some_records_and_empty_plans_are_no_first_run(tmp_path: Path) -> None:
    pair = made(tmp_path, approval="first")
    one = pair.run(keys=[(key_text(["1"]), "")])
    approve_run(one, actor=None)
    assert work_until_finished(one).inserted == 1
    some = pair.run()
    first = run_changes(some.pk, limit=1)[0].pk
    approve_run(some, actor=None, selection=ChangeSelection(ids=(first,)))
    assert work_until_finished(some).inserted == 1
    assert pair.run().status == "waiting"

    empty = made(tmp_path, name="empty", approval="first")
    empty.on_left("DELETE FROM customers")
    assert empty.run().status == "succeeded"
    empty.add_customers(2)
    assert empty.run().status == "waiting"


def test_a_guard_asks_instead_of_refusing(tmp_path: Path) -> None:
    pair = made(tmp_path, approval="guard", max_deletes=1)
    assert pair.run().status == "succeeded"
    pair.on_left("DELETE FROM customers WHERE id < 4")
    run = pair.run()
    assert run.status == "waiting", lines(run)
    assert "3 deletes" in run.waits_for
    approve_run(run, actor=None)
    assert work_until_finished(run).deleted == 3


def test_a_guard_refuses_although_somebody_would_approve(tmp_path: Path) -> None:
    pair = made(tmp_path, approval="always", max_changes=2)
    approve_run(pair.run(), actor=None)
    work_until_finished(pair.rule.runs.latest("created_at"))
    pair.on_left("UPDATE customers SET name = 'x'")
    run = pair.run()
    assert (run.status, run.cause_code) == ("refused", "guard.stopped"), lines(run)


def test_an_empty_plan_waits_for_nobody(pair: Pair) -> None:
    approve_run(pair.run(), actor=None)
    work_until_finished(pair.rule.runs.latest("created_at"))
    assert pair.run().status == "succeeded"


def test_a_source_that_leads_elsewhere_makes_the_next_plan_wait(tmp_path: Path) -> None:
    """The other database may hold the same data, or other records under the same keys."""
    pair = made(tmp_path, approval="never")
    pair.run()
    other = tmp_path / "other.db"
    shutil.copy(pair.right_path, other)
    with sqlite3.connect(other) as database:
        database.execute("UPDATE clients SET full_name = 'somebody else'")
    source = pair.mapping.right.source
    save_source(source, {"path": str(other)}, actor=None)
    pair.on_left("DELETE FROM customers WHERE id = 1")
    run = pair.run()
    assert (run.status, run.planned_deletes) == ("waiting", 1), lines(run)
    assert run.waits_for.startswith(f"{source.name} leads elsewhere than in the rule's last run")
    approve_run(run, actor=None)
    run = work_until_finished(run)
    assert run.status == "succeeded", lines(run)
    pair.on_left("DELETE FROM customers WHERE id = 2")
    assert pair.run().status == "succeeded"  # that is where its data is now
