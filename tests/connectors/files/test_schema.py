from __future__ import annotations

import json
from pathlib import Path

import pytest

from apps.connectors.errors import ConfigurationError, SchemaMismatch
from apps.connectors.files.inference import infer_json
from tests.connectors.files.conftest import Connect
from tests.connectors.files.support import read, schema_of


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["1", "-2", "0"], "integer"),
        (["01", "2"], "text"),
        (["+1"], "text"),
        (["-0"], "text"),
        (["9223372036854775807"], "integer"),
        (["9223372036854775808"], "decimal(38,0)"),
        (["1" * 39], "text"),
        (["1.50", "2"], "decimal(18,2)"),
        (["12345678901234567.50"], "decimal(38,2)"),
        (["1e5", "2.5"], "float"),
        (["1,5"], "text"),
        (["1 000"], "text"),
        (["true", "FALSE"], "boolean"),
        (["yes", "no"], "text"),
        (["0", "1"], "integer"),
        (["2024-02-29"], "date"),
        (["2024-02-30"], "text"),
        (["01/02/2024"], "text"),
        (["20240102"], "integer"),
        (["2024-01-02T03:04:05", "2024-01-02 03:04:05.123456"], "timestamp"),
        (["2024-01-02T03:04:05.1234567"], "text"),
        (["2024-01-02T03:04:05Z", "2024-01-02 03:04:05+02"], "timestamptz"),
        (["2024-01-02T03:04:05Z", "2024-01-02T03:04:05"], "text"),
        (["2024-01-02", "2024-01-02T03:04:05"], "text"),
        (["12:30:00"], "time"),
        (["A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11"], "uuid"),
        (["NaN"], "text"),
        (["", ""], "text"),
        (["", "5"], "integer"),
        ([" 5"], "text"),
    ],
)
def test_types_are_inferred_conservatively(
    connect: Connect, tmp_path: Path, values: list[str], expected: str
) -> None:
    rows = "".join(f'{n},"{value}"\n' for n, value in enumerate(values))
    (tmp_path / "a.csv").write_text("id,v\n" + rows)
    schema = connect().describe("a.csv")
    assert str(schema.field("v").type) == expected
    assert read(connect(), "a.csv")[1] == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[1, 2]", "integer"),
        ("[true, null]", "boolean"),
        ("[true, 1]", "json"),
        ("[18446744073709551615]", "decimal(38,0)"),
        ("[1.5, 2]", "decimal(18,1)"),
        ("[1e20, 2.5]", "float"),
        ('["2024-01-01"]', "date"),
        ('["1"]', "text"),
        ('["", "2024-01-01"]', "text"),
        ('[{"a": 1}]', "json"),
        ("[[1], [2, null]]", "array(integer)"),
        ('[[1], ["x"]]', "json"),
        ("[null]", "text"),
    ],
)
def test_types_of_json_members(text: str, expected: str) -> None:
    from apps.connectors.files.json_text import parse

    assert str(infer_json(parse(text))) == expected


def test_a_schema_file_overrides_what_is_inferred(connect: Connect, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id,zip,n\n1,123,5\n")
    document = {
        "fields": [
            {"name": "zip", "type": "text(5)"},
            {"name": "id", "type": "integer", "nullable": False},
        ],
        "key": ["id"],
    }
    (tmp_path / "a.csv.schema.json").write_text(json.dumps(document))
    schema = connect().describe("a.csv")
    assert [(f.name, str(f.type), f.nullable) for f in schema.fields] == [
        ("id", "integer", False),
        ("zip", "text(5)", True),
        ("n", "integer", True),
    ]
    assert schema.key == ("id",)
    assert connect(schema_source="inferred").describe("a.csv").key == ()


@pytest.mark.parametrize(
    "text",
    [
        "{",
        '{"fields": [{"name": "id"}]}',
        '{"fields": [{"name": "id", "type": "int4"}]}',
        '{"fields": [{"name": "gone", "type": "text"}]}',
        '{"fields": [{"name": "id", "type": "text"}], "key": ["other"]}',
        '{"fields": [{"name": "id", "type": "text"}, {"name": "id", "type": "text"}]}',
    ],
)
def test_a_wrong_schema_file_is_refused_but_hides_no_file(
    connect: Connect, tmp_path: Path, text: str
) -> None:
    (tmp_path / "a.csv").write_text("id\n1\n")
    (tmp_path / "a.csv.schema.json").write_text(text)
    with pytest.raises(SchemaMismatch):
        connect().describe("a.csv")
    assert [(d.name, d.fields) for d in connect().discover()] == [("a.csv", ())]


def test_a_schema_file_may_be_required(connect: Connect, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id\n1\n")
    with pytest.raises(SchemaMismatch, match="no schema file"):
        connect(schema_source="sidecar").describe("a.csv")


@pytest.mark.parametrize("name", ["a.csv", "sub/a.tsv.gz", "a.jsonl", "a.json", "a.parquet"])
def test_a_created_dataset_is_empty_and_has_its_types(connect: Connect, name: str) -> None:
    connector = connect()
    wanted = schema_of(
        name, key=("id",), id="integer", d="decimal(10,2)", u="uuid", j="json", a="array(text)"
    )
    connector.create_dataset(wanted)
    schema = connector.describe(name)
    assert [(f.name, f.type, f.nullable) for f in schema.fields] == [
        (f.name, f.type, f.nullable) for f in wanted.fields
    ]
    assert schema.key == ("id",)
    assert read(connector, name) == ([], [])
    with pytest.raises(ConfigurationError, match="already"):
        connector.create_dataset(wanted)


def test_discovery_names_format_and_size(connect: Connect, tmp_path: Path) -> None:
    (tmp_path / "b.csv").write_text("id\n1\n2\n")
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "a.ndjson").write_text('{"id": 1}\n')
    (tmp_path / "readme.txt").write_text("no data")
    (tmp_path / ".hidden.csv").write_text("id\n")
    found = connect().discover()
    assert [(d.name, d.format, d.row_count, d.size_bytes) for d in found] == [
        ("b.csv", "csv", 2, 7),
        ("deep/a.ndjson", "jsonl", 1, 10),
    ]
    assert [d.name for d in connect(pattern="deep/*").discover()] == ["deep/a.ndjson"]
