"""Large files are read and rewritten in bounded memory, in a process of their own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

LIMIT_MIB = 700

SCRIPT = """
import sys
import pyarrow as pa
from apps.connectors.base import ChangeBatch, Operation, ReadRequest
from apps.connectors.files import FilesConnector, FilesSettings
from tests.memory import peak_mib

connector = FilesConnector(FilesSettings(folder=sys.argv[1]))
schema = connector.describe("big.csv")
rows = sum(b.records.num_rows for b in connector.read(ReadRequest(schema, schema.field_names)))
assert rows == 1_000_000, rows
key = pa.table({"id": pa.array(range(0, 1_000_000, 50))})
after = pa.table({"note": pa.array(["changed"] * key.num_rows)})
with connector.write_session(schema, lock="x", lease_seconds=lambda: 600.0) as session:
    result = session.apply(ChangeBatch(Operation.UPDATE, key, None, after), lambda: None)
assert not result.exceptions
print(peak_mib())
"""


@pytest.fixture
def big_file(tmp_path: Path) -> Path:
    """A CSV file of some 200 MB."""
    filler = "lorem ipsum dolor sit amet " * 6
    with (tmp_path / "big.csv").open("w") as file:
        file.write("id,price,at,text,note\n")
        for start in range(0, 1_000_000, 10_000):
            file.write(
                "".join(
                    f'{n},{n % 997}.{n % 90 + 10},2024-01-02T03:04:05Z,"{filler}",n{n}\n'
                    for n in range(start, start + 10_000)
                )
            )
    return tmp_path


def test_a_file_of_200_mb_is_read_and_rewritten_in_bounded_memory(big_file: Path) -> None:
    assert (big_file / "big.csv").stat().st_size > 190_000_000
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(big_file)],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[3],
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < LIMIT_MIB
