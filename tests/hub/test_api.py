"""The native protocol over HTTP: what a client sends and gets."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest

from apps.accounts.models import Level
from apps.accounts.services import give_grant
from apps.hub.models import HostedDataset, Replica, ReplicaProgress
from apps.hub.services import change_schema, revoke_replica, set_row_scope
from apps.sources.models import Dataset
from tests.hub_world import SCHEMA, hosted
from tests.people import administrator, person
from tests.programs import Program, program

pytestmark = pytest.mark.django_db


def place_of(tasks: HostedDataset) -> str:
    return f"datasets/{Dataset.objects.get(name=tasks.name).pk}"


def push(app: Program, tasks: HostedDataset, *mutations: dict[str, Any], **more: Any) -> Any:
    body = {"replica": str(CLIENT), "mutations": list(mutations), **more}
    return app.post(f"{place_of(tasks)}/push", body)


CLIENT = uuid4()
NEW = {"mid": 1, "id": "a", "set": {"title": "Buy milk"}}


def test_what_is_pushed_can_be_pulled(root, tasks):
    pushed = push(root, tasks, NEW, {"mid": 2, "id": "a", "base_rev": 1, "set": {"stock": 1.5}})
    assert pushed.status_code == 200
    applied, rejected = pushed.json()["outcomes"]
    assert applied == {"mid": 1, "status": "applied", "rev": 1}
    assert rejected["status"] == "rejected"
    assert rejected["fields"] == ["stock"]
    assert rejected["record"] == {"id": "a", "title": "Buy milk"}
    page = root.get(f"{place_of(tasks)}/changes", replica=CLIENT, schema_version=1).json()
    assert page["changes"] == [{"id": "a", "rev": 1, "op": "put", "data": rejected["record"]}]
    assert (page["has_more"], page["reset"], page["schema_version"]) == (False, True, 1)
    next_page = root.get(f"{place_of(tasks)}/changes", since=page["next"]).json()
    assert next_page["changes"] == []
    same = root.get(f"{place_of(tasks)}/digest", since=page["next"]).json()
    assert (same["count"], same["up_to_date"]) == (1, True)


def test_numbers_of_any_size_come_back_as_they_were_sent(root, tasks):
    push(root, tasks, {"mid": 1, "id": "a", "set": {"title": "x", "stock": 2**62 + 1}})
    answer = root.get(f"{place_of(tasks)}/changes")
    assert str(2**62 + 1) in answer.content.decode()


def test_replicas_are_known_by_how_far_they_are(root, tasks):
    push(root, tasks, NEW)
    root.get(f"{place_of(tasks)}/changes", replica=CLIENT, schema_version=1)
    root.post("replicas", {"client_id": str(CLIENT), "name": "Ada's phone", "app_version": "1.2"})
    shown = root.get("replicas").json()["items"]
    assert [(r["name"], r["app_version"]) for r in shown] == [("Ada's phone", "1.2")]
    assert shown[0]["progress"] == [
        {
            "dataset": "tasks",
            "last_mutation": 1,
            "pulled": 1,
            "lag": 0,
            "schema_number": 1,
            "seen_at": shown[0]["progress"][0]["seen_at"],
        }
    ]


def test_asking_all_the_time_is_not_noted_each_time(root, tasks):
    root.get(f"{place_of(tasks)}/changes", replica=CLIENT)
    seen = ReplicaProgress.objects.get().seen_at
    root.get(f"{place_of(tasks)}/changes", replica=CLIENT)
    assert ReplicaProgress.objects.get().seen_at == seen


@pytest.mark.parametrize(
    ("mutation", "place"),
    [
        ({"mid": 0, "id": "a"}, "mutations.0.mid"),
        ({"mid": 1, "id": ""}, "mutations.0.id"),
        ({"mid": 1, "id": "a", "sets": {}}, "mutations.0.sets"),
        ({"mid": "1", "id": "a"}, "mutations.0.mid"),
        ({"mid": 1, "id": "a", "hlc": "yesterday"}, "mutations.0.hlc"),
    ],
)
def test_a_body_that_is_none_names_the_place(root, tasks, mutation, place):
    answer = push(root, tasks, mutation)
    assert answer.status_code == 400
    assert [mistake["place"] for mistake in answer.json()["errors"]] == [place]


def test_a_gap_is_told_with_the_number_that_is_expected(root, tasks):
    answer = push(root, tasks, {**NEW, "mid": 2})
    assert (answer.status_code, answer.json()["code"]) == (409, "hub.out_of_order")
    assert "mutation 1 was expected" in answer.json()["detail"]


def test_tokens_and_schemas_that_are_too_old_are_told_apart(root, tasks):
    page = root.get(f"{place_of(tasks)}/changes").json()
    without = {n: s for n, s in SCHEMA["properties"].items() if n != "owner"}
    change_schema(tasks, {**SCHEMA, "properties": without}, may_break=True, actor=None)
    expired = root.get(f"{place_of(tasks)}/changes", since=page["next"])
    assert (expired.status_code, expired.json()["code"]) == (410, "hub.token_expired")
    for answer in (
        root.get(f"{place_of(tasks)}/changes", schema_version=1),
        push(root, tasks, NEW, schema_version=1),
    ):
        assert (answer.status_code, answer.json()["code"]) == (426, "hub.schema_outdated")
    assert root.get(f"{place_of(tasks)}/schema").json()["oldest_accepted"] == 2


def test_a_revoked_replica_gets_nothing_more(root, tasks):
    push(root, tasks, NEW)
    revoke_replica(Replica.objects.get(), actor=None)
    for answer in (
        push(root, tasks, NEW),
        root.get(f"{place_of(tasks)}/changes", replica=CLIENT),
    ):
        assert (answer.status_code, answer.json()["code"]) == (403, "hub.replica_revoked")


def test_grants_say_who_pulls_and_who_pushes(tasks):
    rights = ("hub.pull_hosteddataset", "hub.push_hosteddataset", "hub.view_replica")
    user = person("app", *rights, reaches_all=False)
    app = program(user)
    assert app.get(f"{place_of(tasks)}/changes").status_code == 404
    dataset = Dataset.objects.get(name="tasks")
    give_grant(user, dataset, Level.SEE, actor=None)
    assert app.get(f"{place_of(tasks)}/changes").status_code == 200
    assert push(app, tasks, NEW).status_code == 404
    give_grant(user, dataset, Level.RUN, actor=None)
    assert push(app, tasks, NEW).status_code == 200


def test_a_token_without_the_scope_is_told_which_it_needs(tasks):
    app = program(administrator(), ["hub:read"])
    answer = push(app, tasks, NEW)
    assert (answer.status_code, answer.json()["code"]) == (403, "api.insufficient_scope")
    assert "hub:write" in answer.json()["detail"]


def test_an_account_sees_its_rows_only():
    tasks = hosted("scoped", scope_field="owner")
    user = person("ada", "hub.pull_hosteddataset", "hub.push_hosteddataset", "hub.view_replica")
    app = program(user)
    first = push(app, tasks, {**NEW, "set": {"title": "x", "owner": "ada"}})
    assert first.json()["outcomes"][0]["status"] == "rejected"
    set_row_scope(tasks, user, ["ada"], actor=None)
    again = push(app, tasks, {**NEW, "mid": 2, "set": {"title": "x", "owner": "ada"}})
    assert again.json()["outcomes"][0]["status"] == "applied"
    assert len(app.get(f"{place_of(tasks)}/changes").json()["changes"]) == 1


def test_datasets_of_other_sources_are_no_hub_datasets(root, pair):
    dataset = pair.mapping.left.pk
    assert root.get(f"datasets/{dataset}/changes").status_code == 404
    assert root.get(f"datasets/{dataset}").status_code == 200
