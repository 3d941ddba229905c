"""Random histories of edits, runs and crashes keep what DESIGN promises of one-way sync."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from apps.ledger.models import Change, Link
from apps.runs.models import Run, RunLog
from apps.runs.services import request_run, work_until_finished
from tests.invariants.crashes import Crash, crash_at, forget_leases
from tests.invariants.generating import generated
from tests.invariants.playing import Played
from tests.platforms import PLAIN_FIELDS, Pair, lines

pytestmark = pytest.mark.django_db(transaction=True)
_numbers = itertools.count()

KEYS = st.integers(1, 8)
NAMES = st.sampled_from(["Ann", "Bob", "Çelik", "李", "x" * 41, None])
EDIT = st.tuples(st.just("edit"), KEYS, NAMES)
DELETE = st.tuples(st.just("delete"), KEYS)
THEIRS = st.tuples(st.just("theirs"), KEYS, st.sampled_from(["hand made", "other"]))
RUN = st.tuples(st.just("run"), st.integers(0, 14))
HISTORY = st.lists(st.one_of(EDIT, EDIT, DELETE, THEIRS, RUN), min_size=3, max_size=14)


def play(pair: Pair, step: tuple[Any, ...]) -> None:
    match step:
        case ("edit", key, name):
            sql = "INSERT INTO customers (id, name, balance) VALUES (?, ?, 1.5) "
            pair.on_left(sql + "ON CONFLICT (id) DO UPDATE SET name = excluded.name", key, name)
        case ("delete", key):
            pair.on_left("DELETE FROM customers WHERE id = ?", key)
        case ("theirs", key, name):
            pair.on_right("UPDATE clients SET full_name = ? WHERE client_id = ?", name, key)
        case ("run", crash):
            run_through(pair, crash)


def run_through(pair: Pair, crash: int) -> Run:
    """One run; when it crashes, leases run out and another worker takes over."""
    run = request_run(pair.rule, actor=None)
    try:
        with crash_at(crash):
            return work_until_finished(run)
    except Crash:
        forget_leases()
        return work_until_finished(run)


def expected(pair: Pair) -> dict[int, str]:
    """What the target must hold of the left records that can be written."""
    import sqlite3

    with sqlite3.connect(pair.left_path) as database:
        rows = database.execute("SELECT id, name FROM customers")
        return {key: name for key, name in rows if name and len(name) <= 40}


@generated(usual=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(history=HISTORY)
def test_every_history_converges_and_loses_nothing(
    tmp_path: Path, played: Played, history: list[Any]
) -> None:
    played.add(1, at_least=1)
    facts = {"refuse_empty_source": False, "max_deletes_percent": None}
    pair = Pair(tmp_path, name=f"pair {next(_numbers)}", fields=PLAIN_FIELDS, facts=facts)
    pair.on_right("INSERT INTO clients (client_id, full_name) VALUES (900, 'never ours')")
    for step in history:
        play(pair, step)
    last = run_through(pair, 0)
    unusable = last.status == "refused" and last.cause_code == "run.nothing_usable"
    assert last.status in ("succeeded", "partial") or unusable, lines(last)
    if unusable:
        return
    target = {row[0]: row[1] for row in pair.clients()}
    assert target.pop(900) == "never ours"
    rejected = {r.left_key for r in pair.open_rejections()}
    for key, name in expected(pair).items():
        assert target[key] == name, lines(last)
    for key in target.keys() - expected(pair).keys():
        assert f'["{key}"]' in rejected, lines(last)
    again = run_through(pair, 0)
    assert again.planned == 0 or again.status == "refused", lines(again)
    assert_history_is_whole(pair)


def assert_history_is_whole(pair: Pair) -> None:
    """Every finished run's changes have an outcome; links point at records that are there."""
    for run in Run.objects.filter(rule=pair.rule, status__in=("succeeded", "partial")):
        assert not Change.objects.filter(run_id=run.pk, outcome="planned").exists()
        assert not run.log.filter(level=RunLog.Level.ERROR).exists(), lines(run)
    keys = {f'["{row[0]}"]' for row in pair.clients()}
    linked = set(Link.objects.filter(rule_id=pair.rule.pk).values_list("right_key", flat=True))
    assert linked <= keys
    assert '["900"]' not in linked
