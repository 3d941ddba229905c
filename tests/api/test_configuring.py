"""Configuration is written whole, checked at once, and only as it was read."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import Permission

from apps.accounts.models import Level
from apps.accounts.services import create_service_account, give_grant
from apps.mappings.models import Mapping
from apps.rules.models import Rule
from apps.sources.models import Dataset, Source
from tests.programs import program

pytestmark = pytest.mark.django_db


def test_a_source_is_added_tested_and_discovered(root, pair):
    path = str(pair.left_path)
    made = root.post("sources", {"name": "new", "connector": "sqlite", "settings": {"path": path}})

    assert made.status_code == 201
    place = made["Location"].removeprefix("http://testserver")
    assert root.post(f"{place}/check").json()["health"] == "ok"
    assert root.post(f"{place}/discover").json() == {"datasets": 1, "drifts": []}
    assert Dataset.objects.filter(source__name="new").count() == 1
    assert root.get(place)["ETag"] == made["ETag"]  # testing it is no change


def test_a_source_is_changed_as_it_was_read(root, pair):
    place = f"sources/{pair.mapping.left.source_id}"
    read = root.get(place)

    changed = root.patch(place, {"owner": "Data team"}, {"If-Match": read["ETag"]})
    assert changed.status_code == 200
    assert changed.json()["owner"] == "Data team"
    assert changed.json()["settings"] == read.json()["settings"]
    assert changed["ETag"] != read["ETag"]

    stale = root.patch(place, {"owner": "Others"}, {"If-Match": read["ETag"]})
    assert (stale.status_code, stale.json()["code"]) == (412, "api.precondition_failed")
    blind = root.patch(place, {"owner": "Others"}, {})
    assert (blind.status_code, blind.json()["code"]) == (428, "api.precondition_required")
    assert Source.objects.get(pk=pair.mapping.left.source_id).owner == "Data team"


def test_secrets_are_written_and_stay(root):
    settings = {"host": "127.0.0.1", "database": "d", "user": "u", "password": "first"}
    body = {"name": "db", "connector": "postgresql", "settings": settings}
    place = root.post("sources", body)["Location"].removeprefix("http://testserver")

    del settings["password"]
    root.patch(place, {"settings": {**settings, "database": "e"}})

    source = Source.objects.get(name="db")
    assert source.secrets() == {"password": "first"}
    assert source.settings["database"] == "e"


def test_a_source_is_paused_and_resumed(root, pair):
    place = f"sources/{pair.mapping.left.source_id}"

    assert root.post(f"{place}/pause", {"reason": "upgrade"}).json()["paused"] is True
    refused = root.post("runs", {"rule": str(pair.rule.pk)})
    assert refused.json()["code"] == "run.refused"
    assert root.post(f"{place}/resume").json()["paused"] is False


def test_facts_of_a_dataset_are_kept(root, pair):
    place = f"datasets/{pair.mapping.left_id}"

    changed = root.patch(place, {"criticality": "high", "required_freshness_minutes": 15})

    assert changed.json()["criticality"] == "high"
    assert Dataset.objects.get(pk=pair.mapping.left_id).required_freshness_minutes == 15


FIELDS = [
    {"right": "client_id", "left": "id"},
    {"right": "full_name", "to_right": "trim(name)"},
]


def new_mapping(pair: Any, **changes: Any) -> dict[str, Any]:
    sides = {"left": str(pair.mapping.left_id), "right": str(pair.mapping.right_id)}
    return {"name": "second", **sides, "key": ["client_id"], "field_mappings": FIELDS, **changes}


def test_a_mapping_is_added_and_changed(root, pair):
    made = root.post("mappings", new_mapping(pair))
    assert made.status_code == 201
    place = f"mappings/{made.json()['id']}"

    changed = root.patch(place, {"field_mappings": FIELDS[:1]})
    assert [row["right"] for row in changed.json()["field_mappings"]] == ["client_id"]
    renamed = root.patch(place, {"name": "third"})
    assert [row["right"] for row in renamed.json()["field_mappings"]] == ["client_id"]
    assert Mapping.objects.get(name="third").versions.count() == 2


@pytest.mark.parametrize(
    ("changes", "status", "code"),
    [
        ({"field_mappings": [{"right": "nothing", "left": "id"}]}, 422, "field.missing"),
        ({"field_mappings": [{"right": "full_name", "to_right": "glob('/')"}]}, 422, None),
        ({"left": "01900000-0000-7000-8000-000000000000"}, 400, "api.invalid"),
        ({"name": "pair"}, 400, "api.invalid"),
        ({"field_mappings": [{"right": "full_name"}]}, 400, "api.invalid"),
        ({"id": "01900000-0000-7000-8000-000000000000"}, 400, "api.invalid"),
        ({"key": "client_id"}, 400, "api.invalid"),
    ],
)
def test_a_mapping_that_cannot_work_is_refused(root, pair, changes, status, code):
    answer = root.post("mappings", new_mapping(pair, **changes))

    assert answer.status_code == status, answer.json()
    assert code is None or answer.json()["code"] == code
    assert Mapping.objects.count() == 1


def test_a_rule_is_added_changed_enabled_and_paused(root, pair):
    mapping = root.post("mappings", new_mapping(pair)).json()["id"]
    body = {
        "name": "second",
        "mapping": mapping,
        "schedule_kind": "every",
        "every_minutes": 60,
        "checks": [{"name": "there", "kind": "required", "field": "full_name"}],
    }
    made = root.post("rules", body)
    assert made.status_code == 201, made.json()
    place = f"rules/{made.json()['id']}"
    assert (made.json()["version"], made.json()["enabled"]) == (1, False)

    changed = root.patch(place, {"max_deletes": 5}).json()
    assert (changed["version"], len(changed["checks"])) == (2, 1)
    assert root.patch(place, {"checks": []}).json()["checks"] == []
    assert root.post(f"{place}/enable").json()["enabled"] is True
    assert root.post(f"{place}/disable").json()["enabled"] is False
    assert root.post(f"{place}/pause", {"reason": "holiday"}).json()["paused"] is True
    assert root.post(f"{place}/resume").json()["paused"] is False


def test_a_rule_that_contradicts_itself_is_refused(root, pair):
    answer = root.patch(f"rules/{pair.rule.pk}", {"delta": "cursor"})

    assert answer.status_code == 422
    assert answer.json()["code"] == "configuration.invalid"
    assert Rule.objects.get().delta == "full"


@pytest.mark.parametrize(
    "smuggled",
    [
        {"enabled": True},
        {"paused": False},
        {"is_demo": True},
        {"schedule_since": "2020-01-01T00:00:00Z"},
        {"tags": []},
        {"created_at": "2020-01-01T00:00:00Z"},
        {"version": 9},
    ],
)
def test_what_is_not_named_for_writing_is_not_written(root, pair, smuggled):
    answer = root.patch(f"rules/{pair.rule.pk}", smuggled)

    assert answer.status_code == 400
    assert answer.json()["errors"][0]["place"] == next(iter(smuggled))


@pytest.mark.parametrize("name", ["health", "is_demo", "sealed_secrets", "secrets_set", "paused"])
def test_nor_of_a_source(root, pair, name):
    answer = root.patch(f"sources/{pair.mapping.left.source_id}", {name: "x"})

    assert answer.json()["errors"][0]["place"] == name


def test_names_of_what_is_out_of_reach_cannot_be_used(pair):
    """Whoever may add mappings and rules adds none to datasets of others."""
    account = create_service_account("robot", actor=None)
    names = ("add_mapping", "add_rule", "run_rule", "change_rule", "author_expressions")
    account.user_permissions.set(Permission.objects.filter(codename__in=names))
    robot = program(account)

    mapping = robot.post("mappings", new_mapping(pair))
    rule = robot.post("rules", {"name": "mine", "mapping": str(pair.mapping.pk)})
    run = robot.post("runs", {"rule": str(pair.rule.pk)})

    for answer, place in ((mapping, "left"), (rule, "mapping"), (run, "rule")):
        assert answer.status_code == 400
        assert place in {mistake["place"] for mistake in answer.json()["errors"]}
    give_grant(account, pair.rule, Level.SEE, actor=None)
    assert robot.post("runs", {"rule": str(pair.rule.pk)}).status_code == 400
    give_grant(account, pair.rule, Level.RUN, actor=None)
    assert robot.post("runs", {"rule": str(pair.rule.pk)}).status_code == 202
    assert robot.patch(f"rules/{pair.rule.pk}", {}, {"If-Match": "x"}).status_code == 404


def test_expressions_need_their_own_permission(pair):
    account = create_service_account("robot", actor=None)
    names = ("view_mapping", "change_mapping", "reach_all_objects")
    account.user_permissions.set(Permission.objects.filter(codename__in=names))
    robot = program(account)

    answer = robot.patch(f"mappings/{pair.mapping.pk}", {"field_mappings": FIELDS})

    assert (answer.status_code, answer.json()["code"]) == (403, "api.forbidden")
    assert "trim(name)" not in pair.mapping.fields.values_list("to_right", flat=True)
