"""Fields, types, keys, cursors, parents and what is gone."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from apps.connectors.base import CursorWindow, ReadRequest
from apps.connectors.errors import DatasetMissing, FieldMissing
from apps.connectors.rest.answers import AnswerUnusable
from apps.connectors.rest.parts import Incremental
from apps.connectors.rest.reading import moment_text
from apps.connectors.testing import read_with_rejections
from tests.connectors.rest.conftest import Connect, records
from tests.connectors.rest.server import Api, Asked, Reply

PEOPLE = [
    {"id": 1, "name": "Ada", "at": "2024-01-01T10:00:00Z", "score": 1.5, "tags": ["a"], "x": {}},
    {"id": 2, "name": None, "at": "2024-02-01T10:00:00Z", "score": 20, "tags": [], "x": {"y": 1}},
]


def test_types_are_those_of_a_sample(api: Api, connect: Connect) -> None:
    api.handle = lambda asked: Reply(body=PEOPLE)
    found = connect({"people": {"path": "people", "key": ["id"]}}).describe("people")
    assert {f.name: str(f.type) for f in found.fields} == {
        "id": "integer",
        "name": "text",
        "at": "timestamptz",
        "score": "decimal(18,1)",
        "tags": "array(text)",
        "x": "json",
    }
    assert (found.key, found.format, found.writable) == (("id",), "json", False)


def test_declared_fields_need_no_request(api: Api, connect: Connect) -> None:
    fields = {"id": "integer", "city": {"type": "text(40)", "path": "address.city"}}
    connector = connect({"people": {"path": "/people", "key": ["id"], "fields": fields}})
    assert [str(f.type) for f in connector.describe("people").fields] == ["integer", "text(40)"]
    assert api.asked == []
    api.handle = lambda asked: Reply(body=[{"id": 1, "address": {"city": "Bonn"}}, {"id": 2}])
    assert records(connector, "people") == [{"id": 1, "city": "Bonn"}, {"id": 2, "city": None}]


def test_values_come_by_jmespath(api: Api, connect: Connect) -> None:
    api.handle = lambda asked: Reply(body={"d": {"rows": [{"id": 1, "mails": [{"m": "a@b"}]}]}})
    fields = {"id": "integer", "mail": {"path": "mails[0].m", "type": "text"}}
    people = {"path": "/people", "records": "d.rows", "fields": fields}
    assert records(connect({"people": people}), "people") == [{"id": 1, "mail": "a@b"}]


def test_numbers_keep_every_digit(api: Api, connect: Connect) -> None:
    api.handle = lambda asked: Reply(raw=b'[{"n": 12345678901234567890.0123456789}]')
    fields = {"n": "decimal(38,10)"}
    found = records(connect({"numbers": {"path": "/n", "fields": fields}}), "numbers")
    assert str(found[0]["n"]) == "12345678901234567890.0123456789"


def test_a_record_that_does_not_fit_stops_no_other(api: Api, connect: Connect) -> None:
    api.handle = lambda asked: Reply(body=[{"id": 1}, {"id": "x"}, 7, {"id": 3}])
    connector = connect({"people": {"path": "/p", "key": ["id"], "fields": {"id": "integer"}}})
    request = ReadRequest(connector.describe("people"), ("id",))
    read, rejected = read_with_rejections(connector, request)
    assert read.column("id").to_pylist() == [1, 3]
    assert sorted(r.code for r in rejected) == ["record.invalid", "record.malformed"]
    assert {r.position for r in rejected} == {
        "record 2 of page 1 of /p",
        "record 3 of page 1 of /p",
    }


def test_what_is_not_there_is_named(api: Api, connect: Connect) -> None:
    connector = connect({"people": {"path": "/p", "fields": {"id": "integer"}}})
    with pytest.raises(DatasetMissing):
        connector.describe("others")
    known = connector.describe("people")
    gone = connect({"people": {"path": "/p", "fields": {"name": "text"}}})
    with pytest.raises(FieldMissing, match="id"):
        list(gone.read(ReadRequest(known, ("id",))))


NOON = datetime(2024, 2, 29, 12, 0, 30, 500_000, tzinfo=UTC)


@pytest.mark.parametrize(
    ("after", "options", "text"),
    [
        (NOON, {}, "2024-02-29T12:00:30Z"),
        (NOON, {"exclusive": True}, "2024-02-29T12:00:29Z"),
        (NOON, {"format": "date"}, "2024-02-29"),
        (NOON, {"format": "date", "exclusive": True}, "2024-02-28"),
        (NOON, {"format": "epoch"}, "1709208030"),
        (NOON, {"format": "epoch_ms"}, "1709208030500"),
        (date(2024, 2, 29), {}, "2024-02-29"),
        (17, {"format": "value"}, "17"),
        (17, {"format": "value", "exclusive": True}, "16"),
        ("abc", {"format": "value"}, "abc"),
    ],
)
def test_a_cursor_is_never_later_than_asked_for(
    after: Any, options: dict[str, Any], text: str
) -> None:
    assert moment_text(after, Incremental(field="at", param="since", **options)) == text


def test_what_changed_is_asked_for_and_chosen_again(api: Api, connect: Connect) -> None:
    api.handle = lambda asked: Reply(body=PEOPLE)
    people = {
        "path": "/people",
        "key": ["id"],
        "fields": {"id": "integer", "at": "timestamptz"},
        "incremental": {"field": "at", "param": "since"},
    }
    connector = connect({"people": people})
    window = CursorWindow("at", datetime(2024, 1, 15, tzinfo=UTC))
    assert [row["id"] for row in records(connector, "people", cursor=window)] == [2]
    assert api.asked[-1].params == {"since": "2024-01-15T00:00:00Z"}
    assert len(records(connector, "people", cursor=CursorWindow("at"))) == 2
    assert api.asked[-1].params == {}


SHOPS = {
    "shops": {"path": "/shops", "key": ["code"], "fields": {"code": "text", "name": "text"}},
    "orders": {
        "path": "/shops/{shop}/orders",
        "parent": {"dataset": "shops", "fields": {"shop": "code"}},
        "key": ["shop", "id"],
        "fields": {"id": "integer"},
        "item": "/shops/{shop}/orders/{id}",
    },
}


def shops(asked: Asked) -> Reply:
    if asked.path == "/shops":
        return Reply(body=[{"code": "a b"}, {"code": "c/d"}])
    numbers = {"/shops/a%20b/orders": [1, 2], "/shops/c%2Fd/orders": [1]}
    if asked.path in numbers:
        return Reply(body=[{"id": n} for n in numbers[asked.path]])
    if asked.path == "/shops/c%2Fd/orders/1":
        return Reply(body={"id": 1})
    return Reply(404)


def test_children_are_read_through_their_parents(api: Api, connect: Connect) -> None:
    api.handle = shops
    connector = connect(SHOPS)
    assert records(connector, "orders") == [
        {"shop": "a b", "id": 1},
        {"shop": "a b", "id": 2},
        {"shop": "c/d", "id": 1},
    ]
    dataset = connector.describe("orders")
    keys = pa.table({"shop": ["c/d", "c/d"], "id": pa.array([1, 9], pa.int64())})
    asked_before = len(api.asked)
    read, _ = read_with_rejections(connector, ReadRequest(dataset, ("id", "shop"), keys=keys))
    assert read.to_pylist() == [{"id": 1, "shop": "c/d"}]
    assert {one.path for one in api.asked[asked_before:]} == {
        "/shops/c%2Fd/orders/1",
        "/shops/c%2Fd/orders/9",
    }


@pytest.mark.parametrize("code", ["..", ".", ""])
def test_a_key_that_no_path_can_hold_leads_nowhere_else(
    api: Api, connect: Connect, code: str
) -> None:
    api.handle = lambda asked: Reply(body=[{"code": code}, {"code": "x"}])
    shop = {**SHOPS["shops"], "item": "/shops/{code}"}
    keys = pa.table({"code": [code]})
    found = records(connect({"shops": shop}), "shops", keys=keys)
    assert [row["code"] for row in found] == [code]
    assert [one.path for one in api.asked] == ["/shops"]


def test_several_keys_are_found_by_one_request(api: Api, connect: Connect) -> None:
    def answer(asked: Asked) -> Reply:
        wanted = asked.params["ids"].split("|")
        return Reply(body=[{"id": int(n)} for n in wanted if int(n) < 10])

    api.handle = answer
    people = {
        "path": "/people",
        "key": ["id"],
        "fields": {"id": "integer"},
        "by_keys": {"param": "ids", "most": 2, "separator": "|"},
    }
    keys = pa.table({"id": pa.array([1, 5, 99], pa.int64())})
    assert records(connect({"people": people}), "people", keys=keys) == [{"id": 1}, {"id": 5}]
    assert [one.params["ids"] for one in api.asked] == ["1|5", "99"]


def test_records_are_found_by_business_key(api: Api, connect: Connect) -> None:
    api.handle = lambda asked: Reply(body=[{"id": 1, "mail": "a@b"}, {"id": 2, "mail": "A@B"}])
    people = {
        "path": "/people",
        "key": ["id"],
        "fields": {"id": "integer", "mail": "text"},
        "search": {"params": {"q": "mail:{mail}"}},
    }
    keys = pa.table({"mail": ["a@b"]})
    assert [r["id"] for r in records(connect({"people": people}), "people", keys=keys)] == [1]
    assert [one.params for one in api.asked] == [{"q": "mail:a@b"}]


def test_what_the_api_marks_or_lists_as_deleted_is_absent(api: Api, connect: Connect) -> None:
    bodies = {
        "/people": [{"id": n, "archived": n == 2} for n in range(1, 6)],
        "/deleted": {"gone": [{"ref": {"id": 4}}]},
    }
    api.handle = lambda asked: Reply(body=bodies[asked.path])
    people = {
        "path": "/people",
        "key": ["id"],
        "fields": {"id": "integer"},
        "absent_when": "archived",
        "tombstones": {"path": "/deleted", "records": "gone", "key": {"id": "ref.id"}},
    }
    connector = connect({"people": people})
    assert [row["id"] for row in records(connector, "people")] == [1, 3, 5]
    assert connector.count(connector.describe("people")) == 3


def test_csv_is_read_as_well(api: Api, connect: Connect) -> None:
    text = 'id,born,note\n1,2001-02-03,"a, b"\n2,,\n'
    api.handle = lambda asked: Reply(raw=text.encode(), headers={"Content-Type": "text/csv"})
    connector = connect({"people": {"path": "/p", "key": ["id"], "format": "csv"}})
    assert records(connector, "people") == [
        {"id": 1, "born": date(2001, 2, 3), "note": "a, b"},
        {"id": 2, "born": None, "note": None},
    ]


XML = b"""<?xml version="1.0"?>
<answer xmlns="urn:x" xmlns:y="urn:y"><invoices total="3">
  <invoice number="1"><y:amount><total>12.50</total></y:amount>
    <line>a</line><line>b</line></invoice>
  <invoice number="2"><y:amount/><paid>true</paid></invoice>
</invoices></answer>"""
INVOICES = {
    "path": "/invoices",
    "format": "xml",
    "records": "invoices.invoice",
    "key": ["number"],
    "fields": {
        "number": {"type": "integer", "path": '"@number"'},
        "total": {"type": "decimal(12,2)", "path": "amount.total"},
        "line": "json",
        "paid": "boolean",
    },
}


def xml(data: bytes) -> Reply:
    return Reply(raw=data, headers={"Content-Type": "application/xml"})


def test_xml_is_read_like_json(api: Api, connect: Connect) -> None:
    api.handle = lambda asked: xml(XML)
    assert records(connect({"invoices": INVOICES}), "invoices") == [
        {"number": 1, "total": Decimal("12.50"), "line": '["a","b"]', "paid": None},
        {"number": 2, "total": None, "line": None, "paid": True},
    ]
    one = XML[: XML.index(b'  <invoice number="2"')] + b"</invoices></answer>"
    api.handle = lambda asked: xml(one)
    assert len(records(connect({"invoices": INVOICES}), "invoices")) == 1
    api.handle = lambda asked: xml(b"<answer><invoices/></answer>")
    assert records(connect({"invoices": INVOICES}), "invoices") == []


@pytest.mark.parametrize(
    "data",
    [
        b"<a>",
        b'<!DOCTYPE a [<!ENTITY b "c">]><answer><invoices>&b;</invoices></answer>',
        b'<!DOCTYPE a SYSTEM "file:///etc/passwd"><answer/>',
        b"<a>" * 200 + b"</a>" * 200,
        b"<?xml version='1.0' encoding='none'?><a/>",
    ],
    ids=["cut off", "entity", "outside", "deep", "encoding"],
)
def test_xml_that_means_harm_is_refused(api: Api, connect: Connect, data: bytes) -> None:
    api.handle = lambda asked: xml(data)
    with pytest.raises(AnswerUnusable, match="no XML"):
        records(connect({"invoices": INVOICES}), "invoices")


def test_types_of_xml_are_inferred_from_its_texts(api: Api, connect: Connect) -> None:
    api.handle = lambda asked: xml(XML)
    found = connect({"i": {"path": "/i", "format": "xml", "records": "invoices.invoice"}})
    types = {f.name: str(f.type) for f in found.describe("i").fields}
    assert types == {"@number": "integer", "amount": "json", "line": "json", "paid": "boolean"}
