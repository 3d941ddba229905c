"""A run end to end: plan, review, apply, settle, verify."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from pytest_django import Settings

from apps.connectors.errors import ConfigurationError
from apps.core.clock import now
from apps.core.services import set_platform_paused
from apps.engine.spec import CheckKind, CheckSpec, FieldMappingSpec, MatchFieldSpec, Severity
from apps.ledger.models import Change, Link, Rejection
from apps.ledger.services import edit_rejection
from apps.mappings.services import save_mapping
from apps.rules.selectors import rule_notes
from apps.rules.services import save_rule
from apps.runs.models import Run
from apps.runs.services import (
    cancel_run,
    replay_rejections,
    request_run,
    work,
    work_until_finished,
)
from apps.runs.services.applying import PartitionApply
from apps.runs.services.errors import RunRefused
from apps.sources.models import Dataset, Source
from tests.platforms import CLIENTS, FIELDS, PLAIN_FIELDS, Pair, lines, sqlite_source

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return Pair(tmp_path)


def test_first_run_fills_the_target_and_the_second_plans_nothing(pair: Pair) -> None:
    pair.add_customers(30)
    first = pair.run()
    assert (first.status, first.inserted, first.lane) == ("succeeded", 30, "stream"), lines(first)
    assert pair.clients()[0] == (1, "Name 1", "n1@example.org", 1.5)
    second = pair.run()
    assert (second.status, second.planned, second.unchanged) == ("succeeded", 0, 30)
    assert second.lane == "reconcile"


def test_one_edit_moves_exactly_one_field(pair: Pair) -> None:
    pair.add_customers(30)
    pair.run()
    pair.on_left("UPDATE customers SET name = 'New' WHERE id = 7")
    run = pair.run()
    assert (run.updated, run.inserted, run.deleted) == (1, 0, 0), lines(run)
    (change,) = pair.changes(run)
    assert change.images() == ({"full_name": "Name 7"}, {"full_name": "New"})
    assert change.outcome == Change.Outcome.APPLIED


def test_a_dry_run_writes_nothing_and_shows_everything(pair: Pair) -> None:
    pair.add_customers(3)
    run = pair.run(mode=Run.Mode.DRY_RUN)
    assert (run.status, run.planned_inserts, run.inserted) == ("planned", 3, 0), lines(run)
    assert pair.clients() == []
    assert [change.images()[1]["full_name"] for change in pair.changes(run)] == [
        "Name 1",
        "Name 2",
        "Name 3",
    ]
    assert not Link.objects.exists()


def test_delete_policy_propagates_to_linked_records_only(pair: Pair) -> None:
    pair.on_right("INSERT INTO clients (client_id, full_name) VALUES (900, 'theirs')")
    pair.add_customers(10)
    pair.run()
    pair.on_left("DELETE FROM customers WHERE id = 3")
    run = pair.run()
    assert (run.deleted, run.inserted, run.updated) == (1, 0, 0), lines(run)
    keys = [row[0] for row in pair.clients()]
    assert 3 not in keys
    assert 900 in keys


def test_a_computed_field_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    """At the mapping; and at the run, where the table came to compute it later."""
    computed = CLIENTS.replace("note TEXT DEFAULT 'own'", "note TEXT AS (upper(mail)) STORED")
    fields = (*FIELDS, FieldMappingSpec(right="note", left="name"))
    with pytest.raises(ConfigurationError, match="'note' is computed"):
        Pair(tmp_path, clients_sql=computed, fields=fields)
    pair = Pair(tmp_path, name="later", fields=fields)
    pair.add_customers(2)
    pair.on_right("DROP TABLE clients")
    pair.on_right(computed)
    run = pair.run()
    assert (run.status, run.cause_code) == ("failed", "configuration.invalid"), lines(run)
    assert "'note'" in run.cause


def lead_elsewhere(pair: Pair, folder: Path) -> Dataset:
    """Lead the pair's mapping to a table that looks the same, in another database."""
    other = sqlite_source("elsewhere", folder / "elsewhere.db", CLIENTS).datasets.get()
    pair.mapping.right = other
    save_mapping(pair.mapping, FIELDS, ["client_id"], actor=None)
    return other


def test_links_are_not_taken_for_those_of_another_dataset(pair: Pair, tmp_path: Path) -> None:
    pair.add_customers(10)
    pair.run()
    pair.on_left("DELETE FROM customers WHERE id = 4")
    lead_elsewhere(pair, tmp_path)
    pair.right_path = tmp_path / "elsewhere.db"
    pair.on_right("INSERT INTO clients (client_id, full_name) VALUES (4, 'theirs')")
    run = pair.run()
    assert (run.status, run.cause_code) == ("failed", "run.other_datasets"), lines(run)
    assert [row[1] for row in pair.clients()] == ["theirs"]


def test_a_plan_is_not_applied_to_another_dataset(pair: Pair, tmp_path: Path) -> None:
    pair.add_customers(3)
    run = planned_by_hand(request_run(pair.rule, actor=None))
    lead_elsewhere(pair, tmp_path)
    pair.right_path = tmp_path / "elsewhere.db"
    run = work_until_finished(run)
    assert (run.status, run.cause_code) == ("failed", "run.other_datasets"), lines(run)
    assert pair.clients() == []


def test_a_run_notes_how_many_records_there_are(pair: Pair) -> None:
    pair.add_customers(7)
    assert pair.mapping.left.source.health == Source.Health.OK  # it was discovered
    pair.run()
    datasets = Dataset.objects.order_by("name").values_list("name", "row_count")
    assert list(datasets) == [("clients", 7), ("customers", 7)]


def test_marked_instead_of_deleted(tmp_path: Path) -> None:
    pair = Pair(tmp_path, facts={"on_delete": "mark", "mark_field": "gone"})
    pair.add_customers(10)
    pair.run()
    pair.on_left("DELETE FROM customers WHERE id = 3")
    run = pair.run()
    assert (run.updated, run.deleted) == (1, 0), lines(run)
    assert len(pair.clients()) == 10
    assert pair.run().planned == 0


def test_a_mark_goes_when_its_record_comes_back_if_its_field_is_mapped(tmp_path: Path) -> None:
    facts = {"on_delete": "mark", "mark_field": "gone"}
    unmapped = Pair(tmp_path, name="unmapped", facts=facts)
    assert any("stays marked" in note for note in rule_notes(unmapped.rule))
    pair = Pair(
        tmp_path, facts=facts, fields=(*FIELDS, FieldMappingSpec(right="gone", constant="false"))
    )
    assert rule_notes(pair.rule) == []
    pair.add_customers(4)
    pair.run()
    pair.on_left("DELETE FROM customers WHERE id = 3")
    assert pair.run().updated == 1
    pair.add_customers(1, start=3)
    assert pair.run().updated == 1
    assert pair.run().planned == 0


@pytest.mark.parametrize(
    ("key", "match", "words"),
    [
        (["note"], (), "'note' is not mapped"),
        (["client_id"], (MatchFieldSpec(field="mail"),), "match fields"),
    ],
)
def test_a_one_way_rule_is_refused_what_it_would_not_heed(
    pair: Pair, key: list[str], match: tuple[MatchFieldSpec, ...], words: str
) -> None:
    save_mapping(pair.mapping, FIELDS, key, match, actor=None)
    with pytest.raises(ConfigurationError, match=words):
        pair.run()


def test_a_text_is_no_cursor(tmp_path: Path) -> None:
    """'10' comes before '9': its record would be passed over."""
    with pytest.raises(ConfigurationError, match="'name' is of type text"):
        Pair(tmp_path, facts={"delta": "cursor", "cursor_field": "name"})


def test_an_empty_source_is_refused(pair: Pair) -> None:
    pair.add_customers(10)
    pair.run()
    pair.on_left("DELETE FROM customers")
    run = pair.run()
    assert (run.status, run.cause_code) == ("refused", "guard.empty_source"), lines(run)
    assert len(pair.clients()) == 10
    assert run.remedy


def test_too_many_deletes_are_refused(pair: Pair) -> None:
    pair.add_customers(10)
    pair.run()
    pair.on_left("DELETE FROM customers WHERE id > 2")
    run = pair.run()
    assert (run.status, run.cause_code) == ("refused", "guard.stopped"), lines(run)
    assert len(pair.clients()) == 10


def test_bad_records_are_rejected_and_the_others_flow(pair: Pair) -> None:
    pair.add_customers(10)
    pair.on_left("UPDATE customers SET name = ? WHERE id = 4", "x" * 60)
    pair.on_left("UPDATE customers SET name = NULL WHERE id = 5")
    pair.on_left("UPDATE customers SET email = 'N1@example.org' WHERE id = 6")
    run = pair.run()
    assert (run.status, run.inserted, run.rejected) == ("partial", 7, 3), lines(run)
    codes = {r.left_key: (r.stage, r.code) for r in pair.open_rejections()}
    assert codes == {
        '["4"]': ("check", "record.too_long"),
        '["5"]': ("check", "record.required"),
        '["6"]': ("write", "record.duplicate"),
    }


def test_a_rejection_that_is_corrected_resolves_itself(pair: Pair) -> None:
    pair.add_customers(3)
    pair.on_left("UPDATE customers SET name = NULL WHERE id = 2")
    pair.run()
    pair.on_left("UPDATE customers SET name = 'B' WHERE id = 2")
    run = pair.run()
    assert run.status == "succeeded", lines(run)
    rejection = Rejection.objects.get()
    assert (rejection.state, rejection.resolved_run_id) == ("resolved", run.pk)


def test_a_rejection_is_edited_and_replayed(pair: Pair) -> None:
    pair.add_customers(3)
    pair.on_left("UPDATE customers SET name = NULL WHERE id = 2")
    pair.run()
    (rejection,) = pair.open_rejections()
    record = rejection.record()
    assert record is not None
    edit_rejection(rejection, {**record, "name": "Mended"}, actor=None)
    (run,) = replay_rejections([rejection], actor=None)
    run = work_until_finished(run)
    assert (run.status, run.inserted) == ("succeeded", 1), lines(run)
    assert pair.clients()[1][1] == "Mended"
    rejection.refresh_from_db()
    assert rejection.state == "resolved"


def test_a_rejected_record_never_counts_as_deleted(pair: Pair) -> None:
    pair.add_customers(5)
    pair.run()
    pair.on_left("UPDATE customers SET name = NULL WHERE id = 2")
    run = pair.run()
    assert (run.deleted, run.rejected, run.status) == (0, 1, "partial"), lines(run)
    assert len(pair.clients()) == 5


def planned_by_hand(run: Run) -> Run:
    """Work a run until its plan is about to be applied."""
    while run.status != "applying":
        for part in run.partitions.filter(state="to_plan"):
            work(part.pk)
        run.refresh_from_db()
    return run


def test_stale_changes_are_refused_and_planned_again_in_the_same_run(pair: Pair) -> None:
    pair.add_customers(5)
    pair.run()
    pair.on_left("UPDATE customers SET name = 'ours' WHERE id < 3")
    run = planned_by_hand(request_run(pair.rule, actor=None))
    pair.on_right("UPDATE clients SET full_name = 'theirs' WHERE client_id = 2")
    run = work_until_finished(run)
    assert (run.updated, run.stale, run.replanned) == (2, 0, 1), lines(run)
    assert run.status == "succeeded", lines(run)
    assert pair.clients()[1][1] == "ours"
    outcomes = {(c.right_key, c.outcome) for c in pair.changes(run)}
    assert outcomes == {('["1"]', "applied"), ('["2"]', "stale"), ('["2"]', "applied")}
    assert pair.run().planned == 0


def test_what_moves_in_every_round_is_left_to_the_next_run(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair.add_customers(2)
    pair.run()
    pair.on_left("UPDATE customers SET name = 'ours' WHERE id = 1")
    real, times = PartitionApply.execute, []

    def somebody_is_faster(self: PartitionApply) -> None:
        times.append(1)
        sql = "UPDATE clients SET full_name = ? WHERE client_id = 1"
        pair.on_right(sql, f"theirs {len(times)}")
        real(self)

    monkeypatch.setattr(PartitionApply, "execute", somebody_is_faster)
    run = pair.run()
    assert (run.stale, run.replanned, run.status) == (1, 3, "partial"), lines(run)
    monkeypatch.undo()
    again = pair.run()
    assert (again.updated, again.status) == (1, "succeeded"), lines(again)


def test_single_records_can_be_synced(pair: Pair) -> None:
    pair.add_customers(6)
    pair.run()
    pair.on_left("UPDATE customers SET name = 'new'")
    pair.on_left("DELETE FROM customers WHERE id IN (4, 5)")
    keys = [('["1"]', ""), ("", '["2"]'), ('["4"]', "")]
    run = pair.run(keys=keys)
    assert (run.updated, run.deleted, run.planned) == (2, 1, 3), lines(run)
    assert [row[1] for row in pair.clients()] == ["new", "new", "Name 3", "Name 5", "Name 6"]


def test_cancel_ends_a_run_before_it_writes(pair: Pair) -> None:
    pair.add_customers(5)
    run = request_run(pair.rule, actor=None)
    cancel_run(run, actor=None)
    run = work_until_finished(run)
    assert run.status == "cancelled"
    assert pair.clients() == []


def test_only_one_run_of_a_rule_at_a_time(pair: Pair) -> None:
    pair.add_customers(5)
    run = request_run(pair.rule, actor=None)
    with pytest.raises(RunRefused, match="goes on already"):
        request_run(pair.rule, actor=None)
    work_until_finished(run)
    assert pair.run().status == "succeeded"


@pytest.mark.parametrize("what", ["rule", "source", "everything"])
def test_nothing_starts_while_paused(pair: Pair, what: str) -> None:
    pair.add_customers(1)
    if what == "rule":
        pair.rule.paused = True
        pair.rule.save()
    elif what == "source":
        pair.mapping.left.source.paused = True
        pair.mapping.left.source.save()
    else:
        set_platform_paused(True, actor=None, reason="maintenance")
    with pytest.raises(RunRefused, match="paused"):
        request_run(pair.rule, actor=None)


def test_a_target_column_that_was_dropped_fails_with_cause(pair: Pair) -> None:
    pair.add_customers(3)
    pair.run()
    pair.on_right("ALTER TABLE clients DROP COLUMN balance")
    run = pair.run()
    assert (run.status, run.cause_code) == ("failed", "field.missing"), lines(run)
    assert "balance" in run.cause
    assert run.remedy


def test_checks_reject_warn_and_stop(pair: Pair) -> None:
    pair.add_customers(5)
    checks = (
        CheckSpec(name="rich", kind=CheckKind.RANGE, field="balance", minimum="2"),
        CheckSpec(
            name="round",
            kind=CheckKind.EXPRESSION,
            expression="balance = floor(balance)",
            severity=Severity.WARN,
        ),
    )
    save_rule(pair.rule, checks, actor=None)
    run = pair.run()
    assert (run.inserted, run.rejected, run.status) == (4, 1, "partial"), lines(run)
    assert run.warnings >= 4
    stop = CheckSpec(name="no more", kind=CheckKind.REQUIRED, field="mail", severity=Severity.STOP)
    save_rule(pair.rule, (*checks, stop), actor=None)
    pair.on_left("UPDATE customers SET email = NULL WHERE id = 3")
    stopped = pair.run()
    assert (stopped.status, stopped.cause_code) == ("failed", "check.stopped"), lines(stopped)


def test_a_record_that_leaves_the_filter(tmp_path: Path) -> None:
    facts = {"filter": "balance < 5", "on_leave": "delete", "max_deletes_percent": None}
    pair = Pair(tmp_path, facts=facts)
    pair.add_customers(6)
    first = pair.run()
    assert (first.inserted, first.left_out) == (4, 2), lines(first)
    pair.on_left("UPDATE customers SET balance = 9 WHERE id = 1")
    run = pair.run()
    assert run.deleted == 1, lines(run)
    assert [row[0] for row in pair.clients()] == [2, 3, 4]


class TestCursor:
    @pytest.fixture
    def pair(self, tmp_path: Path) -> Pair:
        pair = Pair(tmp_path, facts={"delta": "cursor", "cursor_field": "changed"})
        pair.add_customers(20)
        assert pair.run().inserted == 20
        return pair

    def test_reads_only_what_changed(self, pair: Pair) -> None:
        pair.on_left(
            "UPDATE customers SET name = 'x', changed = '2026-02-02 00:00:00' WHERE id = 5"
        )
        run = pair.run()
        assert (run.updated, run.planned) == (1, 1), lines(run)
        assert run.read < 20
        assert pair.rule.checkpoint.cursor == run.cursor_to

    def test_deletes_are_found_by_the_sweep(self, pair: Pair) -> None:
        pair.on_left("DELETE FROM customers WHERE id = 5")
        assert pair.run().deleted == 0
        run = pair.run(sweep=True)
        assert (run.deleted, run.status) == (1, "succeeded"), lines(run)
        (change,) = pair.changes(run)
        before, _ = change.images()
        assert before is not None
        assert before["full_name"] == "Name 5"

    def test_late_commits_behind_the_cursor_are_found_by_the_sweep(self, pair: Pair) -> None:
        pair.on_left(
            "INSERT INTO customers VALUES (77, 'late', 'l@x.org', 1, '2020-01-01 00:00:00')"
        )
        assert pair.run().inserted == 0
        assert pair.run(sweep=True).inserted == 1

    def test_a_sweep_falls_due(self, pair: Pair) -> None:
        pair.on_left("DELETE FROM customers WHERE id = 5")
        checkpoint = pair.rule.checkpoint
        checkpoint.swept_at = now() - timedelta(minutes=pair.rule.sweep_minutes + 1)
        checkpoint.save()
        run = pair.run()
        assert (run.sweep, run.deleted) == (True, 1), lines(run)

    def test_an_empty_source_is_refused_by_the_sweep(self, pair: Pair) -> None:
        pair.on_left("DELETE FROM customers")
        run = pair.run(sweep=True)
        assert (run.status, run.cause_code) == ("failed", "guard.empty_source"), lines(run)

    def test_a_change_of_the_rule_compares_everything(self, pair: Pair) -> None:
        fields = [*FIELDS[:1], FieldMappingSpec(right="full_name", to_right="upper(trim(name))")]
        save_mapping(pair.mapping, [*fields, *FIELDS[2:]], ["client_id"], actor=None)
        run = pair.run()
        assert run.updated == 20, lines(run)

    def test_null_cursors_are_always_read(self, pair: Pair) -> None:
        pair.on_left("INSERT INTO customers VALUES (78, 'no cursor', 'n@x.org', 1, NULL)")
        assert pair.run().inserted == 1


def test_the_before_image_of_a_delete_holds_the_targets_own_fields_too(pair: Pair) -> None:
    pair.add_customers(10)
    pair.run()
    pair.on_right("UPDATE clients SET note = 'hand made' WHERE client_id = 3")
    pair.on_left("DELETE FROM customers WHERE id = 3")
    run = pair.run()
    assert run.deleted == 1, lines(run)
    (change,) = pair.changes(run)
    before, _ = change.images()
    assert before is not None
    assert before["note"] == "hand made"


def test_a_changed_match_key_leaves_one_link_per_record(pair: Pair) -> None:
    pair.add_customers(4)
    pair.run()
    save_mapping(pair.mapping, FIELDS, ["full_name"], actor=None)
    for _ in range(2):
        run = pair.run()
        assert (run.status, run.planned) == ("succeeded", 0), lines(run)
    assert Link.objects.count() == 4


def test_key_ranges_are_not_used_while_links_cross_them(tmp_path: Path, settings: Settings) -> None:
    shifted = FieldMappingSpec(right="client_id", to_right="id + 100")
    facts = {"max_deletes_percent": None}
    pair = Pair(tmp_path, fields=(shifted, *PLAIN_FIELDS[1:]), facts=facts)
    pair.add_customers(5)
    pair.add_customers(5, start=201)
    pair.run()
    save_mapping(pair.mapping, PLAIN_FIELDS, ["client_id"], actor=None)
    pair.on_left("UPDATE customers SET name = NULL WHERE id = 2")
    settings.LOCKSTEP = {**settings.LOCKSTEP, "PARTITION_ROWS": 5}
    run = pair.run()
    assert (run.deleted, run.rejected) == (0, 1), lines(run)


def test_a_replay_takes_the_source_as_it_is_now(pair: Pair) -> None:
    pair.add_customers(3)
    pair.on_left("UPDATE customers SET name = NULL WHERE id = 2")
    pair.run()
    (rejection,) = pair.open_rejections()
    record = rejection.record()
    assert record is not None
    edit_rejection(rejection, {**record, "name": "Mended"}, actor=None)
    pair.on_left("UPDATE customers SET email = 'Newer@Example.org' WHERE id = 2")
    (run,) = replay_rejections([rejection], actor=None)
    work_until_finished(run)
    assert pair.clients()[1][1:3] == ("Mended", "newer@example.org"), lines(run)
    rejection.refresh_from_db()
    with pytest.raises(RunRefused, match="none of these"):
        replay_rejections([rejection], actor=None)
