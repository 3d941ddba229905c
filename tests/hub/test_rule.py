"""A rule keeps a hub dataset in step with a table of PostgreSQL, both ways."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson
import pytest

from apps.engine.spec import FieldMappingSpec
from apps.hub.models import HostedDataset, HostedRecord, Revision
from apps.hub.pulling import pull
from apps.hub.selectors import EVERYTHING
from apps.mappings.models import Mapping
from apps.mappings.services import save_mapping
from apps.rules.models import Rule
from apps.rules.services import save_rule
from apps.runs.models import Run
from apps.runs.services import request_run, work_until_finished
from apps.sources.models import Dataset, Source
from apps.sources.services import discover, save_source
from tests.hub_world import Pusher, hosted
from tests.platforms import lines
from tests.servers import postgresql_connection, postgresql_database

pytestmark = [pytest.mark.postgresql, pytest.mark.django_db(transaction=True)]

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "id": {"type": "integer"},
        "name": {"type": "string", "maxLength": 40},
        "credit": {"type": "string", "x-type": "decimal(10,2)"},
        "stock": {"type": "integer", "x-merge": "counter"},
    },
}
FIELDS = [FieldMappingSpec(right=name, left=name) for name in SCHEMA["properties"]]


class InStep:
    """The table `people` on the left, the hub dataset on the right."""

    def __init__(self, connection: Any, settings: dict[str, Any]) -> None:
        self.sql = connection.execute
        self.sql(
            "CREATE TABLE people (id bigint PRIMARY KEY, name varchar(40), "
            "credit numeric(10,2), stock bigint)"
        )
        self.sql("INSERT INTO people VALUES (1, 'Ada', 1.50, 10), (2, 'Bob', NULL, 20)")
        hosted("people", schema=SCHEMA)
        self.hub = HostedDataset.objects.get()
        source = save_source(Source(name="CRM", connector="postgresql"), settings, actor=None)
        discover(source, actor=None)
        left, right = source.datasets.get(), Dataset.objects.get(source__connector="hub")
        mapping = Mapping(name="people", left=left, right=right)
        save_mapping(mapping, FIELDS, ["id"], actor=None)
        facts = {"direction": "two_way", "policy": "left", "max_deletes_percent": None}
        self.rule = Rule(name="people", mapping=mapping, **facts)
        save_rule(self.rule, [], actor=None)

    def run(self) -> Run:
        run = work_until_finished(request_run(self.rule, actor=None))
        assert run.status == "succeeded", lines(run)
        return run

    def table(self) -> dict[int, tuple[Any, ...]]:
        rows = self.sql("SELECT id, name, credit::text, stock FROM people").fetchall()
        return {row[0]: tuple(row[1:]) for row in rows}

    def hub_records(self) -> dict[int, tuple[Any, ...]]:
        rows = HostedRecord.objects.filter(is_deleted=False).values_list("body", flat=True)
        records = [orjson.loads(body) for body in rows]
        return {
            r["id"]: (
                r.get("name"),
                f"{float(r['credit']):.2f}" if "credit" in r else None,
                r.get("stock"),
            )
            for r in records
        }


@pytest.fixture
def pair() -> Iterator[InStep]:
    with postgresql_database() as settings, postgresql_connection(settings) as connection:
        yield InStep(connection, settings)


def test_edits_of_apps_reach_the_table_and_edits_of_the_table_reach_apps(pair):
    pair.run()
    assert pair.hub_records() == pair.table()
    page = orjson.loads(pull(pair.hub, EVERYTHING, "", 10).rendered())
    revisions = {change["id"]: change["rev"] for change in page["changes"]}
    assert set(revisions) == {"1", "2"}

    app = Pusher(pair.hub)
    assert app.push("1", revisions["1"], name="Ada King").status == "applied"
    assert app.push("3", name="Cid", credit="7.25").status == "applied"
    assert app.push("2", revisions["2"], is_delete=True).status == "applied"
    pair.run()
    assert pair.table() == {1: ("Ada King", "1.50", 10), 3: ("Cid", "7.25", None)}

    pair.sql("UPDATE people SET credit = 9 WHERE id = 1")
    pair.sql("INSERT INTO people VALUES (4, 'Dan', 0.05, 1)")
    pair.sql("DELETE FROM people WHERE id = 3")
    pair.run()
    assert pair.hub_records() == pair.table()
    news = orjson.loads(pull(pair.hub, EVERYTHING, page["next"], 10).rendered())["changes"]
    assert {change["id"]: change["op"] for change in news} == {
        "1": "put",
        "2": "delete",
        "3": "delete",
        "4": "put",
    }


def test_what_the_rule_wrote_does_not_come_back_as_an_edit(pair):
    pair.run()
    Pusher(pair.hub).push("1", None, name="Ada King", stamp="f" * 16)
    pair.run()
    before = Revision.objects.count()
    run = pair.run()
    assert (run.planned_inserts, run.planned_updates, run.planned_deletes) == (0, 0, 0)
    assert Revision.objects.count() == before


def test_edits_of_both_sides_of_different_fields_merge(pair):
    pair.run()
    revision = HostedRecord.objects.get(key="1").revision
    Pusher(pair.hub).push("1", revision, name="Ada King")
    pair.sql("UPDATE people SET credit = 3 WHERE id = 1")
    pair.run()
    assert pair.table()[1] == ("Ada King", "3.00", 10)
    assert pair.hub_records() == pair.table()


def test_a_rule_writes_over_an_app_only_what_the_app_has_seen_or_merges(pair):
    """An app that was offline while the rule wrote merges with it like with any other app."""
    pair.run()
    revision = HostedRecord.objects.get(key="1").revision
    pair.sql("UPDATE people SET stock = stock + 5, name = 'A. King' WHERE id = 1")
    pair.run()
    outcome = Pusher(pair.hub).push("1", revision, increments={"stock": -2}, credit="2.00")
    assert outcome.status == "merged"
    assert outcome.record == {"id": 1, "name": "A. King", "stock": 13} | {"credit": "2.00"}
    pair.run()
    assert pair.table()[1] == ("A. King", "2.00", 13)
