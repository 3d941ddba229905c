from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from apps.connectors.base import Operation
from apps.connectors.errors import OutOfSpace
from apps.connectors.files import FilesConnector, FilesSettings
from tests.connectors.files.support import apply, read, schema_of, statuses

ROWS = 4000


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one MiB. Needs the right to mount."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"a small tmpfs cannot be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize(
    "name", ["a.csv", "a.csv.gz", "a.csv.zst", "a.jsonl", "a.json", "a.parquet"]
)
def test_a_full_disk_leaves_the_old_file_and_no_other(small_disk: Path, name: str) -> None:
    connector = FilesConnector(FilesSettings(folder=str(small_disk)))
    connector.create_dataset(schema_of(name, key=("id",), id="integer", t="text"))
    apply(connector, name, Operation.INSERT, {"id": [0]}, after={"id": [0], "t": ["kept"]})
    old = (small_disk / name).read_bytes()
    keys = list(range(1, ROWS))
    texts = [os.urandom(400).hex() for _ in keys]
    after = {"id": keys, "t": texts}
    with pytest.raises(OutOfSpace):
        apply(connector, name, Operation.INSERT, {"id": keys}, after=after)
    assert (small_disk / name).read_bytes() == old
    assert list(small_disk.glob(".*.tmp")) == []
    few = {"id": keys[:100], "t": texts[:100]}
    assert statuses(apply(connector, name, Operation.INSERT, {"id": keys[:100]}, after=few)) == {}
    assert len(read(connector, name)[0]) == 101


def test_a_full_disk_creates_no_dataset(small_disk: Path) -> None:
    connector = FilesConnector(FilesSettings(folder=str(small_disk)))
    (small_disk / "filler").write_bytes(b"x" * ((1 << 20) - 4096))
    schemas = [schema_of(f"a{number}.csv", id="integer", t="text") for number in range(50)]
    with pytest.raises(OutOfSpace):
        list(map(connector.create_dataset, schemas))
    (small_disk / "filler").unlink()
    for found in connector.discover():
        assert [f.name for f in found.fields] == ["id", "t"]
