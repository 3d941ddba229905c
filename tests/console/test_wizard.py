"""The new-sync wizard, from two empty hands to an enabled rule."""

from __future__ import annotations

import html
import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from apps.connectors.sqlite import SqliteConnector
from apps.console.wizard.draft import materialise
from apps.rules.models import Rule, SyncDraft
from apps.runs.models import Run
from apps.runs.services import work_until_finished
from apps.sources.models import Source
from apps.sources.services import save_source
from tests.people import administrator, person, signed_in
from tests.platforms import CLIENTS, CUSTOMERS, Pair, sqlite_source

pytestmark = pytest.mark.django_db(transaction=True)
POLICIES = {
    "name": "Customers to clients",
    "delta": "full",
    "cursor_lag_seconds": "0",
    "sweep_minutes": "1440",
    "on_leave": "keep",
    "on_delete": "propagate",
    "refuse_empty_source": "on",
    "approval": "never",
    "approval_hours": "72",
    "checks-TOTAL_FORMS": "1",
    "checks-INITIAL_FORMS": "0",
    "checks-0-name": "",
}


class Walk:
    """Somebody who goes through the wizard."""

    def __init__(self, folder: Path) -> None:
        insert = (
            "INSERT INTO customers VALUES (1, 'Ann', 'a@x.org', 1, NULL), (2, 'Bo', NULL, 2, NULL)"
        )
        self.left = sqlite_source("left", folder / "left.db", CUSTOMERS, insert)
        self.right = sqlite_source("right", folder / "right.db", CLIENTS)
        self.client: Client = signed_in(administrator())
        self.client.post(reverse("admin:new_sync_start"))
        self.draft = SyncDraft.objects.get()

    def url(self, name: str, *args: str) -> str:
        return reverse(f"admin:new_sync_{name}", args=(self.draft.pk, *args))

    def step(self, step: str, **data: str) -> Any:
        return self.client.post(self.url("step", step), data)

    def to_policies(self) -> None:
        self.step("sources", left_source=str(self.left.pk), right_source=str(self.right.pk))
        left, right = self.left.datasets.get(), self.right.datasets.get()
        self.step("datasets", left=str(left.pk), right=str(right.pk))
        self.step("key", **{"key-0-left": "id", "key-0-right": "client_id"})
        fields = ("client_id", "full_name", "mail", "balance")
        sources = ("field:id", "field:name", "field:email", "field:balance")
        rows = {f"map-{n}-source": source for n, source in enumerate(sources)}
        assert [f.name for f in right.fields.all()][:4] == list(fields)
        self.step("mapping", **rows, **{"map-0-key": "1"})
        self.step("policies", **POLICIES)

    def dry_run(self) -> Run:
        self.client.post(self.url("dry_run"))
        run = Run.objects.latest("created_at")
        return work_until_finished(run)


@pytest.fixture
def walk(tmp_path: Path) -> Walk:
    return Walk(tmp_path)


def test_all_the_way_to_an_enabled_rule(walk: Walk):
    walk.to_policies()
    assert walk.client.get(walk.url("step", "dry-run")).status_code == 200
    run = walk.dry_run()
    assert "See every change" in walk.client.get(walk.url("step", "dry-run")).content.decode()
    assert (run.status, run.planned_inserts, run.mode) == ("planned", 2, "dry_run")
    page = walk.client.get(walk.url("step", "enable"))
    assert page.context["proven"]
    answer = walk.step("enable", schedule_kind="every", every_minutes="10", time_zone="UTC")
    rule = Rule.objects.get()
    assert answer["Location"] == reverse("admin:rules_rule_change", args=(rule.pk,))
    assert (rule.enabled, rule.name) == (True, "Customers to clients")
    assert not SyncDraft.objects.exists()


def test_a_source_that_nobody_has_looked_into_is_discovered_when_it_is_chosen(
    walk: Walk, tmp_path: Path
):
    other = save_source(
        Source(name="new", connector="sqlite"), {"path": str(tmp_path / "left.db")}, actor=None
    )
    gone = save_source(
        Source(name="gone", connector="sqlite"), {"path": str(tmp_path / "gone.db")}, actor=None
    )
    walk.step("sources", left_source=str(other.pk), right_source=str(gone.pk))
    page = walk.client.get(walk.url("step", "datasets"))
    assert [dataset.name for dataset in page.context["sides"][0]["datasets"]] == ["customers"]
    (message,) = page.context["messages"]
    assert str(message).startswith("gone: ")


def test_suggestions_stay_when_a_required_field_lacks_a_value(walk: Walk):
    left, right = walk.left.datasets.get(), walk.right.datasets.get()
    walk.step("sources", left_source=str(walk.left.pk), right_source=str(walk.right.pk))
    walk.step("datasets", left=str(left.pk), right=str(right.pk))
    walk.step("key", **{"key-0-left": "id", "key-0-right": "client_id"})
    suggested = walk.client.get(walk.url("step", "mapping")).context["editor"].suggestions
    page = walk.step("mapping", **{"map-0-source": "field:id", "map-0-key": "1"})
    assert "Required fields without a value" in page.context["problems"][0]
    assert page.context["editor"].suggestions == suggested > 0


def test_the_given_name_follows_the_datasets_until_somebody_names_the_sync(walk: Walk):
    left, right = walk.left.datasets.get(), walk.right.datasets.get()
    walk.step("sources", left_source=str(walk.left.pk), right_source=str(walk.right.pk))
    walk.step("datasets", left=str(left.pk), right=str(right.pk))
    assert SyncDraft.objects.get().name == "customers → right clients"
    walk.step("datasets", left=str(left.pk), right="create", new_name="copies")
    assert SyncDraft.objects.get().name == "customers → right copies"
    SyncDraft.objects.update(data={**SyncDraft.objects.get().data, "name": "Mine"}, name="Mine")
    walk.step("datasets", left=str(left.pk), right=str(right.pk))
    assert SyncDraft.objects.get().name == "Mine"


BOTH_WAYS = {
    **POLICIES,
    "approval": "first",
    "policy": "ask",
    "first_contact": "left",
    "edit_delete": "edit",
    "on_right_delete": "approve",
    "left_mark_value": "true",
    "minimum_gap_seconds": "1",
    "tie": "ask",
    "policies-TOTAL_FORMS": "3",
    "policies-INITIAL_FORMS": "3",
    "policies-0-field": "full_name",
    "policies-0-policy": "",
    "policies-1-field": "mail",
    "policies-1-policy": "expression",
    "policies-1-parameter": "coalesce(right_value, left_value)",
    "policies-2-field": "balance",
    "policies-2-policy": "counter",
}


def to_both_ways(walk: Walk) -> None:
    """Up to the policies: the right side assigns its key, and records find each other by mail."""
    sources = {"left_source": str(walk.left.pk), "right_source": str(walk.right.pk)}
    walk.step("sources", **sources, direction="two_way")
    left, right = walk.left.datasets.get(), walk.right.datasets.get()
    walk.step("datasets", left=str(left.pk), right=str(right.pk))
    match = {"match-0-left": "email", "match-0-field": "mail", "match-0-email": "1"}
    walk.step("key", **{"key-0-left": "", "key-0-right": "client_id"}, **match)
    sources = ("", "field:name", "field:email", "field:balance")
    rows = {f"map-{n}-source": source for n, source in enumerate(sources)}
    kept = {"map-0-key": "1", "both_ways": "1", "match-0-field": "mail", "match-0-email": "1"}
    walk.step("mapping", **rows, **kept)
    walk.draft.refresh_from_db()


def test_a_sync_both_ways_says_who_wins_field_by_field(walk: Walk):
    to_both_ways(walk)
    page = walk.client.get(walk.url("step", "policies"))
    lines = page.context["policy_lines"]
    assert [line.right for line in lines] == ["full_name", "mail", "balance"]
    offered = [{value for value, _ in line.fields["policy"].choices} for line in lines]
    assert ["counter" in values for values in offered] == [False, False, True]
    assert page.context["form"]["approval"].value() == "first"

    walk.step("policies", **BOTH_WAYS)
    walk.draft.refresh_from_db()
    rule = materialise(walk.draft, walk.draft.owner)
    version = rule.current_version
    spec, mapping = version.spec(), version.mapping_version.spec()
    assert (spec.direction, spec.approval) == ("two_way", "first")
    assert {item.field: item.policy.value for item in spec.two_way.fields} == {
        "mail": "expression",
        "balance": "counter",
    }
    assert (spec.two_way.first_contact, spec.two_way.on_right_delete) == ("left", "approve")
    assert mapping.key == ("client_id",)
    assert [(item.field, item.normalise) for item in mapping.match] == [("mail", ("email",))]
    assert "client_id" not in {field.right for field in mapping.fields}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"policies-0-policy": "counter"}, "Select a valid choice"),
        ({"policies-1-parameter": "nothing_known"}, "nothing_known"),
        ({"policy": "newest"}, "left_modified and right_modified"),
        ({"policy": "text", "policies-2-policy": ""}, "needs a text, and the field is of type"),
        ({"on_right_delete": "mark"}, "name the field that it sets"),
    ],
)
def test_a_policy_that_cannot_work_is_said_in_its_step(walk: Walk, changes, says):
    to_both_ways(walk)
    answer = walk.step("policies", **{**BOTH_WAYS, **changes})
    assert answer.status_code == 200
    assert says in html.unescape(answer.content.decode())


MATCHED = {"match-0-left": "email", "match-0-field": "mail"}


@pytest.mark.parametrize(
    ("direction", "key", "says"),
    [
        ("two_way", {"key-0-left": "", "key-0-right": "mail"}, "the right side does not assign it"),
        ("left_to_right", {"key-0-left": "", "key-0-right": "client_id"}, "goes by the key"),
        ("left_to_right", {"key-0-left": "id", "key-0-right": "client_id", **MATCHED}, "both ways"),
    ],
)
def test_a_key_that_cannot_work_is_said_in_its_step(
    walk: Walk, direction: str, key: dict[str, str], says: str
):
    sources = {"left_source": str(walk.left.pk), "right_source": str(walk.right.pk)}
    walk.step("sources", **sources, direction=direction)
    left, right = walk.left.datasets.get(), walk.right.datasets.get()
    walk.step("datasets", left=str(left.pk), right=str(right.pk))
    answer = walk.step("key", **key)
    assert answer.status_code == 200
    assert says in html.unescape(answer.content.decode())


def test_a_read_only_source_is_no_side_of_a_sync_both_ways(walk: Walk, monkeypatch):
    read_only = replace(SqliteConnector.capabilities, write=False)
    monkeypatch.setattr(SqliteConnector, "capabilities", read_only)
    sources = {"left_source": str(walk.left.pk), "right_source": str(walk.right.pk)}
    answer = walk.step("sources", **sources, direction="two_way")
    assert "left can only be read" in answer.content.decode()


def test_nothing_is_enabled_without_a_dry_run(walk: Walk):
    walk.to_policies()
    answer = walk.step("enable", schedule_kind="every", every_minutes="10", time_zone="UTC")
    assert answer.status_code == 200
    assert "dry run of this very version" in answer.content.decode()
    assert not Rule.objects.filter(enabled=True).exists()


def test_a_change_after_the_dry_run_asks_for_another_one(walk: Walk):
    walk.to_policies()
    walk.dry_run()
    walk.step("policies", **{**POLICIES, "on_delete": "ignore"})
    answer = walk.step("enable", schedule_kind="every", every_minutes="10", time_zone="UTC")
    assert answer.status_code == 200
    assert not Rule.objects.get().enabled
    walk.dry_run()
    walk.step("enable", schedule_kind="every", every_minutes="10", time_zone="UTC")
    assert Rule.objects.get().enabled
    assert Rule.objects.get().current_version.spec().on_delete == "ignore"


def test_a_draft_is_left_and_resumed(walk: Walk):
    walk.to_policies()
    page = walk.client.get(reverse("admin:new_sync")).content.decode()
    assert "Customers to clients" in page
    assert walk.url("step", "dry-run") in page
    mapping = walk.client.get(walk.url("step", "mapping"))
    assert mapping.context["editor"].row("mail").left == "email"


def test_a_later_step_does_not_open_before_its_time(walk: Walk):
    answer = walk.client.get(walk.url("step", "policies"))
    assert answer["Location"] == walk.url("step", "sources")


def test_the_key_check_counts_and_shows_examples(walk: Walk, tmp_path: Path):
    pair = Pair(tmp_path, name="twins")
    pair.add_customers(4)
    pair.on_left("UPDATE customers SET name = 'Same' WHERE id < 4")
    left, right = pair.mapping.left, pair.mapping.right
    walk.step("sources", left_source=str(left.source_id), right_source=str(right.source_id))
    walk.step("datasets", left=str(left.pk), right=str(right.pk))
    keys = {"key-0-left": "name", "key-0-right": "full_name"}
    page = walk.client.post(walk.url("check_key"), keys)
    report = page.context["reports"][0]
    assert (report.total, report.distinct, report.repeated) == (4, 2, 1)
    assert report.examples == (("Same", 3),)
    keys = {"key-0-left": "id", "key-0-right": "client_id"}
    assert walk.client.post(walk.url("check_key"), keys).context["reports"][0].is_unique


def test_the_key_check_lists_whom_several_records_could_be(walk: Walk):
    sources = {"left_source": str(walk.left.pk), "right_source": str(walk.right.pk)}
    walk.step("sources", **sources, direction="two_way")
    left, right = walk.left.datasets.get(), walk.right.datasets.get()
    walk.step("datasets", left=str(left.pk), right=str(right.pk))
    with sqlite3.connect(walk.right.settings["path"]) as database:
        database.execute(
            "INSERT INTO clients (client_id, full_name, mail) VALUES (7, 'Ann', 'A@x.org'), "
            "(8, 'Ann', ' a@X.org')"
        )
    chosen = {
        "key-0-right": "client_id",
        "match-0-left": "email",
        "match-0-field": "mail",
        "match-0-email": "1",
    }
    page = walk.client.post(walk.url("check_key"), chosen)
    report = page.context["matches"]
    assert (report.pairs, report.ambiguous, report.left.without_value) == (0, 1, 1)
    assert report.examples[0].right_keys in (("7", "8"), ("8", "7"))
    assert "Nothing is written for these" in page.content.decode()


def test_the_right_dataset_is_created_on_the_way(walk: Walk):
    walk.step("sources", left_source=str(walk.left.pk), right_source=str(walk.right.pk))
    left = walk.left.datasets.get()
    walk.step("datasets", left=str(left.pk), right="create", new_name="copies")
    walk.draft.refresh_from_db()
    assert walk.draft.data["right"] == str(walk.right.datasets.get(name="copies").pk)


def test_a_source_is_added_without_leaving(walk: Walk, tmp_path: Path):
    values = {
        "connector": "sqlite",
        "name": "third",
        "criticality": "normal",
        "setting_path": walk.left.settings["path"],
    }
    answer = walk.client.post(walk.url("add_source"), values)
    assert answer["HX-Refresh"] == "true"
    assert "third" in walk.client.get(walk.url("step", "sources")).content.decode()


def test_who_may_not_discover_still_adds_a_source(walk: Walk):
    builder = person("builder", "rules.add_rule", "mappings.add_mapping", "sources.add_source")
    SyncDraft.objects.update(owner=builder)
    values = {
        "connector": "sqlite",
        "name": "third",
        "criticality": "normal",
        "setting_path": walk.left.settings["path"],
    }
    answer = signed_in(builder).post(walk.url("add_source"), values)
    assert answer["HX-Refresh"] == "true"
    assert Source.objects.get(name="third").discovered_at is None


def test_the_next_five_runs_follow_what_is_typed(walk: Walk):
    walk.to_policies()
    values = {"schedule_kind": "cron", "cron": "0 6 * * 1", "time_zone": "Europe/Berlin"}
    assert len(walk.client.post(walk.url("due_times"), values).context["due_times"]) == 5
    wrong = walk.client.post(walk.url("due_times"), {**values, "cron": "often"})
    assert "no cron expression" in wrong.content.decode()
