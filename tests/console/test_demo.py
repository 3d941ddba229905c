"""The demo: always the same, real work with something to show on every screen, removed for good."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from django.core.exceptions import PermissionDenied

from apps.accounts.models import User
from apps.console import services, startup
from apps.console.demo import platforms
from apps.ledger.models import Change, Conflict, Link, Rejection
from apps.mappings.models import LookupTable, Mapping, MappingVersion
from apps.rules.configuration import apply, read_file
from apps.rules.models import Rule
from apps.runs.models import Run, RunStatus
from apps.runs.services import request_run, work_until_finished
from apps.sources.models import Dataset, Source

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _own_data_folder(settings: Any, tmp_path: Path) -> None:
    settings.DATA_DIR = tmp_path


@pytest.fixture
def demo() -> None:
    services.load_demo()


def warehouse(sql: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(services.demo_folder() / "warehouse.sqlite3")) as database:
        return list(database.execute(sql))


def test_the_platforms_hold_the_same_values_each_time(tmp_path: Path) -> None:
    contents = []
    for name in ("one", "two"):
        platforms.create(tmp_path / name)
        files = sorted(path for path in (tmp_path / name).rglob("*") if path.is_file())
        contents.append({path.name: _content(path) for path in files})

    assert contents[0] == contents[1]


def _content(path: Path) -> object:
    if path.suffix != ".sqlite3":
        return path.read_bytes()
    with closing(sqlite3.connect(path)) as database:
        return list(database.iterdump())


def test_loading_marks_everything_as_demo_and_happens_once(demo: None) -> None:
    services.load_demo()

    assert services.demo_is_loaded()
    assert set(Source.objects.values_list("is_demo", flat=True)) == {True}
    assert set(Rule.objects.values_list("is_demo", flat=True)) == {True}
    assert Rule.objects.filter(enabled=True, delta="cursor", every_minutes=5).count() == 1


def test_the_configuration_is_idempotent(demo: None) -> None:
    variables = {"DEMO_FOLDER": str(services.demo_folder().resolve())}

    assert apply(read_file(services.CONFIGURATION), actor=None, variables=variables).is_empty


def test_the_first_runs_show_every_kind_of_outcome(demo: None) -> None:
    services.run_demo_once()
    dry = Run.objects.get(mode=Run.Mode.DRY_RUN)
    work_until_finished(dry)

    runs = Run.objects.filter(mode=Run.Mode.APPLY)
    assert set(runs.values_list("status", flat=True)) == {
        RunStatus.PARTIAL,
        RunStatus.SUCCEEDED,
        RunStatus.WAITING,
    }
    assert set(Rejection.objects.values_list("code", flat=True)) >= {
        "record.check_failed",
        "record.duplicate",
        "record.extra_columns",
        "record.invalid",
        "record.malformed",
        "record.missing_columns",
        "record.required",
        "record.too_long",
    }
    assert sum(runs.values_list("warnings", flat=True)) > 0
    dry.refresh_from_db()
    assert (dry.planned_inserts, dry.planned_updates, dry.planned_deletes) == (3, 5, 1)
    assert warehouse("SELECT count(*) FROM fact_order WHERE order_no LIKE 'LO-%'") == [(3,)]
    assert warehouse("SELECT count(*) FROM dim_product WHERE title = 'to be named'") == [(0,)]


def test_contacts_edited_on_both_sides_merge_or_wait(demo: None) -> None:
    services.run_demo_once()

    rule = Rule.objects.get(name="Demo contacts")
    first, second, third = rule.runs.order_by("created_at")
    assert (first.status, second.status) == (RunStatus.SUCCEEDED, RunStatus.SUCCEEDED)
    merged = Change.objects.filter(run_id=second.pk, cause=Change.Cause.MERGED)
    assert set(merged.values_list("side", "left_key")) == {
        (side, f'["{number}"]') for side in ("left", "right") for number in (2, 3, 4)
    }
    assert sides("points", "loyalty", 2) == (35, 35)  # 20 more here, 5 fewer there
    assert sides("tags", "labels", 3) == ("customer,early,newsletter,vip",) * 2
    assert sides("phone", "phone_number", 1) == ("+49 30 7770001",) * 2
    assert sides("city", "town", 1) == ("Potsdam", "Potsdam")
    assert sides("city", "town", 5) == ("Hamburg", "Bremen")
    waiting = Conflict.objects.filter(rule_id=rule.pk).values_list("kind", "left_key")
    assert set(waiting) == {("fields", '["5"]'), ("fields", '["6"]'), ("match", '["9"]')}
    assert (third.status, third.planned_deletes) == (RunStatus.WAITING, 5)


def sides(left: str, right: str, number: int) -> tuple[Any, Any]:
    """What the CRM and the desk hold in a field of a contact; the desk's ids begin at 5001."""
    values = []
    for file, field, table, key in (
        ("crm", left, "contacts", f"id = {number}"),
        ("desk", right, "requesters", f"requester_id = {5000 + number}"),
    ):
        path = services.demo_folder() / f"{file}.sqlite3"
        with closing(sqlite3.connect(path)) as database:
            sql = f"SELECT {field} FROM {table} WHERE {key}"
            values.append(database.execute(sql).fetchone()[0])
    return values[0], values[1]


def test_a_touched_crm_gives_the_next_run_something_to_do(demo: None) -> None:
    customers = Rule.objects.get(name="Demo customers")
    work_until_finished(request_run(customers, actor=None))

    touched = services.touch_demo()
    run = work_until_finished(request_run(customers, actor=None, sweep=True))

    assert (touched.edited, touched.added, touched.deleted) == (5, 2, 1)
    assert (run.inserted, run.deleted) == (2, 1)
    assert run.updated >= 5
    assert warehouse("SELECT count(*) FROM dim_customer WHERE NOT is_active") == [(1,)]


def test_removing_leaves_nothing_and_loading_again_works(demo: None) -> None:
    for name in ("Demo companies", "Demo products"):
        work_until_finished(request_run(Rule.objects.get(name=name), actor=None))
    mine = Source.objects.create(name="Mine", connector="sqlite", settings={"path": "/x"})

    services.remove_demo()

    assert not services.demo_is_loaded()
    assert list(Source.objects.all()) == [mine]
    for model in (Rule, Mapping, MappingVersion, LookupTable, Dataset, Run):
        assert not model.objects.exists(), model
    for model in (Change, Conflict, Link, Rejection):
        assert not model.objects.exists(), model
    assert not services.demo_folder().exists()
    services.load_demo()
    assert services.demo_is_loaded()


def test_a_removed_demo_does_not_come_back_with_the_next_start(tmp_path: Path) -> None:
    assert startup.load_demo_if_empty() == "loaded"
    services.remove_demo()

    assert startup.load_demo_if_empty() == ""
    assert not services.demo_is_loaded()


def test_removing_keeps_a_table_of_ones_own_whatever_its_name(demo: None) -> None:
    LookupTable.objects.create(name="demo_days")

    services.remove_demo()

    assert list(LookupTable.objects.values_list("name", flat=True)) == ["demo_days"]


def test_removing_cancels_what_goes_on(demo: None) -> None:
    run = request_run(Rule.objects.get(name="Demo companies"), actor=None)

    services.remove_demo()

    assert not Run.objects.filter(pk=run.pk).exists()
    assert not Change.objects.exists()


def test_removing_needs_the_right_to(demo: None) -> None:
    with pytest.raises(PermissionDenied):
        services.remove_demo(actor=User.objects.create_user("visitor"))

    assert services.demo_is_loaded()
