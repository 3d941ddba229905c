"""The new-sync wizard, from two empty hands to an enabled rule."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from apps.rules.models import Rule, SyncDraft
from apps.runs.models import Run
from apps.runs.services import work_until_finished
from apps.sources.models import Source
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


def test_suggestions_stay_when_a_required_field_lacks_a_value(walk: Walk):
    left, right = walk.left.datasets.get(), walk.right.datasets.get()
    walk.step("sources", left_source=str(walk.left.pk), right_source=str(walk.right.pk))
    walk.step("datasets", left=str(left.pk), right=str(right.pk))
    walk.step("key", **{"key-0-left": "id", "key-0-right": "client_id"})
    suggested = walk.client.get(walk.url("step", "mapping")).context["editor"].suggestions
    page = walk.step("mapping", **{"map-0-source": "field:id", "map-0-key": "1"})
    assert "Required fields without a value" in page.context["problems"][0]
    assert page.context["editor"].suggestions == suggested > 0


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
