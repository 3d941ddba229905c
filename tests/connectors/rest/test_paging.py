"""Every kind of paging, and lists that move while they are read."""

from __future__ import annotations

from typing import Any

import pytest

from apps.connectors.base import ReadRequest
from apps.connectors.errors import ConnectionLost, SourceChanged
from apps.connectors.rest.answers import AnswerUnusable
from apps.connectors.rest.records import SeenKeys
from apps.connectors.testing import read_with_rejections
from tests.connectors.rest.conftest import Connect, records
from tests.connectors.rest.server import Api, Asked, Reply

FIELDS = {"id": "integer", "name": "text"}


def rows(count: int, first: int = 1) -> list[dict[str, Any]]:
    return [{"id": n, "name": f"name {n}"} for n in range(first, first + count)]


class Store:
    """A list of records behind one kind of paging, five to a page."""

    def __init__(self, api: Api, count: int = 12, size: int = 5) -> None:
        self.api, self.size, self.rows = api, size, rows(count)

    def by_page(self, asked: Asked) -> Reply:
        return self._slice((int(asked.params["page"]) - 1) * self.size)

    def by_offset(self, asked: Asked) -> Reply:
        return self._slice(int(asked.params.get("offset", 0)))

    def _slice(self, start: int) -> Reply:
        chosen = self.rows[start : start + self.size]
        return Reply(body={"items": chosen, "total": len(self.rows)})

    def by_cursor(self, asked: Asked) -> Reply:
        start = int(asked.params.get("after", "0").removeprefix("c") or 0)
        end = start + self.size
        following = f"c{end}" if end < len(self.rows) else None
        headers = {"X-Next": following} if following else {}
        body = {"items": self.rows[start:end], "meta": {"next": following}}
        return Reply(body=body, headers=headers)

    def by_link(self, asked: Asked) -> Reply:
        start = int(asked.params.get("at", 0))
        end = start + self.size
        more = end < len(self.rows)
        link = f'<{self.api.url}/things?at={end}>; rel="next", <{self.api.url}/x>; rel="last"'
        body = {"items": self.rows[start:end], "next": f"/things?at={end}" if more else None}
        return Reply(body=body, headers={"Link": link} if more else {})

    def by_keyset(self, asked: Asked) -> Reply:
        after = int(asked.params.get("since_id", 0))
        return Reply(body={"items": [r for r in self.rows if r["id"] > after][: self.size]})


def things(**pagination: Any) -> dict[str, Any]:
    return {
        "things": {
            "path": "/things",
            "records": "items",
            "key": ["id"],
            "fields": FIELDS,
            "pagination": pagination,
        }
    }


PAGE = {"kind": "page", "param": "page"}
OFFSET = {"kind": "offset", "param": "offset"}


@pytest.mark.parametrize(
    ("way", "pagination"),
    [
        ("by_page", PAGE),
        ("by_page", {**PAGE, "total": "total"}),
        ("by_offset", OFFSET),
        ("by_offset", {**OFFSET, "total": "total"}),
        ("by_cursor", {"kind": "cursor", "param": "after", "next": "meta.next"}),
        ("by_cursor", {"kind": "cursor", "param": "after", "next_header": "X-Next"}),
        ("by_link", {"kind": "link"}),
        ("by_link", {"kind": "next_url", "next": "next"}),
        ("by_keyset", {"kind": "keyset", "param": "since_id", "field": "id"}),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(map(str, value.values())),
)
@pytest.mark.parametrize("count", [0, 1, 5, 12])
def test_each_kind_of_paging_gives_every_record_once(
    api: Api, connect: Connect, way: str, pagination: dict[str, Any], count: int
) -> None:
    store = Store(api, count)
    api.handle = getattr(store, way)
    assert records(connect(things(**pagination)), "things") == store.rows


def test_a_page_shorter_than_asked_for_is_not_the_last_one(api: Api, connect: Connect) -> None:
    store = Store(api, 12)
    api.handle = store.by_page
    paging = {**PAGE, "size_param": "per_page", "size": 100}
    assert len(records(connect(things(**paging)), "things")) == 12
    assert api.asked[0].params["per_page"] == "100"


@pytest.mark.parametrize(("way", "pagination"), [("by_page", PAGE), ("by_offset", OFFSET)])
def test_records_put_in_while_paging_come_once(
    api: Api, connect: Connect, way: str, pagination: dict[str, Any]
) -> None:
    store = Store(api, 12)

    def insert(asked: Asked) -> Reply:
        reply: Reply = getattr(store, way)(asked)
        store.rows = [*rows(2, 100), *store.rows]
        return reply

    api.handle = getattr(store, way)
    api.on("/things", insert)
    found = records(connect(things(**pagination)), "things")
    assert sorted(row["id"] for row in found) == list(range(1, 13))


@pytest.mark.parametrize(
    ("way", "pagination"), [("by_page", {**PAGE, "total": "total"}), ("by_offset", OFFSET)]
)
def test_records_taken_out_while_paging_are_noticed(
    api: Api, connect: Connect, way: str, pagination: dict[str, Any]
) -> None:
    store = Store(api, 12)

    def remove(asked: Asked) -> Reply:
        reply: Reply = getattr(store, way)(asked)
        store.rows = store.rows[2:]
        return reply

    api.handle = getattr(store, way)
    api.on("/things", remove)
    connector = connect(things(**pagination))
    with pytest.raises(SourceChanged):
        records(connector, "things")
    assert [row["id"] for row in records(connector, "things")] == list(range(3, 13))


def test_an_api_that_gives_fewer_than_it_says_is_not_believed(api: Api, connect: Connect) -> None:
    api.handle = lambda asked: Reply(body={"items": rows(3), "total": 4})
    with pytest.raises(SourceChanged, match="4 records, and gave 3"):
        records(connect(things(kind="none", total="total")), "things")


def test_an_api_that_ignores_the_page_is_named(api: Api, connect: Connect) -> None:
    api.handle = lambda asked: Reply(body={"items": rows(5)})
    with pytest.raises(AnswerUnusable, match="same page again"):
        records(connect(things(**PAGE)), "things")


def test_a_cursor_that_goes_round_ends(api: Api, connect: Connect) -> None:
    api.handle = lambda asked: Reply(body={"items": rows(5), "meta": {"next": "same"}})
    with pytest.raises(AnswerUnusable, match="same page again"):
        records(connect(things(kind="cursor", param="after", next="meta.next")), "things")


def test_the_next_page_is_never_fetched_from_another_server(api: Api, connect: Connect) -> None:
    for url in ("http://127.0.0.2:1/things", "//evil.example/things", "https://127.0.0.1/things"):
        api.on("/things", Reply(body={"items": rows(5), "next": url}))
        connector = connect(things(kind="next_url", next="next"), auth="bearer", secret="s3cret")
        with pytest.raises(AnswerUnusable, match="another server"):
            records(connector, "things")


def test_a_connection_that_breaks_in_mid_page_loses_nothing(
    api: Api, connect: Connect, waits: list[float]
) -> None:
    store = Store(api, 12)
    api.handle = store.by_offset
    whole = store._slice(0)
    api.on("/things", Reply(body=whole.body, cut=40), Reply(reset=True))
    assert records(connect(things(**OFFSET)), "things") == store.rows
    assert len(waits) == 2


def test_a_server_that_stays_broken_is_an_error_and_not_an_end(api: Api, connect: Connect) -> None:
    store = Store(api, 12)
    api.handle = store.by_offset
    api.on("/things", store.by_offset, *[Reply(reset=True)] * 3)
    with pytest.raises(ConnectionLost):
        records(connect(things(**OFFSET), retries=2), "things")


def test_many_pages_are_read_one_at_a_time(api: Api, connect: Connect) -> None:
    store = Store(api, 20_000, size=1_000)
    api.handle = store.by_cursor
    connector = connect(things(kind="cursor", param="after", next="meta.next"))
    dataset = connector.describe("things")
    reading = connector.read(ReadRequest(dataset, ("id",)))
    assert next(reading).records.num_rows == 1_000
    assert len(api.asked) <= 2
    assert sum(batch.records.num_rows for batch in reading) == 19_000


def test_keys_are_remembered_in_little_space() -> None:
    seen = SeenKeys()
    assert all(seen.add(str(number)) for number in range(50_000))
    assert not any(seen.add(str(number)) for number in range(0, 50_000, 7))
    assert len(seen) == 50_000
    assert seen._slots.itemsize * len(seen._slots) <= 32 * 50_000


def test_records_without_a_key_and_twins_of_one_page_are_not_taken_for_repetitions(
    api: Api, connect: Connect
) -> None:
    pages = {
        "1": [{"id": None, "name": "a"}, {"id": 1, "name": "b"}, {"id": 1, "name": "c"}],
        "2": [{"id": None, "name": "d"}, {"id": 1, "name": "b"}, 7],
        "3": [],
    }
    api.handle = lambda asked: Reply(body={"items": pages[asked.params["page"]], "total": 5})
    connector = connect(things(**PAGE, total="total"))
    request = ReadRequest(connector.describe("things"), ("id", "name"))
    read, rejected = read_with_rejections(connector, request)
    assert read.column("name").to_pylist() == ["a", "b", "c", "d"]
    assert len(rejected) == 1


def test_a_parent_that_goes_while_its_children_are_read_is_tried_again(
    api: Api, connect: Connect
) -> None:
    api.handle = lambda asked: Reply(body=[{"id": 1}]) if asked.path == "/a" else Reply(404)
    datasets = {
        "a": {"path": "/a", "key": ["id"], "fields": {"id": "integer"}},
        "b": {
            "path": "/a/{a}/b",
            "parent": {"dataset": "a", "fields": {"a": "id"}},
            "fields": {"id": "integer"},
        },
    }
    with pytest.raises(SourceChanged, match="parent"):
        records(connect(datasets), "b")
