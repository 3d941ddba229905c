from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest

from apps.connectors.errors import ConfigurationError
from apps.connectors.files import json_format
from tests.connectors.files.conftest import Connect
from tests.connectors.files.support import codes, read, schema_of


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b'{"id": 2, "t": "cut', "record.malformed"),
        (b"[1, 2]", "record.malformed"),
        (b"17", "record.malformed"),
        (b'{"id": 2, "id": 3}', "record.malformed"),
        (b'{"id": 2, "t": {"a": 1, "a": 2}}', "record.malformed"),
        (b'{"id": NaN}', "record.malformed"),
        (b'{"id": Infinity}', "record.malformed"),
        (b'{"id": 2, "t": "caf\xe9"}', "record.wrong_encoding"),
        (b'{"id": 2\0}', "record.nul_byte"),
        (b"[" * 100_000, "record.malformed"),
        (b'{"id": ' + b"9" * 5000 + b"}", "record.malformed"),
        (b'{"id": 1e999999999}', "record.malformed"),
    ],
)
def test_a_line_that_is_no_record_is_rejected_and_the_rest_flows(
    connect: Connect, tmp_path: Path, line: bytes, code: str
) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"id": 1}\n\n' + line + b'\n{"id": 3}')
    records, rejected = read(connect(), schema_of("a.jsonl", id="integer", t="text"))
    assert [r["id"] for r in records] == [1, 3]
    assert codes(rejected) == [("line 3", code)]


def test_a_file_cut_in_its_last_line_keeps_the_lines_before(
    connect: Connect, tmp_path: Path
) -> None:
    (tmp_path / "a.jsonl").write_text('{"id": 1}\n{"id": 2}\n{"id": 3, "na')
    records, rejected = read(connect(), "a.jsonl")
    assert [r["id"] for r in records] == [1, 2]
    assert codes(rejected) == [("line 3", "record.malformed")]


def test_numbers_beyond_float_stay_exact(connect: Connect, tmp_path: Path) -> None:
    text = '{"d": 12345678901234567890.123456789, "big": 18446744073709551616}\n'
    (tmp_path / "a.jsonl").write_text(text)
    (record,), _ = read(connect(), "a.jsonl")
    assert record == {
        "d": Decimal("12345678901234567890.123456789"),
        "big": Decimal(18446744073709551616),
    }


def test_nested_values_are_canonical_json_and_simple_lists_arrays(
    connect: Connect, tmp_path: Path
) -> None:
    (tmp_path / "a.jsonl").write_text(
        '{"j": {"b": 1.50, "a": [true, null]}, "l": [1, 2], "m": 1}\n{"l": [], "m": "x"}\n'
    )
    connector = connect()
    schema = connector.describe("a.jsonl")
    assert [str(f.type) for f in schema.fields] == ["json", "array(integer)", "json"]
    records, _ = read(connector, schema)
    assert records == [
        {"j": '{"a":[true,null],"b":1.5}', "l": [1, 2], "m": "1"},
        {"j": None, "l": [], "m": '"x"'},
    ]


@pytest.mark.parametrize(
    ("kind", "value"),
    [("integer", '"x"'), ("integer", "1.5"), ("boolean", "1"), ("text", "5"), ("date", "5"),
     ("integer", "9223372036854775808"), ("array(integer)", '[1, "x"]'), ("text", '"\\ud800"')],
)  # fmt: skip
def test_a_value_of_another_type_is_rejected(
    connect: Connect, tmp_path: Path, kind: str, value: str
) -> None:
    (tmp_path / "a.jsonl").write_text(f'{{"id": 1, "v": {value}}}\n{{"id": 2, "v": null}}\n')
    records, rejected = read(connect(), schema_of("a.jsonl", key=("id",), id="integer", v=kind))
    assert [r["id"] for r in records] == [2]
    assert [(r.position, r.field, r.key) for r in rejected] == [("line 1", "v", {"id": 1})]


def test_an_array_is_read_record_by_record(
    connect: Connect, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.json").write_text('[\n{"id": 1},\n {"id": 2,\n "t": "é]}"}, 7,\n{"id": 3}\n]\n')
    monkeypatch.setattr("apps.connectors.files.streams.CHUNK", 1)
    records, rejected = read(connect(), schema_of("a.json", id="integer", t="text"))
    assert [(r["id"], r["t"]) for r in records] == [(1, None), (2, "é]}"), (3, None)]
    assert codes(rejected) == [("line 4", "record.malformed")]


def test_the_array_may_lie_inside_an_object(connect: Connect, tmp_path: Path) -> None:
    text = '{"meta": {"n": [1]}, "data": {"page": 1, "items": [{"id": 1}, {"id": 2}]}, "z": 0}'
    (tmp_path / "a.json").write_text(text)
    assert read(connect(json_records_path="data.items"), "a.json")[0] == [{"id": 1}, {"id": 2}]
    with pytest.raises(ConfigurationError, match="JSON object"):
        connect().describe("a.json")
    with pytest.raises(ConfigurationError, match="'rows'"):
        connect(json_records_path="rows").describe("a.json")


@pytest.mark.parametrize(
    "tail", [b'{"id": 3', b'{"id": 3}', b'{"id": }, {"id": 4}]', b'{"id": 3}] more', b""]
)
def test_where_an_array_breaks_the_rest_is_one_rejection(
    connect: Connect, tmp_path: Path, tail: bytes
) -> None:
    (tmp_path / "a.json").write_bytes(b'[{"id": 1},\n{"id": 2},\n' + tail)
    records, rejected = read(connect(), schema_of("a.json", id="integer"))
    assert [r["id"] for r in records][:2] == [1, 2]
    assert [r.code for r in rejected] == ["file.malformed"]


@pytest.mark.parametrize(
    "record",
    ['{"id": 2, "id": 3}', '{"id": NaN}', '{"id": 1e999999}', '{"id": ' + "9" * 5000 + "}"],
)
def test_a_record_that_is_wrong_inside_does_not_end_an_array(
    connect: Connect, tmp_path: Path, record: str
) -> None:
    (tmp_path / "a.json").write_text(f'[{{"id": 1}},\n{record},\n{{"id": 3}}]')
    records, rejected = read(connect(), schema_of("a.json", id="integer"))
    assert [r["id"] for r in records] == [1, 3]
    assert codes(rejected) == [("line 2", "record.malformed")]


def test_wrong_bytes_in_an_array_reject_their_record(connect: Connect, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(b'[{"id": 1, "t": "caf\xe9"}, {"id": 2, "t": "x"}]')
    records, rejected = read(connect(), schema_of("a.json", id="integer", t="text"))
    assert [r["id"] for r in records] == [2]
    assert codes(rejected) == [("line 1", "record.wrong_encoding")]


def test_an_empty_file_is_an_empty_array(connect: Connect, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(" \n")
    assert connect().describe("a.json").row_count == 0


def test_lines_longer_than_a_record_may_be_are_rejected(connect: Connect, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(
        '{"id": 1}\n{"id": 2, "t": "' + "x" * (9 << 20) + '"}\n{"id": 3}\n'
    )
    records, rejected = read(connect(max_record_mib=1), schema_of("a.jsonl", id="integer"))
    assert [r["id"] for r in records] == [1, 3]
    assert codes(rejected) == [("line 2", "record.too_large")]


def test_every_line_is_a_record_or_a_rejection_however_chunks_fall() -> None:
    body = b'{"a":1}\n\nx\n{"a":2}\r\n{"a":\n{"a":3}'
    for size in range(1, len(body)):
        chunks = (body[start : start + size] for start in range(0, len(body), size))
        reader = json_format.JsonLinesReader(chunks, max_record=1 << 20)
        runs = list(reader.records())
        records = [(r.line, body[r.start : r.end].strip()) for run, _ in runs for r in run]
        assert records == [(1, b'{"a":1}'), (4, b'{"a":2}'), (6, b'{"a":3}')]
        assert [r.position for _, run in runs for r in run] == ["line 3", "line 5"]
