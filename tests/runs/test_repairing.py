"""A verification compares everything and writes nothing; its repair waits for a person."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from apps.core.clock import now
from apps.rules.services import set_enabled
from apps.runs.services import approve_run, propose_repair, work_until_finished
from apps.runs.services.errors import RunRefused
from apps.runs.services.scheduling import start_due_verifications
from tests.platforms import PLAIN_FIELDS, Pair, TwoWayPair, lines

pytestmark = pytest.mark.django_db(transaction=True)


def test_accuracy_is_told_by_field_and_a_repair_can_follow(tmp_path: Path) -> None:
    facts = {"delta": "cursor", "cursor_field": "changed", "max_deletes_percent": None}
    pair = Pair(tmp_path, fields=PLAIN_FIELDS, facts=facts)
    pair.add_customers(20)
    pair.run()
    fine = pair.run(mode="verify")
    assert (fine.status, fine.accuracy["equal"]) == ("succeeded", 20), lines(fine)
    pair.on_right("UPDATE clients SET full_name = 'x' WHERE client_id < 4")
    pair.on_right("UPDATE clients SET mail = NULL WHERE client_id = 3")
    pair.on_right("DELETE FROM clients WHERE client_id = 9")
    pair.on_left("DELETE FROM customers WHERE id = 10")
    damaged = pair.clients()
    run = pair.run(mode="verify")
    assert run.status == "partial", lines(run)
    found = run.accuracy
    assert (found["equal"], found["different"], found["missing"], found["extra"]) == (15, 3, 1, 1)
    assert found["fields"] == {"full_name": 3, "mail": 1}
    assert pair.clients() == damaged
    repair = work_until_finished(propose_repair(run, actor=None))
    assert (repair.status, repair.planned) == ("waiting", 5), lines(repair)
    approve_run(repair, actor=None)
    assert work_until_finished(repair).status == "succeeded"
    again = pair.run(mode="verify")
    assert again.status == "succeeded", lines(again)
    with pytest.raises(RunRefused, match="nothing to repair"):
        propose_repair(again, actor=None)
    with pytest.raises(RunRefused, match="no finished verification"):
        propose_repair(repair, actor=None)


def test_both_ways(tmp_path: Path) -> None:
    pair = TwoWayPair(tmp_path)
    pair.add_customers(5)
    pair.run()
    pair.on_left("UPDATE customers SET name = 'l' WHERE id = 1")
    pair.on_right("UPDATE clients SET balance = 9 WHERE client_id = 2")
    run = pair.run(mode="verify")
    assert run.accuracy["different"] == 2, lines(run)
    assert run.accuracy["fields"] == {"full_name": 1, "balance": 1}


def test_a_rule_is_verified_when_its_last_verification_is_too_long_ago(tmp_path: Path) -> None:
    pair = Pair(tmp_path, fields=PLAIN_FIELDS, facts={"verify_hours": 24})
    pair.add_customers(2)
    pair.run()
    assert start_due_verifications(now() + timedelta(hours=25)) == []  # not enabled
    set_enabled(pair.rule, True, actor=None)
    assert start_due_verifications(now() + timedelta(hours=23)) == []
    (run,) = start_due_verifications(now() + timedelta(hours=25))
    assert (run.mode, run.trigger) == ("verify", "schedule")
    assert start_due_verifications(now() + timedelta(hours=49)) == []  # it goes on
    assert work_until_finished(run).accuracy["equal"] == 2
    assert start_due_verifications(now() + timedelta(hours=23)) == []
    assert len(start_due_verifications(now() + timedelta(hours=49))) == 1
