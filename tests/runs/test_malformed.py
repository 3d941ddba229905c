"""Bad input from real platforms: a clear error each, the good records flow, nothing is lost."""

from __future__ import annotations

import os
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from apps.connectors.base import StepStatus
from apps.connectors.errors import LockstepError
from apps.engine.spec import FieldMappingSpec
from apps.ledger.models import Rejection
from apps.mappings.models import Mapping
from apps.mappings.services import save_mapping
from apps.rules.models import Rule
from apps.rules.services import save_rule
from apps.runs.models import Run
from apps.runs.services import request_run, work_until_finished
from apps.sources.models import Dataset, Source
from apps.sources.services import check_settings, discover, save_source
from tests.platforms import lines
from tests.servers import CLOSED_PORT

pytestmark = pytest.mark.django_db(transaction=True)

GOOD = [(n, f"item {n}", f"{n}.25") for n in range(1, 6)]
ITEMS = "CREATE TABLE items (id INTEGER PRIMARY KEY, name VARCHAR(20) NOT NULL, price NUMERIC(6,2))"
FIELDS = [FieldMappingSpec(right=name, left=name) for name in ("id", "name", "price")]


def file_source(folder: Path, name: str, text: bytes, key: str = "id") -> Dataset:
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(text)
    source = save_source(
        Source(name=f"files {name}", connector="files"), {"folder": str(folder)}, actor=None
    )
    discover(source, actor=None)
    dataset = source.datasets.get(name=name)
    dataset.key = [key]
    dataset.save()
    return dataset


def sqlite_target(path: Path) -> Dataset:
    with sqlite3.connect(path) as database:
        database.execute(ITEMS)
    source = save_source(Source(name="target", connector="sqlite"), {"path": str(path)}, actor=None)
    discover(source, actor=None)
    return source.datasets.get(name="items")


def make_rule(left: Dataset, right: Dataset) -> Rule:
    mapping = Mapping(name="items", left=left, right=right)
    save_mapping(mapping, FIELDS, ["id"], actor=None)
    rule = Rule(name="items", mapping=mapping)
    save_rule(rule, (), actor=None)
    return rule


def run(rule: Rule) -> Run:
    return work_until_finished(request_run(rule, actor=None))


def csv_text(rows: list[Any] = GOOD) -> bytes:
    return b"id,name,price\n" + b"".join(b"%d,%s,%s\n" % _bytes(row) for row in rows)


def _bytes(row: tuple[int, str, str]) -> tuple[int, bytes, bytes]:
    return row[0], row[1].encode(), row[2].encode()


def target_rows(path: Path) -> list[tuple[Any, ...]]:
    with sqlite3.connect(path) as database:
        return list(database.execute("SELECT id, name, price FROM items ORDER BY id"))


BAD_LINES = {
    "stray quote": (b'6,"bro"ken,1.00\n', "record.malformed"),
    "wrong encoding": (b"6,caf\xe9,1.00\n", "record.wrong_encoding"),
    "missing column": (b"6,short\n", "record.missing_columns"),
    "extra column": (b"6,long,1.00,more\n", "record.extra_columns"),
    "NUL byte": (b"6,nu\x00l,1.00\n", "record.nul_byte"),
    "no number": (b"6,name,cheap\n", "record."),
    "number too large": (b"6,name,99999.99\n", "record.out_of_range"),
    "text too long": (b"6," + b"x" * 30 + b",1.00\n", "record.too_long"),
    "no key": (b",name,1.00\n", "record."),
}


@pytest.mark.parametrize("kind", BAD_LINES)
def test_a_bad_csv_line_is_rejected_and_the_others_flow(tmp_path: Path, kind: str) -> None:
    bad, code = BAD_LINES[kind]
    left = file_source(tmp_path / "in", "items.csv", csv_text())
    right = sqlite_target(tmp_path / "right.db")
    rule = make_rule(left, right)
    path = tmp_path / "in" / "items.csv"
    text = csv_text()
    middle = text.index(b"3,")
    path.write_bytes(text[:middle] + bad + text[middle:])
    done = run(rule)
    assert [row[0] for row in target_rows(tmp_path / "right.db")] == [1, 2, 3, 4, 5], lines(done)
    assert done.status == "partial", lines(done)
    rejection = Rejection.objects.get()
    assert rejection.code.startswith(code), (rejection.code, rejection.message)
    assert rejection.message
    assert rejection.raw() or rejection.record(), "the bad record itself is kept"


def test_an_unterminated_quote_loses_no_line(tmp_path: Path) -> None:
    left = file_source(tmp_path / "in", "items.csv", csv_text())
    rule = make_rule(left, sqlite_target(tmp_path / "right.db"))
    path = tmp_path / "in" / "items.csv"
    path.write_bytes(csv_text().replace(b"3,item", b'3,"item'))
    done = run(rule)
    kept = len(target_rows(tmp_path / "right.db"))
    assert kept >= 2, lines(done)
    assert kept + Rejection.objects.count() >= 5, lines(done)
    assert done.status == "partial"


def test_a_json_lines_file_that_is_cut_in_the_middle(tmp_path: Path) -> None:
    whole = b"".join(b'{"id": %d, "name": "%s", "price": %s}\n' % _bytes(row) for row in GOOD)
    left = file_source(tmp_path / "in", "items.jsonl", whole)
    rule = make_rule(left, sqlite_target(tmp_path / "right.db"))
    (tmp_path / "in" / "items.jsonl").write_bytes(whole[:-15])
    done = run(rule)
    assert [row[0] for row in target_rows(tmp_path / "right.db")] == [1, 2, 3, 4], lines(done)
    rejection = Rejection.objects.get()
    assert (rejection.position, rejection.code) == ("line 5", "record.malformed")


def test_duplicate_keys_are_all_kept_out_and_the_target_is_left_alone(tmp_path: Path) -> None:
    left = file_source(tmp_path / "in", "items.csv", csv_text())
    rule = make_rule(left, sqlite_target(tmp_path / "right.db"))
    run(rule)
    (tmp_path / "in" / "items.csv").write_bytes(csv_text([*GOOD, (3, "other", "9.00")]))
    done = run(rule)
    assert done.status == "partial", lines(done)
    assert {r.code for r in Rejection.objects.all()} == {"record.duplicate_key"}
    assert target_rows(tmp_path / "right.db")[2] == (3, "item 3", 3.25)


def test_a_source_column_that_was_dropped_fails_with_its_name(tmp_path: Path) -> None:
    left = file_source(tmp_path / "in", "items.csv", csv_text())
    rule = make_rule(left, sqlite_target(tmp_path / "right.db"))
    run(rule)
    (tmp_path / "in" / "items.csv").write_bytes(b"id,name\n1,item 1\n")
    done = run(rule)
    assert (done.status, done.cause_code) == ("failed", "field.missing"), lines(done)
    assert "price" in done.cause
    assert len(target_rows(tmp_path / "right.db")) == 5


def test_a_file_that_vanished_fails_with_its_name(tmp_path: Path) -> None:
    left = file_source(tmp_path / "in", "items.csv", csv_text())
    rule = make_rule(left, sqlite_target(tmp_path / "right.db"))
    (tmp_path / "in" / "items.csv").unlink()
    done = run(rule)
    assert (done.status, done.cause_code) == ("failed", "dataset.missing"), lines(done)
    assert "items.csv" in done.cause


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 kB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False).returncode:
        pytest.skip("mounting a tmpfs needs root: run the tests as root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_delays_the_run_and_leaves_the_file_whole(
    tmp_path: Path, small_disk: Path
) -> None:
    rows = [(n, f"item {n}", "1.00") for n in range(1, 20_001)]
    left = file_source(tmp_path / "in", "items.csv", csv_text(rows[:3]))
    right = file_source(small_disk, "out.csv", csv_text(rows[:1]), key="id")
    rule = make_rule(left, right)
    (tmp_path / "in" / "items.csv").write_bytes(csv_text(rows))
    from apps.runs.models import Partition
    from apps.runs.services import work

    started = request_run(rule, actor=None)
    for _ in range(3):
        for part in started.partitions.filter(state__in=Partition.WORKABLE):
            work(part.pk)
    part = started.partitions.get(kind="records")
    assert part.error_code == "source.out_of_space", lines(started)
    assert (small_disk / "out.csv").read_bytes() == csv_text(rows[:1])
    subprocess.run(["mount", "-o", "remount,size=4m", str(small_disk)], check=True)
    Partition.objects.update(not_before=None)
    done = work_until_finished(started)
    assert done.status == "succeeded", lines(done)
    assert (small_disk / "out.csv").read_bytes().count(b"\n") == 20_001


@pytest.mark.postgresql
@pytest.mark.parametrize(
    ("change", "step", "word"),
    [
        ({"port": CLOSED_PORT}, "connect", "port"),
        ({"host": "no-such-host.invalid"}, "resolve", "name"),
        ({"database": "no_such_database"}, "sign_in", "database"),
        ({"user": "nobody_here", "password": "canary-4711"}, "sign_in", "user"),
    ],
)
def test_a_wrong_connection_is_explained_step_by_step(
    change: dict[str, Any], step: str, word: str
) -> None:
    values = {"host": "127.0.0.1", "port": 5432, "database": "postgres", "user": "postgres"}
    steps = list(check_settings("postgresql", {**values, **change}, actor=None))
    failed = next(item for item in steps if item.status is StepStatus.FAILED)
    assert failed.name == step, steps
    assert failed.remedy
    text = f"{failed.message} {failed.remedy}".lower()
    assert word in text
    assert "canary-4711" not in text


@pytest.mark.postgresql
def test_a_closed_port_is_tried_again_and_then_fails_with_cause(tmp_path: Path) -> None:
    source = Source(name="gone", connector="postgresql")
    save_source(
        source, {"host": "127.0.0.1", "port": CLOSED_PORT, "database": "x", "user": "x"}, actor=None
    )
    with pytest.raises(LockstepError) as caught:
        discover(source, actor=None)
    assert caught.value.code == "source.unreachable"
    assert caught.value.remedy
