from __future__ import annotations

import datetime as dt
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest

from apps.connectors.base import ReadRequest
from apps.connectors.errors import DatasetMissing, FieldMissing, SchemaMismatch, SourceChanged
from apps.connectors.files.conversion import Misfit
from tests.connectors.files.conftest import Connect
from tests.connectors.files.support import codes, declared, read


def test_an_empty_cell_is_null_and_a_quoted_one_is_the_empty_text(
    connect: Connect, tmp_path: Path
) -> None:
    (tmp_path / "a.csv").write_text('id,t\n1,\n2,""\n3,x\n')
    records, rejected = read(connect(), "a.csv")
    assert [r["t"] for r in records] == [None, "", "x"]
    assert rejected == []


def test_a_null_text_may_be_chosen_and_its_quoted_form_stays_text(
    connect: Connect, tmp_path: Path
) -> None:
    (tmp_path / "a.csv").write_text('id,t,n\n1,NULL,NULL\n2,"NULL",5\n3,,6\n')
    records, _ = read(connect(null_text="NULL"), "a.csv")
    assert [(r["t"], r["n"]) for r in records] == [(None, None), ("NULL", 5), ("", 6)]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_delimiter_is_found_out(connect: Connect, tmp_path: Path, delimiter: str) -> None:
    rows = [["id", "amount", "note"], ["1", "2.50", "a"], ["2", "3.50", '"x,y;z"']]
    (tmp_path / "a.csv").write_text("\n".join(delimiter.join(row) for row in rows))
    records, rejected = read(connect(), "a.csv")
    assert [r["id"] for r in records] == [1, 2]
    assert records[1]["note"] == "x,y;z"
    assert rejected == []


def test_line_breaks_and_quotes_inside_a_quoted_cell_are_content(
    connect: Connect, tmp_path: Path
) -> None:
    (tmp_path / "a.csv").write_bytes(b'id,t\r\n1,"a\r\nb\n\rc"\r\n2,"say ""x"""\r\n')
    records, rejected = read(connect(), "a.csv")
    assert [r["t"] for r in records] == ["a\r\nb\n\rc", 'say "x"']
    assert rejected == []


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b'2,"never closed', "record.malformed"),
        (b'2,mid"dle', "record.malformed"),
        (b'2,"closed"early', "record.malformed"),
        (b"2,lone\rreturn", "record.malformed"),
        (b"2", "record.missing_columns"),
        (b"2,b,c", "record.extra_columns"),
        (b"2,b\0", "record.nul_byte"),
        (b"2,caf\xe9", "record.wrong_encoding"),
    ],
)
def test_a_bad_line_is_rejected_and_the_rest_flows(
    connect: Connect, tmp_path: Path, line: bytes, code: str
) -> None:
    (tmp_path / "a.csv").write_bytes(b"id,t\n1,a\n" + line + b'\n3,c\n4,"d"\n')
    records, rejected = read(connect(), "a.csv")
    assert [r["id"] for r in records] == [1, 3, 4]
    assert codes(rejected) == [("line 3", code)]
    assert rejected[0].message.startswith("line 3: ")
    assert rejected[0].raw.startswith("2")


def test_a_quote_that_is_never_closed_costs_its_own_line_only(
    connect: Connect, tmp_path: Path
) -> None:
    lines = [f"{n},text {n}" for n in range(2000)]
    lines[1000] = '1000,"open'
    (tmp_path / "a.csv").write_text("id,t\n" + "\n".join(lines) + "\n")
    records, rejected = read(connect(), "a.csv")
    assert len(records) == 1999
    assert codes(rejected) == [("line 1002", "record.malformed")]


def test_an_unclosed_quote_longer_than_a_record_may_be_is_given_up(
    connect: Connect, tmp_path: Path
) -> None:
    filler = "".join(f"{n},{'x' * 200}\n" for n in range(60_000))
    (tmp_path / "a.csv").write_text(f'id,t\n1,"open\n{filler}2,"ok"\n')
    connector = connect(max_record_mib=1)
    records, rejected = read(connector, "a.csv", "id")
    assert len(records) == 60_001
    assert codes(rejected) == [("line 2", "record.malformed")]


def test_a_line_longer_than_a_record_may_be_is_rejected_in_bounded_memory(
    connect: Connect, tmp_path: Path
) -> None:
    (tmp_path / "a.csv").write_text(f"id,t\n1,a\n2,{'x' * (9 << 20)}\n3,c\n")
    records, rejected = read(connect(max_record_mib=1), "a.csv", "id")
    assert [r["id"] for r in records] == [1, 3]
    assert codes(rejected) == [("line 3", "record.too_large")]
    assert len(rejected[0].raw) == 10_000


def test_blank_lines_hold_nothing_but_null_in_a_file_of_one_column(
    connect: Connect, tmp_path: Path
) -> None:
    (tmp_path / "two.csv").write_text("a,b\n\n1,2\n\r\n3,4\n\n")
    (tmp_path / "one.csv").write_text("a\nx\n\ny\n")
    assert len(read(connect(), "two.csv")[0]) == 2
    assert [r["a"] for r in read(connect(), "one.csv")[0]] == ["x", None, "y"]


def test_names_that_stand_twice_or_are_empty_are_told_apart(
    connect: Connect, tmp_path: Path
) -> None:
    (tmp_path / "a.csv").write_text("id,id,,id_2\n1,2,3,4\n")
    assert connect().describe("a.csv").field_names == ("id", "id_3", "column_3", "id_2")


def test_a_byte_order_mark_is_tolerated(connect: Connect, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes("id,t\n1,é\n".encode("utf-8-sig"))
    assert read(connect(), "a.csv")[0] == [{"id": 1, "t": "é"}]


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "utf-16"])
def test_other_encodings_are_read(connect: Connect, tmp_path: Path, encoding: str) -> None:
    (tmp_path / "a.csv").write_bytes("id,t\n1,é\n".encode(encoding))
    assert read(connect(encoding=encoding), "a.csv")[0] == [{"id": 1, "t": "é"}]


def test_a_byte_that_the_encoding_lacks_rejects_its_line(connect: Connect, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"id,t\n1,\x81\n2,ok\n")
    records, rejected = read(connect(encoding="cp1252"), "a.csv")
    assert [r["id"] for r in records] == [2]
    assert codes(rejected) == [("line 2", "record.wrong_encoding")]


def test_a_value_that_does_not_fit_its_type_is_rejected_with_its_key(
    connect: Connect, tmp_path: Path
) -> None:
    (tmp_path / "a.csv").write_text(
        "id,n,d\n1,5,1.5\n2,x,2.5\n3,99999999999999999999,1\n4,1,1.555\n"
    )
    connector = connect()
    schema = declared(connector.describe("a.csv"), id="integer", n="integer", d="decimal(5,2)")
    records, rejected = read(connector, replace(schema, key=("id",)))
    assert records == [{"id": 1, "n": 5, "d": Decimal("1.50")}]
    assert [(r.position, r.code, r.field, r.key) for r in rejected] == [
        ("line 3", "record.invalid", "n", {"id": 2}),
        ("line 4", "record.out_of_range", "n", {"id": 3}),
        ("line 5", "record.out_of_range", "d", {"id": 4}),
    ]
    assert rejected[0].raw == "2,x,2.5"


def test_a_type_that_the_sample_did_not_show_is_a_rejection_not_a_guess(
    connect: Connect, tmp_path: Path
) -> None:
    good = "".join(f"{n},{n:0100d}\n" for n in range(60_000))
    (tmp_path / "a.csv").write_text(f"id,t\n{good}not a number,x\n")
    connector = connect(sample_mib=1)
    records, rejected = read(connector, "a.csv", "id")
    assert len(records) == 60_000
    assert codes(rejected) == [("line 60002", "record.invalid")]


def test_dates_and_instants_are_read_in_their_types(connect: Connect, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(
        "d,ts,tz,tm\n2024-02-29,2024-01-02 03:04:05.5,2024-01-02T03:04:05+02:00,23:59:59\n"
    )
    (record,), _ = read(connect(), "a.csv")
    assert record == {
        "d": dt.date(2024, 2, 29),
        "ts": dt.datetime(2024, 1, 2, 3, 4, 5, 500_000),  # noqa: DTZ001
        "tz": dt.datetime(2024, 1, 2, 1, 4, 5, tzinfo=dt.UTC),
        "tm": dt.time(23, 59, 59),
    }


def test_a_field_that_the_header_lost_is_missing(connect: Connect, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id,t\n1,a\n")
    connector = connect()
    schema = connector.describe("a.csv")
    (tmp_path / "a.csv").write_text("t,id\na,1\n")
    assert read(connector, schema)[0] == [{"id": 1, "t": "a"}]
    (tmp_path / "a.csv").write_text("id,text\n1,a\n")
    with pytest.raises(FieldMissing, match="'t'"):
        read(connector, schema)


def test_a_header_that_cannot_be_read_is_named(connect: Connect, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b'id,"t\n1,a\n')
    with pytest.raises(SchemaMismatch, match="header"):
        connect().describe("a.csv")


def test_a_file_that_is_written_while_it_is_read_is_tried_again(
    connect: Connect, tmp_path: Path
) -> None:
    path = tmp_path / "a.csv"
    path.write_text("id,t\n" + "1,a\n" * 100)
    connector = connect()
    schema = connector.describe("a.csv")
    batches = connector.read(ReadRequest(schema, ("id",), batch_rows=10))
    next(batches)
    with path.open("a") as file:
        file.write("2,b\n")
    with pytest.raises(SourceChanged):
        list(batches)


def test_a_file_that_vanished_is_missing(connect: Connect, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id\n1\n")
    connector = connect()
    schema = connector.describe("a.csv")
    (tmp_path / "a.csv").unlink()
    with pytest.raises(DatasetMissing):
        read(connector, schema)


def test_an_empty_file_has_no_fields_and_no_records(connect: Connect, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"")
    connector = connect()
    assert connector.describe("a.csv").fields == ()
    assert connector.count(connector.describe("a.csv")) == 0


def test_the_count_includes_records_that_cannot_be_read(connect: Connect, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id,t\n1,a\n2\n\n3,c\n")
    connector = connect()
    schema = connector.describe("a.csv")
    assert connector.count(schema) == 3
    assert schema.row_count == 3


def test_what_cannot_be_of_a_type_is_not_tried_value_by_value(
    connect: Connect, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.csv").write_text("a,b\n" + "x,y\n" * 5_000 + f"{2**64},y\n")
    connector = connect()
    tried: list[str] = []
    monkeypatch.setattr(
        "apps.connectors.files.conversion.explain",
        lambda text, _: tried.append(text) or Misfit("record.out_of_range", ""),
    )
    schema = declared(connector.describe("a.csv"), a="integer", b="uuid")
    records, rejected = read(connector, schema)
    assert records == []
    assert len(rejected) == 5_001
    assert tried == [str(2**64)]
