from __future__ import annotations

import multiprocessing
import os
import signal
import stat
from collections.abc import Iterator
from decimal import Decimal
from multiprocessing.synchronize import Event
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from apps.connectors.base import ChangeBatch, Operation
from apps.connectors.errors import FieldMissing, LeaseLost, MalformedFile, SourceChanged, TargetBusy
from apps.connectors.files import FilesConnector, FilesSettings
from tests.connectors.files.conftest import Connect
from tests.connectors.files.support import apply, read, schema_of, statuses

NAMES = ["t.csv", "t.tsv", "t.jsonl", "t.json", "t.parquet", "t.csv.gz", "t.jsonl.zst"]


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest, connect: Connect) -> str:
    """A dataset of two records in each format."""
    dataset = str(request.param)
    connector = connect()
    connector.create_dataset(
        schema_of(dataset, key=("id",), id="integer", t="text", d="decimal(10,2)")
    )
    rows = {"id": [1, 2], "t": ["", None], "d": [Decimal("1.50"), None]}
    assert statuses(apply(connector, dataset, Operation.INSERT, {"id": [1, 2]}, after=rows)) == {}
    return dataset


def test_an_insert_appends_and_is_idempotent(connect: Connect, name: str) -> None:
    after = {"id": [1, 3, 2], "t": ["other", "new", None]}
    result = apply(connect(), name, Operation.INSERT, {"id": [1, 3, 2]}, after=after)
    assert statuses(result) == {0: "stale", 2: "already"}
    again = apply(connect(), name, Operation.INSERT, {"id": [1, 3, 2]}, after=after)
    assert statuses(again) == {0: "stale", 1: "already", 2: "already"}
    assert [(r["id"], r["t"]) for r in read(connect(), name)[0]] == [(1, ""), (2, None), (3, "new")]


def test_an_update_compares_and_sets(connect: Connect, name: str) -> None:
    key = {"id": [1, 2, 9]}
    change = ({"t": ["", "not so", "x"]}, {"t": [None, "y", "z"]})
    result = apply(connect(), name, Operation.UPDATE, key, *change)
    assert statuses(result) == {1: "stale", 2: "stale"}
    assert result.bytes_written > 0
    again = apply(connect(), name, Operation.UPDATE, key, *change)
    assert statuses(again) == {0: "already", 1: "stale", 2: "stale"}
    assert again.bytes_written == 0
    records, _ = read(connect(), name)
    assert records == [
        {"id": 1, "t": None, "d": Decimal("1.50")},
        {"id": 2, "t": None, "d": None},
    ]


def test_a_delete_compares_and_removes(connect: Connect, name: str) -> None:
    key, before = {"id": [1, 2, 9]}, {"t": ["", "moved", None]}
    assert statuses(apply(connect(), name, Operation.DELETE, key, before)) == {
        1: "stale",
        2: "already",
    }
    assert statuses(apply(connect(), name, Operation.DELETE, key, before)) == {
        0: "already",
        1: "stale",
        2: "already",
    }
    assert [r["id"] for r in read(connect(), name)[0]] == [2]
    assert statuses(apply(connect(), name, Operation.DELETE, {"id": [2]})) == {}
    assert read(connect(), name) == ([], [])
    apply(connect(), name, Operation.INSERT, {"id": [5]}, after={"id": [5], "t": ["x"]})
    assert [r["id"] for r in read(connect(), name)[0]] == [5]


def test_a_refused_record_does_not_stop_the_others(connect: Connect, name: str) -> None:
    key = pa.table({"id": pa.array([3, None, 4, 4, 5], pa.int64())})
    after = key.append_column("d", pa.array([Decimal("1.555"), *[Decimal("9.000")] * 4]))
    schema = connect().describe(name)
    with connect().write_session(schema, lock="x", lease_seconds=lambda: 5.0) as session:
        result = session.apply(ChangeBatch(Operation.INSERT, key, after=after), lambda: None)
    assert {row: p.code for row, p in result.exceptions.items()} == {
        0: "record.out_of_range",
        1: "record.required",
        3: "record.duplicate",
    }
    assert [r["id"] for r in read(connect(), name)[0]] == [1, 2, 4, 5]


def test_a_lost_lease_changes_nothing(connect: Connect, tmp_path: Path, name: str) -> None:
    before = (tmp_path / name).read_bytes()

    def fence() -> None:
        raise LeaseLost("another worker has it")

    with pytest.raises(LeaseLost):
        apply(connect(), name, Operation.DELETE, {"id": [1]}, fence=fence)
    assert (tmp_path / name).read_bytes() == before
    assert list(tmp_path.glob(".*.tmp")) == []


def test_a_file_replaced_meanwhile_is_not_overwritten(
    connect: Connect, tmp_path: Path, name: str
) -> None:
    path = tmp_path / name
    connector = connect()
    schema = connector.describe(name)
    with connector.write_session(schema, lock="x", lease_seconds=lambda: 5.0) as session:
        original = os.replace

        def swap(*_: object) -> None:
            (tmp_path / "other").write_bytes(path.read_bytes())
            original(tmp_path / "other", path)

        key = pa.table({"id": [1]})
        # The fence is called after the check; so the swap comes before the whole write.
        import apps.connectors.files.writing as writing

        planners = dict(writing._PLANNERS)
        plan = planners[schema.format]

        def plan_then_swap(*args: object) -> object:
            planned = plan(*args)  # type: ignore[arg-type]
            swap()
            return planned

        writing._PLANNERS[schema.format] = plan_then_swap  # type: ignore[assignment]
        try:
            with pytest.raises(SourceChanged):
                session.apply(ChangeBatch(Operation.DELETE, key), lambda: None)
        finally:
            writing._PLANNERS[schema.format] = plan
    assert [r["id"] for r in read(connector, name)[0]] == [1, 2]


def test_mode_and_order_of_a_file_are_kept(connect: Connect, tmp_path: Path, name: str) -> None:
    (tmp_path / name).chmod(0o640)
    apply(connect(), name, Operation.UPDATE, {"id": [1]}, None, {"t": ["x"]})
    assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o640
    assert [r["id"] for r in read(connect(), name)[0]] == [1, 2]


def test_what_csv_does_not_concern_stays_byte_for_byte(connect: Connect, tmp_path: Path) -> None:
    lines = [
        b"id;t;extra\r\n",
        b'1;"a";007\r\n',
        b"broken;\r\n",
        b'2;"x;""y""";"keep"\r\n',
        b"\r\n",
        b'3;"never closed;\r\n',
        b"4;caf\xe9;1\r\n",
        b"5;e;  spaced  ",
    ]
    path = tmp_path / "a.csv"
    path.write_bytes(b"\xef\xbb\xbf" + b"".join(lines))
    apply(connect(), "a.csv", Operation.UPDATE, {"id": [2]}, None, {"t": [""]})
    lines[3] = b'2;"";keep\r\n'
    assert path.read_bytes() == b"\xef\xbb\xbf" + b"".join(lines)
    apply(connect(), "a.csv", Operation.INSERT, {"id": [6]}, after={"id": [6], "t": [None]})
    assert path.read_bytes() == b"\xef\xbb\xbf" + b"".join(lines) + b"\r\n6;;\r\n"
    apply(connect(), "a.csv", Operation.DELETE, {"id": [1]})
    del lines[1]
    assert path.read_bytes() == b"\xef\xbb\xbf" + b"".join(lines) + b"\r\n6;;\r\n"


def test_what_json_does_not_concern_keeps_its_text(connect: Connect, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(
        '{"id": 1, "n": 1.50, "more": {"z": 1e2, "a": []}}\nnot json\n{"id":2}'
    )
    connector = connect()
    apply(connector, "a.jsonl", Operation.UPDATE, {"id": [1]}, None, {"n": [Decimal("2.50")]})
    apply(connector, "a.jsonl", Operation.INSERT, {"id": [3]}, after={"id": [3]})
    assert (tmp_path / "a.jsonl").read_text() == (
        '{"id":1,"n":2.50,"more":{"z":1E+2,"a":[]}}\nnot json\n{"id":2}\n{"id":3}\n'
    )
    (tmp_path / "a.json").write_text(
        '{"v": 1, "rows": [ {"id": 1.0} , 7, {"id": 2} ], "end": true}'
    )
    connector = connect(json_records_path="rows")
    apply(connector, "a.json", Operation.DELETE, {"id": [Decimal(2)]})
    assert (tmp_path / "a.json").read_text() == (
        '{"v": 1, "rows": [\n{"id": 1.0},\n7\n], "end": true}'
    )


def test_a_broken_array_is_never_rewritten(connect: Connect, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('[{"id": 1}, {"id": ')
    with pytest.raises(MalformedFile):
        apply(connect(), "a.json", Operation.DELETE, {"id": [1]})


def test_records_that_share_a_key_are_not_chosen_between(connect: Connect, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id,t\n1,a\n1,a\n2,b\n")
    result = apply(connect(), "a.csv", Operation.UPDATE, {"id": [1, 2]}, None, {"t": ["x", "y"]})
    assert {row: p.code for row, p in result.exceptions.items()} == {0: "record.ambiguous"}
    assert (tmp_path / "a.csv").read_text() == "id,t\n1,a\n1,a\n2,y\n"


def test_a_record_with_a_value_that_does_not_fit_is_stale_not_absent(
    connect: Connect, tmp_path: Path
) -> None:
    (tmp_path / "a.csv").write_text("id,n\n1,x\n")
    (tmp_path / "a.csv.schema.json").write_text(
        '{"fields": [{"name": "id", "type": "integer"}, {"name": "n", "type": "integer"}]}'
    )
    for operation in Operation:
        before = None if operation is Operation.INSERT else {"n": [None]}
        after = None if operation is Operation.DELETE else {"id": [1], "n": [5]}
        result = apply(connect(), "a.csv", operation, {"id": [1]}, before, after)
        assert statuses(result) == {0: "stale"}


def test_values_that_a_format_cannot_hold_are_rejected(connect: Connect, tmp_path: Path) -> None:
    types = {"id": "integer", "t": "text(5)", "j": "json", "at": "timestamp"}
    rows = {"id": [1, 2, 3], "t": ["a\0b", "€", "longer"], "j": ["null", "1", None]}
    expected = {
        "a.csv": {0: "record.nul_byte", 1: "record.not_encodable", 2: "record.too_long"},
        "a.jsonl": {0: "record.invalid", 1: "record.not_encodable", 2: "record.too_long"},
    }
    for name, problems in expected.items():
        connector = connect(encoding="latin-1")
        connector.create_dataset(schema_of(name, key=("id",), **types))
        result = apply(connector, name, Operation.INSERT, {"id": [1, 2, 3]}, after=rows)
        assert {row: p.code for row, p in result.exceptions.items()} == problems


def test_a_file_in_another_encoding_keeps_it(connect: Connect, tmp_path: Path) -> None:
    for encoding in ("latin-1", "utf-16"):
        path = tmp_path / "a.csv"
        path.write_bytes("id,t\n1,é\n2,x\n".encode(encoding))
        apply(
            connect(encoding=encoding), "a.csv", Operation.UPDATE, {"id": [2]}, None, {"t": ["ü"]}
        )
        assert path.read_bytes().decode(encoding) == "id,t\n1,é\n2,ü\n"


def test_a_field_that_the_file_lacks_is_missing(connect: Connect, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id,t\n1,a\n")
    connector = connect()
    schema = connector.describe("a.csv")
    batch = ChangeBatch(Operation.UPDATE, pa.table({"id": [1]}), None, pa.table({"z": ["x"]}))
    with (
        connector.write_session(schema, lock="x", lease_seconds=lambda: 5.0) as session,
        pytest.raises(FieldMissing),
    ):
        session.apply(batch, lambda: None)


def test_an_update_gives_no_record_the_key_of_another(connect: Connect, name: str) -> None:
    key, after = {"id": [1, 2]}, {"id": [2, 7]}
    result = apply(connect(), name, Operation.UPDATE, key, None, after)
    assert {row: p.code for row, p in result.exceptions.items()} == {0: "record.duplicate"}
    assert [r["id"] for r in read(connect(), name)[0]] == [1, 7]
    assert statuses(apply(connect(), name, Operation.UPDATE, {"id": [2]}, None, {"id": [7]})) == {
        0: "already"
    }
    assert statuses(apply(connect(), name, Operation.UPDATE, {"id": [1]}, None, {"id": [1]})) == {}


# The lock.


def _hold_lock(folder: str, holding: Event) -> None:
    connector = FilesConnector(FilesSettings(folder=folder))
    schema = connector.describe("a.csv")
    with connector.write_session(schema, lock="x", lease_seconds=lambda: 30.0):
        holding.set()
        signal.pause()


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[multiprocessing.process.BaseProcess]:
    """Another process that has the lock on a.csv."""
    (tmp_path / "a.csv").write_text("id,t\n1,a\n")
    context = multiprocessing.get_context("spawn")
    holding = context.Event()
    process = context.Process(target=_hold_lock, args=(str(tmp_path), holding))
    process.start()
    assert holding.wait(30)
    yield process
    process.kill()
    process.join()


def test_a_second_session_waits_no_longer_than_its_lease(
    connect: Connect, holder: multiprocessing.process.BaseProcess
) -> None:
    connector = connect()
    left = iter([0.2, 0.2, 0.15, 0.1, 0.0])
    session = connector.write_session(
        connector.describe("a.csv"), lock="x", lease_seconds=lambda: next(left)
    )
    with pytest.raises(TargetBusy), session:
        pass


def test_the_lock_of_a_process_that_died_is_free(
    connect: Connect, tmp_path: Path, holder: multiprocessing.process.BaseProcess
) -> None:
    (tmp_path / ".a.csv.0123.tmp").write_text("half a file")
    holder.kill()
    holder.join()
    result = apply(connect(), "a.csv", Operation.UPDATE, {"id": [1]}, None, {"t": ["b"]})
    assert statuses(result) == {}
    assert list(tmp_path.glob(".*.tmp")) == []


# Any sequence of batches leaves the file as a table with the same batches would be.

CELLS = st.none() | st.sampled_from(["", "a", 'q"', "x,y", "l\nm", "é", " "])
BATCHES = st.lists(
    st.tuples(
        st.sampled_from(list(Operation)),
        st.dictionaries(st.integers(1, 6), CELLS, min_size=1, max_size=4),
        st.booleans(),
    ),
    max_size=6,
)


@given(BATCHES, st.sampled_from(["m.csv", "m.jsonl", "m.json", "m.parquet"]))
@settings(
    max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_batches_do_to_a_file_what_they_do_to_a_table(
    connect: Connect,
    tmp_path: Path,
    batches: list[tuple[Operation, dict[int, str | None], bool]],
    name: str,
) -> None:
    connector = connect()
    for old in (tmp_path / name, tmp_path / f"{name}.schema.json"):
        old.unlink(missing_ok=True)
    connector.create_dataset(schema_of(name, key=("id",), id="integer", t="text"))
    table: dict[int, str | None] = {}
    for operation, rows, is_right in batches:
        keys = list(rows)
        before = [table.get(key) if is_right else "wrong" for key in keys]
        after = {"id": keys, "t": list(rows.values())}
        apply(
            connector,
            name,
            operation,
            {"id": keys},
            None if operation is Operation.INSERT else {"t": before},
            None if operation is Operation.DELETE else after,
        )
        for key, value in rows.items():
            if operation is Operation.INSERT:
                table.setdefault(key, value)
            elif key in table and is_right:
                table.pop(key) if operation is Operation.DELETE else table.update({key: value})
    assert {r["id"]: r["t"] for r in read(connector, name)[0]} == table
