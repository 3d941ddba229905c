"""Schemas of hub datasets: what may be said, what a change breaks, and how types are written."""

from __future__ import annotations

from typing import Any

import pytest

from apps.connectors.errors import ConfigurationError
from apps.connectors.testing import SAMPLES
from apps.hub.errors import BreakingChange, SchemaRefused
from apps.hub.models import HostedRecord
from apps.hub.schemas import breaks, neutral_of, property_of, shape_of
from apps.hub.services import change_schema
from apps.sources.models import Dataset
from tests.hub_world import SCHEMA, Pusher, hosted


def with_property(name: str, said: Any) -> dict[str, Any]:
    return {**SCHEMA, "properties": {**SCHEMA["properties"], name: said}}


@pytest.mark.parametrize("neutral", list(SAMPLES), ids=str)
def test_every_neutral_type_has_a_property_that_stands_for_it(neutral):
    assert neutral_of(property_of(neutral)) == neutral


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "array"},
        {"type": "object"},
        with_property("x", {"type": "string", "pattern": "(a+)+$"}),
        with_property("x", {"$ref": "#/definitions/x"}),
        with_property("x", {"type": ["string", "null"]}),
        with_property("x", {"type": "string", "x-merge": "counter"}),
        with_property("x", {"type": "string", "x-merge": "nonsense"}),
        with_property("x", {"type": "string", "maxLength": "long"}),
        with_property("x", {"type": "object", "properties": {"y": {"pattern": "x"}}}),
        {**SCHEMA, "required": ["nobody"]},
    ],
)
def test_what_a_schema_may_not_say(schema):
    with pytest.raises(SchemaRefused):
        shape_of(schema, ["id"])


@pytest.mark.parametrize(
    ("change", "reasons"),
    [
        (with_property("extra", {"type": "string"}), []),
        (with_property("title", {"type": "string", "maxLength": 80}), []),
        (with_property("owner", {"type": "string", "description": "Who"}), []),
        (with_property("title", {"type": "string", "maxLength": 10}), ["'title': `maxLength` …"]),
        (with_property("done", {"type": "string"}), ["'done': `type` …"]),
        ({**SCHEMA, "required": ["title", "owner"]}, ["'owner' is required now"]),
        ({**SCHEMA, "properties": {"id": {}, "title": {}}}, None),
    ],
)
def test_what_a_change_breaks(change, reasons):
    found = breaks(SCHEMA, change)
    if reasons is None:
        assert "'done' is gone" in found
    else:
        assert [r.partition(" is another")[0] for r in found] == [
            r.removesuffix(" …") for r in reasons
        ]


@pytest.mark.django_db
def test_additions_are_taken_as_they_are_and_reach_the_inventory():
    tasks = hosted()
    change_schema(tasks, with_property("extra", {"type": "integer"}), actor=None)
    assert tasks.oldest_schema == 1
    fields = Dataset.objects.get(name="tasks").fields
    assert fields.get(name="extra").type == "integer"
    assert Pusher(tasks).push("a", title="x", extra=1).status == "applied"


@pytest.mark.django_db
def test_a_breaking_change_has_to_be_wanted_and_takes_former_fields_out():
    tasks = hosted()
    Pusher(tasks).push("a", title="x", owner="Ada")
    without = {name: said for name, said in SCHEMA["properties"].items() if name != "owner"}
    with pytest.raises(BreakingChange, match="'owner' is gone"):
        change_schema(tasks, {**SCHEMA, "properties": without}, actor=None)
    change_schema(tasks, {**SCHEMA, "properties": without}, may_break=True, actor=None)
    assert tasks.oldest_schema == 2
    row = HostedRecord.objects.get()
    assert (row.body, row.revision) == ('{"id":"a","title":"x"}', 2)


@pytest.mark.django_db
def test_a_schema_that_records_do_not_fit_is_refused():
    tasks = hosted()
    Pusher(tasks).push("a", title="x")
    with pytest.raises(SchemaRefused, match="1 records do not fit: 'owner'"):
        change_schema(tasks, {**SCHEMA, "required": ["owner"]}, may_break=True, actor=None)


@pytest.mark.django_db
def test_a_name_is_taken_once():
    hosted()
    with pytest.raises(ConfigurationError, match="exists"):
        hosted()
