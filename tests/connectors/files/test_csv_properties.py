"""Both ways of splitting CSV agree with a plain reference, and no line is ever lost."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.connectors.base import FieldSchema
from apps.connectors.files import csv_format
from apps.connectors.files.csv_format import CsvReader, Dialect, render
from apps.connectors.types import TEXT

FIELDS = (FieldSchema("a", TEXT), FieldSchema("b", TEXT))
PIECES = st.sampled_from(
    [
        b"x",
        b"yz",
        b",",
        b",",
        b'"',
        b'"',
        b'""',
        b"\n",
        b"\n",
        b"\r\n",
        b"\r",
        b"\0",
        b"\xff",
        "é".encode(),
    ]
)
BODIES = st.lists(PIECES, max_size=40).map(b"".join)
ROWS = st.lists(
    st.tuples(
        st.none() | st.text(alphabet='ab,"\n\ré ', max_size=6),
        st.none() | st.text(alphabet='ab,"\n\ré ', max_size=6),
    ),
    max_size=8,
)


@pytest.fixture(autouse=True, scope="module")
def _small_head() -> Iterator[None]:
    before = csv_format._HEAD
    csv_format._HEAD = 1
    yield
    csv_format._HEAD = before


def reader(data: bytes, size: int, *, careful: bool) -> CsvReader:
    chunks = (data[start : start + size] for start in range(0, len(data), size))
    return CsvReader(
        chunks, delimiter=",", null_text="", max_record=1 << 20, where="test", careful=careful
    )


def records(data: bytes, size: int = 1 << 20, *, careful: bool = False) -> list[tuple[object, ...]]:
    """Records and rejections: line, content or code."""
    found: list[tuple[object, ...]] = []
    for rows in reader(b"a,b\n" + data, size, careful=careful).rows(FIELDS):
        columns = [rows.columns[f.name].to_pylist() for f in FIELDS if f.name in rows.columns]
        for row, cells in enumerate(zip(*columns, strict=True)):
            found.append((int(rows.position(row).split()[1]), "record", cells, rows.raw(row)))
        for rejected in rows.rejected:
            found.append((int(rejected.position.split()[1]), rejected.code, None, rejected.raw))
    return sorted(found, key=lambda item: str(item[0]).zfill(9))


@given(BODIES, st.integers(1, 30))
@settings(max_examples=600, deadline=None)
def test_the_fast_and_the_careful_path_give_equal_results_however_chunks_fall(
    body: bytes, size: int
) -> None:
    careful = records(body, careful=True)
    assert records(body) == careful
    assert records(body, size) == careful
    assert records(body, size, careful=True) == careful


@given(BODIES, st.integers(1, 30))
@settings(max_examples=600, deadline=None)
def test_each_line_that_is_not_blank_is_in_one_record_or_one_rejection(
    body: bytes, size: int
) -> None:
    covered: list[int] = []
    for line, _, _, raw in records(body, size):
        assert isinstance(line, int)
        covered += range(line, line + str(raw).count("\n") + 1)
    lines = body.split(b"\n")
    wanted = [n for n, line in enumerate(lines, 2) if line not in (b"", b"\r")]
    assert set(wanted) <= set(covered)
    assert len(covered) == len(set(covered))


class NotSound(Exception):
    """The reference finds something wrong."""


def reference(body: bytes) -> list[tuple[object, ...]]:
    """Sound records of two cells, character by character. Raises NotSound."""
    text = body.decode()
    found: list[tuple[object, ...]] = []
    position = 0
    while position < len(text):
        cells, position = reference_record(text, position)
        if cells == [None]:
            continue
        if len(cells) != 2:
            raise NotSound
        found.append(tuple(cells))
    return found


def reference_record(text: str, position: int) -> tuple[list[str | None], int]:
    cells: list[str | None] = []
    while True:
        cell, position = (
            reference_quoted(text, position + 1)
            if text.startswith('"', position)
            else reference_plain(text, position)
        )
        cells.append(cell)
        if not text.startswith(",", position):
            break
        position += 1
    for end in ("\r\n", "\n"):
        if text.startswith(end, position):
            return cells, position + len(end)
    if position < len(text):
        raise NotSound
    return cells, position


def reference_quoted(text: str, position: int) -> tuple[str, int]:
    cell = ""
    while position < len(text):
        if text.startswith('""', position):
            cell, position = cell + '"', position + 2
        elif text[position] == '"':
            return cell, position + 1
        else:
            cell, position = cell + text[position], position + 1
    raise NotSound


def reference_plain(text: str, position: int) -> tuple[str | None, int]:
    start = position
    while position < len(text) and text[position] not in ',"\r\n':
        position += 1
    return text[start:position] or None, position


@given(BODIES)
@settings(max_examples=600, deadline=None)
def test_sound_files_read_as_the_reference_reads_them(body: bytes) -> None:
    try:
        expected = None if b"\0" in body else reference(body)
    except (UnicodeDecodeError, NotSound):
        expected = None
    found = records(body)
    if expected is None:
        assert any(kind != "record" for _, kind, _, _ in found)
    else:
        assert [cells for _, _, cells, _ in found] == expected


@given(ROWS, st.sampled_from(["", "NULL", "a"]), st.sampled_from(["\n", "\r\n"]))
@settings(max_examples=400, deadline=None)
def test_what_is_written_reads_back_exactly(
    rows: list[tuple[str | None, str | None]], null_text: str, line_end: str
) -> None:
    columns = [pa.array([row[n] for row in rows], pa.string()) for n in (0, 1)]
    body = b"".join(render(columns, Dialect(",", null_text, line_end)))
    parsed = CsvReader(
        iter([b"a,b\n" + body]), delimiter=",", null_text=null_text, max_record=1 << 20, where=""
    )
    found = [
        (a, b)
        for part in parsed.rows(FIELDS)
        for a, b in zip(part.columns["a"].to_pylist(), part.columns["b"].to_pylist(), strict=True)
    ]
    assert found == rows
