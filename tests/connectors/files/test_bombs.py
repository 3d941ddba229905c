"""Files that are built to overwhelm are refused before they do."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from apps.connectors.errors import ConfigurationError, SchemaMismatch
from apps.connectors.files import FilesConnector, FilesSettings, limits
from apps.connectors.files.limits import MAX_FIELDS, MAX_JSON_DEPTH, MAX_SCHEMA_FILE_BYTES
from tests.connectors.files.conftest import Connect
from tests.connectors.files.support import codes, read, schema_of
from tests.connectors.files.test_compression import PACK


@pytest.mark.parametrize("suffix", PACK)
def test_a_file_that_unpacks_to_too_much_is_refused_whatever_its_ratio(
    connect: Connect, tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FilesSettings, "max_decompressed", property(lambda _: 1 << 20))
    (tmp_path / f"a.csv.{suffix}").write_bytes(PACK[suffix](b"id\n" + b"1\n" * (1 << 20)))
    with pytest.raises(ConfigurationError, match="GiB") as error:
        connect().count(schema_of(f"a.csv.{suffix}", id="integer"))
    assert "Largest decompressed file" in error.value.remedy


@pytest.mark.parametrize("suffix", PACK)
@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.json"])
def test_a_small_file_that_grows_beyond_measure_is_refused_at_discovery(
    connect: Connect, tmp_path: Path, suffix: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "FREE_OUTPUT", 1 << 20)
    line = {"a.csv": b"1\n", "a.jsonl": b'{"id": 1}\n', "a.json": b'{"id": 1},\n'}[name]
    head = {"a.csv": b"id\n", "a.jsonl": b"", "a.json": b"["}[name]
    (tmp_path / f"{name}.{suffix}").write_bytes(
        PACK[suffix](head + line * ((3 << 20) // len(line)))
    )
    with pytest.raises(ConfigurationError, match="times its size"):
        connect(max_compression_ratio=50, sample_mib=1024).describe(f"{name}.{suffix}")


def test_an_archive_in_an_archive_is_not_unpacked(connect: Connect, tmp_path: Path) -> None:
    (tmp_path / "a.csv.gz.gz").write_bytes(gzip.compress(gzip.compress(b"id\n1\n")))
    (tmp_path / "a.zip").write_bytes(b"PK\x03\x04")
    assert connect().discover() == []


def nested(depth: int) -> str:
    return "[" * depth + "]" * depth


@pytest.mark.parametrize("name", ["a.jsonl", "a.json"])
def test_a_value_that_is_nested_too_deeply_costs_its_record(
    connect: Connect, tmp_path: Path, name: str
) -> None:
    values = [nested(MAX_JSON_DEPTH - 1), nested(MAX_JSON_DEPTH), '"[[[{{{"', nested(400)]
    rows = [f'{{"id": {n}, "v": {value}}}' for n, value in enumerate(values)]
    text = "\n".join(rows) if name == "a.jsonl" else "[" + ",\n".join(rows) + "]"
    (tmp_path / name).write_text(text)
    records, rejected = read(connect(), schema_of(name, id="integer"))
    assert [record["id"] for record in records] == [0, 2]
    assert codes(rejected) == [("line 2", "record.malformed"), ("line 4", "record.malformed")]
    assert "nested too deeply" in rejected[0].message


def test_brackets_inside_texts_are_no_depth(connect: Connect, tmp_path: Path) -> None:
    text = json.dumps('\\"[{' * 1000)
    (tmp_path / "a.jsonl").write_text(f'{{"id": 1, "v": {text}}}\n')
    assert len(read(connect(), schema_of("a.jsonl", id="integer", v="text"))[0]) == 1


def test_brackets_without_an_end_do_not_end_the_program(connect: Connect, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("[" * 3_000_000)
    (tmp_path / "b.jsonl").write_text('{"a":' * 1_000_000)
    connector = connect(max_record_mib=1)
    assert codes(read(connector, schema_of("a.json", id="integer"))[1]) == [
        ("line 1", "file.malformed")
    ]
    assert codes(read(connector, schema_of("b.jsonl", id="integer"))[1]) == [
        ("line 1", "record.too_large")
    ]


def too_many() -> list[str]:
    return [f"f{number}" for number in range(MAX_FIELDS + 1)]


def write_csv(path: Path, names: list[str]) -> None:
    path.write_text(",".join(names) + "\n" + ",".join("1" for _ in names) + "\n")


def write_jsonl(path: Path, names: list[str]) -> None:
    path.write_text("".join(f'{{"{name}": 1}}\n' for name in names))


def write_parquet(path: Path, names: list[str]) -> None:
    pq.write_table(pa.table({name: [1] for name in names}), path)


@pytest.mark.parametrize(
    ("name", "write"),
    [("a.csv", write_csv), ("a.jsonl", write_jsonl), ("a.parquet", write_parquet)],
)
def test_too_many_fields_are_refused(
    connect: Connect, tmp_path: Path, name: str, write: Any
) -> None:
    write(tmp_path / name, too_many())
    with pytest.raises(SchemaMismatch, match="5,000 fields"):
        connect().describe(name)
    write(tmp_path / name, too_many()[:500])
    assert len(connect().describe(name).fields) == 500


def test_a_header_of_millions_of_equal_names_takes_no_time(
    connect: Connect, tmp_path: Path
) -> None:
    (tmp_path / "a.csv").write_bytes(b"a," * 4_000_000 + b"a\n")
    with pytest.raises(SchemaMismatch):
        connect().describe("a.csv")


def test_a_parquet_file_that_grows_beyond_measure_is_refused(
    connect: Connect, tmp_path: Path
) -> None:
    table = pa.table({"v": pa.array(["x" * 1000] * 100_000)})
    pq.write_table(table, tmp_path / "a.parquet", compression="zstd", use_dictionary=False)
    with pytest.raises(ConfigurationError, match="times its size"):
        connect(max_compression_ratio=100).describe("a.parquet")
    assert connect(max_compression_ratio=100_000).describe("a.parquet").row_count == 100_000


def test_a_schema_file_beyond_measure_is_refused(connect: Connect, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id\n1\n")
    (tmp_path / "a.csv.schema.json").write_bytes(b" " * (MAX_SCHEMA_FILE_BYTES + 1))
    with pytest.raises(SchemaMismatch, match="too large"):
        connect().describe("a.csv")
    fields = [{"name": name, "type": "text"} for name in too_many()]
    (tmp_path / "a.csv.schema.json").write_text(json.dumps({"fields": fields}))
    with pytest.raises(SchemaMismatch, match="fields"):
        connect().describe("a.csv")


def test_a_line_without_an_end_is_one_rejection(connect: Connect, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"id,v\n1,a\n" + b"x" * (3 << 20) + b"\n2,b\n")
    connector: FilesConnector = connect(max_record_mib=1)
    records, rejected = read(connector, schema_of("a.csv", id="integer", v="text"))
    assert [record["id"] for record in records] == [1, 2]
    assert codes(rejected) == [("line 3", "record.too_large")]
