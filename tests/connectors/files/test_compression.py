from __future__ import annotations

import gzip
from pathlib import Path

import pyarrow as pa
import pytest

from apps.connectors.base import DatasetSchema, Operation
from apps.connectors.errors import ConfigurationError, MalformedFile
from apps.connectors.files import FilesConnector
from tests.connectors.files.conftest import Connect
from tests.connectors.files.support import apply, codes, read, schema_of

LINES = "".join(f"{n},{n * 2654435761 % 4294967296}\n" for n in range(200_000))
CSV = ("id,t\n" + LINES).encode()


def zstd(data: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(data)
    return bytes(sink.getvalue().to_pybytes())


PACK = {"gz": gzip.compress, "zst": zstd}


def schema(suffix: str) -> DatasetSchema:
    return schema_of(f"a.csv.{suffix}", id="integer", t="integer")


@pytest.mark.parametrize("suffix", PACK)
def test_a_compressed_file_reads_like_a_plain_one(
    connect: Connect, tmp_path: Path, suffix: str
) -> None:
    (tmp_path / f"a.csv.{suffix}").write_bytes(PACK[suffix](CSV))
    connector = connect()
    assert connector.describe(f"a.csv.{suffix}").format == "csv"
    records, rejected = read(connector, f"a.csv.{suffix}")
    assert len(records) == 200_000
    assert rejected == []


def test_a_gzip_of_several_members_is_one_file(connect: Connect, tmp_path: Path) -> None:
    data = gzip.compress(b"id\n1\n") + gzip.compress(b"2\n") + b"\0" * 512
    (tmp_path / "a.csv.gz").write_bytes(data)
    assert [r["id"] for r in read(connect(), "a.csv.gz")[0]] == [1, 2]


@pytest.mark.parametrize("suffix", PACK)
def test_a_cut_file_gives_what_stands_before_the_cut_and_says_so(
    connect: Connect, tmp_path: Path, suffix: str
) -> None:
    packed = PACK[suffix](CSV)
    (tmp_path / f"a.csv.{suffix}").write_bytes(packed[: len(packed) // 2])
    records, rejected = read(connect(), schema(suffix))
    assert 10_000 < len(records) < 200_000
    assert [r["id"] for r in records] == list(range(len(records)))
    assert codes(rejected) == [(f"line {len(records) + 2}", "file.truncated")]


@pytest.mark.parametrize(("suffix", "place"), [("gz", 500_000), ("gz", -6), ("zst", 0)])
def test_of_a_corrupt_file_nothing_is_taken_for_a_value(
    connect: Connect, tmp_path: Path, suffix: str, place: int
) -> None:
    broken = bytearray(PACK[suffix](CSV))
    broken[place] ^= 0xFF
    (tmp_path / f"a.csv.{suffix}").write_bytes(broken)
    with pytest.raises(MalformedFile, match="corrupt"):
        read(connect(), schema(suffix))


@pytest.mark.parametrize("suffix", PACK)
@pytest.mark.parametrize("name", ["a.jsonl", "a.json"])
def test_damaged_json_says_so_too(connect: Connect, tmp_path: Path, suffix: str, name: str) -> None:
    rows = [f'{{"id": {n}, "t": {n * 2654435761 % 4294967296}}}' for n in range(100_000)]
    text = "\n".join(rows) if name == "a.jsonl" else "[" + ",\n".join(rows) + "]"
    packed = PACK[suffix](text.encode())
    (tmp_path / f"{name}.{suffix}").write_bytes(packed[: len(packed) // 2])
    records, rejected = read(connect(), schema_of(f"{name}.{suffix}", id="integer"))
    assert 5_000 < len(records) < 100_000
    assert len(rejected) == 1


def test_a_damaged_file_is_never_rewritten(connect: Connect, tmp_path: Path) -> None:
    packed = gzip.compress(CSV)[:-9]
    path = tmp_path / "a.csv.gz"
    path.write_bytes(packed)
    with pytest.raises(MalformedFile):
        apply(connect(), "a.csv.gz", Operation.DELETE, {"id": [1]})
    assert path.read_bytes() == packed
    assert [p.name for p in tmp_path.glob("*.tmp")] == []


def bomb(connect: Connect, tmp_path: Path) -> FilesConnector:
    with gzip.open(tmp_path / "a.csv.gz", "wb") as file:
        file.write(b"id\n")
        for _ in range(100):
            file.write(b"1\n" * (1 << 19))
    return connect(max_compression_ratio=100)


def test_a_decompression_bomb_is_refused(connect: Connect, tmp_path: Path) -> None:
    connector = bomb(connect, tmp_path)
    with pytest.raises(ConfigurationError, match="100 times"):
        connector.count(schema_of("a.csv.gz", id="integer"))


@pytest.mark.parametrize("name", ["a.csv.gz", "a.csv.zst", "a.jsonl.gz", "a.json.zst"])
def test_what_is_written_is_compressed_again(connect: Connect, tmp_path: Path, name: str) -> None:
    connector = connect()
    connector.create_dataset(schema_of(name, key=("id",), id="integer", t="text"))
    apply(connector, name, Operation.INSERT, {"id": [1]}, after={"id": [1], "t": ["a"]})
    magic = b"\x1f\x8b" if name.endswith("gz") else b"\x28\xb5\x2f\xfd"
    assert (tmp_path / name).read_bytes().startswith(magic)
    assert read(connector, name)[0] == [{"id": 1, "t": "a"}]
