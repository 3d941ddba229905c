from __future__ import annotations

import datetime as dt
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from apps.connectors.base import Operation
from apps.connectors.errors import SchemaMismatch
from tests.connectors.files.conftest import Connect
from tests.connectors.files.support import apply, read, statuses


def test_native_types_become_neutral_ones(connect: Connect, tmp_path: Path) -> None:
    table = pa.table(
        {
            "i": pa.array([1], pa.int32()),
            "u": pa.array([2**64 - 1], pa.uint64()),
            "f": pa.array([0.5], pa.float32()),
            "d": pa.array([Decimal("1.50")], pa.decimal128(10, 2)),
            "w": pa.array([Decimal("1.50")], pa.decimal256(50, 2)),
            "ms": pa.array([0], pa.timestamp("ms")),
            "tz": pa.array([0], pa.timestamp("us", "Europe/Paris")),
            "s": pa.array(["x"], pa.large_string()),
            "c": pa.array(["x"]).dictionary_encode(),
            "l": pa.array([[1, None]], pa.list_(pa.int32())),
            "m": pa.array([{"b": 1, "a": "x"}]),
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")
    schema = connect().describe("a.parquet")
    assert [str(f.type) for f in schema.fields] == [
        "integer", "decimal(20,0)", "float", "decimal(10,2)", "decimal(50,2)", "timestamp",
        "timestamptz", "text", "text", "array(integer)", "json",
    ]  # fmt: skip
    (record,), rejected = read(connect(), "a.parquet")
    assert rejected == []
    assert record["u"] == Decimal(2**64 - 1)
    assert record["w"] == "1.5"
    assert record["tz"] == dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
    assert record["l"] == [1, None]
    assert record["m"] == '{"a":"x","b":1}'


def test_a_value_that_does_not_fit_is_rejected_by_row(connect: Connect, tmp_path: Path) -> None:
    table = pa.table({"id": [1, 2], "ns": pa.array([1000, 1001], pa.timestamp("ns"))})
    pq.write_table(table, tmp_path / "a.parquet")
    records, rejected = read(connect(), "a.parquet")
    assert [r["id"] for r in records] == [1]
    assert [(r.position, r.code, r.field) for r in rejected] == [
        ("row 2", "record.out_of_range", "ns")
    ]


def test_a_write_keeps_types_metadata_and_compression(connect: Connect, tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    tags = pa.map_(pa.string(), pa.int8())
    fields = [pa.field("id", pa.int32(), False), ("t", pa.string()), ("m", tags)]
    schema = pa.schema(fields, metadata={"owner": "sales"})
    rows = {"id": range(1000), "t": ["x"] * 1000, "m": [[("a", 1)]] * 1000}
    pq.write_table(pa.table(rows, schema=schema), path, compression="gzip", row_group_size=100)
    connector = connect()
    result = apply(
        connector,
        "a.parquet",
        Operation.UPDATE,
        {"id": [5, 999]},
        {"t": ["x", "x"]},
        {"t": ["y", None]},
    )
    assert statuses(result) == {}
    apply(connector, "a.parquet", Operation.DELETE, {"id": [0]}, {"t": ["x"]})
    result = apply(
        connector,
        "a.parquet",
        Operation.INSERT,
        {"id": [2000, 2**40]},
        after={"id": [2000, 2**40], "t": ["n", "n"]},
    )
    assert {row: p.code for row, p in result.exceptions.items()} == {1: "record.out_of_range"}
    after = pq.read_table(path)
    assert after.schema.equals(schema, check_metadata=False)
    assert after.schema.metadata[b"owner"] == b"sales"
    assert pq.ParquetFile(path).metadata.row_group(0).column(0).compression == "GZIP"
    assert after["id"].to_pylist() == [*range(1, 1000), 2000]
    by_id = dict(zip(after["id"].to_pylist(), after["t"].to_pylist(), strict=True))
    assert (by_id[4], by_id[5], by_id[999], by_id[2000]) == ("x", "y", None, "n")
    assert after["m"][0].as_py() == [("a", 1)]


def test_a_file_that_is_cut_off_is_refused(connect: Connect, tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": range(1000)}), tmp_path / "a.parquet")
    data = (tmp_path / "a.parquet").read_bytes()
    (tmp_path / "a.parquet").write_bytes(data[:-100])
    with pytest.raises(SchemaMismatch, match="Parquet"):
        connect().describe("a.parquet")


def test_a_broken_row_group_costs_its_rows_only(connect: Connect, tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    values = pa.table({"id": range(1000), "t": [str(n) * 3 for n in range(1000)]})
    pq.write_table(values, path, row_group_size=100, compression="zstd", use_dictionary=False)
    place = pq.ParquetFile(path).metadata.row_group(3).column(1).data_page_offset
    data = bytearray(path.read_bytes())
    data[place : place + 40] = b"\xff" * 40
    path.write_bytes(bytes(data))
    records, rejected = read(connect(), "a.parquet")
    assert len(records) == 900
    assert [(r.position, r.code) for r in rejected] == [("rows 301 to 400", "file.malformed")]
