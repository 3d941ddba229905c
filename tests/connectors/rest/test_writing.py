"""Requests that write, what their answers mean, and writes that are broken off."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl

import pyarrow as pa
import pytest

from apps.connectors.base import ChangeBatch, Operation, WriteResult
from apps.connectors.errors import ConfigurationError, ConnectionLost, LeaseLost
from apps.connectors.rest import RestConnector
from apps.connectors.testing import (
    ALREADY,
    APPLIED,
    IN_DOUBT,
    REJECTED,
    STALE,
    do_nothing,
    open_session,
    statuses,
)
from tests.connectors.rest.conftest import Connect
from tests.connectors.rest.server import Api, Asked, Reply

RESET = Reply(reset=True)
CREATE = {"method": "POST", "path": "/people", "record": "@"}
UPDATE = {"method": "PATCH", "path": "/people/{id}", "record": "@"}


class People:
    """A server that numbers its people; what it does before it breaks off is done."""

    def __init__(self, api: Api, *names: str) -> None:
        self.rows: dict[int, dict[str, Any]] = {}
        self.keys: dict[str, int] = {}
        for name in names:
            self.add({"name": name})
        api.handle = self.answer

    def add(self, record: dict[str, Any]) -> dict[str, Any]:
        number = len(self.rows) + 1
        self.rows[number] = {"id": number, "version": 1, **record}
        return self.rows[number]

    def answer(self, asked: Asked) -> Reply:
        if asked.path == "/people":
            if asked.method == "POST":
                return Reply(201, self._created(asked))
            wanted = asked.params.get("mail")
            return Reply(body=[r for r in self.rows.values() if wanted in (None, r.get("mail"))])
        row = self.rows.get(int(asked.path.rpartition("/")[2]))
        if row is None:
            return Reply(404)
        tag = f'"{row["version"]}"'
        if asked.headers.get("if-match", tag) != tag:
            return Reply(412)
        if asked.method == "DELETE":
            del self.rows[row["id"]]
            return Reply(204)
        if asked.method in ("PATCH", "PUT"):
            row.update(asked.body, version=row["version"] + 1)
        return Reply(body=row, headers={"ETag": f'"{row["version"]}"'})

    def _created(self, asked: Asked) -> dict[str, Any]:
        key = asked.headers.get("idempotency-key", "")
        if key not in self.keys or not key:
            self.keys[key] = self.add(asked.body)["id"]
        return self.rows[self.keys[key]]

    def then_reset(self, asked: Asked) -> Reply:
        self.answer(asked)
        return RESET

    def meanwhile(self, number: int, **values: Any) -> Callable[[Asked], Reply]:
        """Somebody edits a record just before the request is answered."""

        def answer(asked: Asked) -> Reply:
            row = self.rows[number]
            row.update(values, version=row["version"] + 1)
            return self.answer(asked)

        return answer


def definition(**more: Any) -> dict[str, Any]:
    people = {
        "path": "/people",
        "key": ["id"],
        "fields": {
            "id": {"type": "integer", "assigned": True, "required": True},
            "name": "text",
            "mail": "text",
            "city": {"type": "text", "path": "address.city"},
        },
        "item": "/people/{id}",
        "create": CREATE,
        "update": UPDATE,
        "delete": {"method": "DELETE", "path": "/people/{id}"},
    }
    return {"people": {**people, **more}}


def insert(connector: RestConnector, *names: str, **options: Any) -> WriteResult:
    mails = [f"{name}@x" for name in names]
    after = pa.table({"name": list(names), "mail": mails})
    return apply(connector, ChangeBatch(Operation.INSERT, pa.table({}), None, after, **options))


def update(connector: RestConnector, changes: dict[int, tuple[str, str]]) -> WriteResult:
    return apply(
        connector,
        ChangeBatch(
            Operation.UPDATE,
            pa.table({"id": pa.array(list(changes), pa.int64())}),
            pa.table({"name": [before for before, _ in changes.values()]}),
            pa.table({"name": [after for _, after in changes.values()]}),
        ),
    )


def apply(connector: RestConnector, batch: ChangeBatch, **options: Any) -> WriteResult:
    fence = options.pop("fence", do_nothing)
    with open_session(connector, connector.describe("people")) as session:
        return session.apply(batch, fence, returning=("name",), **options)


def keys(result: WriteResult) -> list[int | None]:
    assert result.keys is not None
    found: list[int | None] = result.keys.column("id").to_pylist()
    return found


def test_what_can_be_done_follows_from_the_definition(connect: Connect) -> None:
    can = connect(definition()).capabilities
    assert (can.write, can.delete, can.server_assigned_keys, can.returns_stored) == (True,) * 4
    assert not can.compare_and_set
    tagged = {**UPDATE, "if_match": True}
    assert connect(definition(update=tagged, delete=None)).capabilities.compare_and_set
    assert not connect(definition(), read_only=True).capabilities.write
    assert not connect({"a": {"path": "/a"}}).capabilities.write


def test_a_read_only_dataset_is_not_written(connect: Connect) -> None:
    connector = connect(definition(), read_only=True)
    with pytest.raises(ConfigurationError, match="read only"):
        insert(connector, "Ada")


def test_bodies_follow_templates_and_paths(api: Api, connect: Connect) -> None:
    people = People(api)
    body = {"person": "{record}", "kind": "friend", "label": "Dear {name}!", "note": "{note}"}
    connector = connect(definition(create={**CREATE, "body": body}))
    after = pa.table({"name": ["Ada"], "city": ["Bonn"]})
    apply(connector, ChangeBatch(Operation.INSERT, pa.table({}), None, after))
    assert people.rows[1]["person"] == {"name": "Ada", "address": {"city": "Bonn"}}
    assert (people.rows[1]["kind"], people.rows[1]["label"]) == ("friend", "Dear Ada!")
    assert "note" not in people.rows[1]


def test_bodies_are_forms_where_an_api_wants_them(api: Api, connect: Connect) -> None:
    api.handle = lambda asked: Reply(201, {"id": 1, "name": "A&B"})
    after = pa.table({"name": ["A&B"], "city": ["Bonn"]})
    apply(
        connect(definition(body="form")), ChangeBatch(Operation.INSERT, pa.table({}), None, after)
    )
    assert parse_qsl(api.asked[0].data.decode()) == [("name", "A&B"), ("address[city]", "Bonn")]
    assert api.asked[0].headers["content-type"] == "application/x-www-form-urlencoded"


def test_new_keys_are_told_by_the_answer_or_where_it_leads(api: Api, connect: Connect) -> None:
    people = People(api)
    result = insert(connect(definition()), "Ada", "Bob")
    assert (statuses(result), keys(result)) == ([APPLIED, APPLIED], [1, 2])

    def located(asked: Asked) -> Reply:
        number = people.answer(asked).body["id"]
        return Reply(201, headers={"Location": f"/people/{number}"})

    api.on("/people", located)
    bare = {name: value for name, value in CREATE.items() if name != "record"}
    assert keys(insert(connect(definition(create=bare)), "Cid")) == [3]

    below = Reply(201, headers={"Location": "/v1/people/9"})
    api.handle = lambda asked: below if asked.method == "POST" else Reply(body={"id": 9})
    assert keys(insert(connect(definition(create=bare), url=f"{api.url}/v1"), "Dan")) == [9]
    assert [one.path for one in api.asked[-2:]] == ["/v1/people", "/v1/people/9"]


def test_what_the_api_makes_of_a_record_is_given_back(api: Api, connect: Connect) -> None:
    People(api, "Ada")
    api.on("/people/1", Reply(body={"id": 1, "name": "Ada"}), Reply(body={"id": 1, "name": "EVE"}))
    result = update(connect(definition()), {1: ("Ada", "Eve")})
    assert result.stored is not None
    assert result.stored.column("name").to_pylist() == ["EVE"]


def test_a_refused_record_stops_no_other_and_its_values_are_not_told(
    api: Api, connect: Connect
) -> None:
    People(api)
    api.on("/people", Reply(422, {"message": "secretive@x is taken"}))
    result = insert(connect(definition()), "secretive", "Bob")
    assert statuses(result) == [REJECTED, APPLIED]
    assert result.exceptions[0].message == "The API refuses the record (HTTP 422: ••• is taken)."


def test_an_edit_that_slips_in_is_found_by_the_api(api: Api, connect: Connect) -> None:
    people = People(api, "Ada", "Bob")
    connector = connect(definition(update={**UPDATE, "if_match": True}))
    for number in (1, 2):
        api.on(f"/people/{number}", people.answer)
    api.on("/people/1", people.meanwhile(1, name="Zoe"))
    api.on("/people/2", people.meanwhile(2, mail="new@x"))
    result = update(connector, {1: ("Ada", "Eve"), 2: ("Bob", "Eve")})
    assert statuses(result) == [STALE, APPLIED]
    assert [row["name"] for row in people.rows.values()] == ["Zoe", "Eve"]
    assert people.rows[2]["mail"] == "new@x"


def test_a_record_that_goes_meanwhile(api: Api, connect: Connect) -> None:
    People(api, "Ada", "Bob")
    connector = connect(definition())
    for number in (1, 2):
        api.on(f"/people/{number}", Reply(body={"id": number, "name": "x"}), Reply(404))
    assert statuses(update(connector, {1: ("x", "y")})) == [STALE]
    delete = ChangeBatch(
        Operation.DELETE, pa.table({"id": pa.array([2], pa.int64())}), pa.table({"name": ["x"]})
    )
    assert statuses(apply(connector, delete)) == [ALREADY]


@pytest.mark.parametrize("broken", ["before", "after"])
def test_a_broken_off_update_is_looked_at_before_it_is_repeated(
    api: Api, connect: Connect, broken: str
) -> None:
    people = People(api, "Ada")
    api.on("/people/1", people.answer, RESET if broken == "before" else people.then_reset)
    assert statuses(update(connect(definition()), {1: ("Ada", "Eve")})) == [APPLIED]
    assert (people.rows[1]["name"], people.rows[1]["version"]) == ("Eve", 2)


@pytest.mark.parametrize("status", [500, 503])
def test_a_broken_off_create_is_in_doubt_where_nothing_tells(
    api: Api, connect: Connect, status: int
) -> None:
    people = People(api)
    api.on("/people", people.then_reset, people.answer, Reply(status))
    result = insert(connect(definition()), "Ada", "Bob", "Cid")
    assert statuses(result) == [IN_DOUBT, APPLIED, IN_DOUBT]
    assert keys(result) == [None, 2, None]
    assert api.count("/people", "POST") == 3


@pytest.mark.parametrize("broken", ["before", "after"])
def test_an_idempotency_key_lets_a_create_be_repeated(
    api: Api, connect: Connect, broken: str
) -> None:
    people = People(api)
    create = {**CREATE, "idempotency_header": "Idempotency-Key"}
    api.on("/people", RESET if broken == "before" else people.then_reset)
    result = insert(connect(definition(create=create)), "Ada", "Ada")
    assert (statuses(result), keys(result)) == ([APPLIED, APPLIED], [1, 2])
    used = [a.headers["idempotency-key"] for a in api.asked if a.method == "POST"]
    assert used[0] == used[1] != used[2]


@pytest.mark.parametrize("broken", ["before", "after"])
def test_a_business_key_tells_what_became_of_a_create(
    api: Api, connect: Connect, broken: str
) -> None:
    people = People(api)
    connector = connect(definition(search={"params": {"mail": "{mail}"}}))
    api.on("/people", RESET if broken == "before" else people.then_reset)
    result = insert(connector, "Ada")
    assert (statuses(result), keys(result)) == ([APPLIED], [1])
    assert len(people.rows) == 1


def test_match_fields_are_looked_up_by_search(api: Api, connect: Connect) -> None:
    people = People(api)
    people.add({"name": "Ada", "mail": "Ada@x"})
    people.add({"name": "other", "mail": "Bob@x"})
    connector = connect(definition(search={"params": {"mail": "{mail}"}}))
    result = insert(connector, "Ada", "Bob", "Cid", match=("mail",))
    assert (statuses(result), keys(result)) == ([ALREADY, STALE, APPLIED], [1, None, 3])
    assert [one.params for one in api.asked if one.method == "GET"][:3] == [
        {"mail": f"{name}@x"} for name in ("Ada", "Bob", "Cid")
    ]


def test_what_is_begun_is_noted_before_it_is_sent(api: Api, connect: Connect) -> None:
    people = People(api, "Ada")
    noted: list[WriteResult] = []

    def lost() -> None:
        raise LeaseLost("another worker has it")

    after = pa.table({"name": ["Bob"]})
    batch = ChangeBatch(Operation.INSERT, pa.table({}), None, after)
    with pytest.raises(LeaseLost):
        apply(connect(definition()), batch, fence=lost, note=noted.append)
    assert len(people.rows) == 1
    assert [statuses(one) for one in noted] == [[APPLIED]]


def test_a_server_that_goes_away_stops_the_batch_and_nothing_is_written_twice(
    api: Api, connect: Connect
) -> None:
    people = People(api, "Ada", "Bob")
    changes = {1: ("Ada", "Eve"), 2: ("Bob", "Zed")}
    api.on("/people/1", people.answer, people.answer)
    api.on("/people/2", people.answer, *[RESET] * 9)
    connector = connect(definition(), retries=1)
    with pytest.raises(ConnectionLost):
        update(connector, changes)
    api._before.clear()
    assert statuses(update(connector, changes)) == [ALREADY, APPLIED]
    assert [row["version"] for row in people.rows.values()] == [2, 2]


BULK = {
    "path": "/people/batch",
    "most": 3,
    "body": {"inputs": "{records}"},
    "results": "results",
    "error": "error.message",
    "record": "person",
}


class Bulk(People):
    """The same with a bulk endpoint, which refuses people called Bad one by one."""

    def answer(self, asked: Asked) -> Reply:
        if not asked.path.endswith("/batch"):
            return super().answer(asked)
        inputs = asked.body["inputs"]
        if any(person["name"] == "Worse" for person in inputs):
            return Reply(400, {"message": "someone is worse"})
        results = [
            {"error": {"message": f"{person['name']} is refused"}}
            if person["name"] == "Bad"
            else {"person": self._written(person)}
            for person in inputs
        ]
        return Reply(body={"results": results})

    def _written(self, person: dict[str, Any]) -> dict[str, Any]:
        if "id" not in person:
            return self.add(person)
        self.rows[person["id"]].update(person)
        return self.rows[person["id"]]


def test_bulk_requests_tell_each_record(api: Api, connect: Connect) -> None:
    people = Bulk(api)
    connector = connect(definition(bulk_create=BULK))
    result = insert(connector, "Ada", "Bad", "Cid", "Dan")
    assert statuses(result) == [APPLIED, REJECTED, APPLIED, APPLIED]
    assert keys(result) == [1, None, 2, 3]
    assert "••• is refused" in result.exceptions[1].message
    assert api.count("/people/batch", "POST") == 2
    assert [row["name"] for row in people.rows.values()] == ["Ada", "Cid", "Dan"]


def test_a_bulk_request_that_is_refused_whole_is_halved(api: Api, connect: Connect) -> None:
    Bulk(api)
    result = insert(connect(definition(bulk_create=BULK)), "Ada", "Bob", "Worse")
    assert statuses(result) == [APPLIED, APPLIED, REJECTED]


def test_bulk_updates_carry_their_keys(api: Api, connect: Connect) -> None:
    people = Bulk(api, "Ada", "Bob")
    connector = connect(definition(bulk_update=BULK, update=None))
    assert statuses(update(connector, {1: ("Ada", "Eve"), 2: ("x", "y")})) == [APPLIED, STALE]
    sent = [json.loads(one.data) for one in api.asked if one.method == "POST"]
    assert sent == [{"inputs": [{"id": 1, "name": "Eve"}]}]
    assert people.rows[1]["name"] == "Eve"


def test_a_broken_off_bulk_update_is_told_by_the_records(api: Api, connect: Connect) -> None:
    people = Bulk(api, "Ada", "Bob")
    api.on("/people/batch", people.then_reset)
    connector = connect(definition(bulk_update=BULK))
    result = update(connector, {1: ("Ada", "Eve"), 2: ("Bob", "Zed")})
    assert statuses(result) == [APPLIED, APPLIED]
    assert api.count("/people/batch", "POST") == 1


def test_a_kind_of_write_that_is_not_declared_rejects_its_records(
    api: Api, connect: Connect
) -> None:
    People(api, "Ada")
    result = update(connect(definition(update=None)), {1: ("Ada", "Eve")})
    assert statuses(result) == [REJECTED]
    assert result.exceptions[0].code == "record.not_written"
