"""Writing: a batch is decided while the file is read, then the file is written anew.

Text files are spliced: every byte outside the changed records, broken lines included, is copied
as it is. A file whose end cannot be read is never rewritten.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.compute as pc

from apps.connectors.base import (
    ChangeBatch,
    DatasetSchema,
    Fence,
    Note,
    Operation,
    WriteProblem,
    WriteResult,
    WriteSession,
)
from apps.connectors.errors import KeyMissing, MalformedFile
from apps.connectors.files import json_format
from apps.connectors.files.changes import Matcher
from apps.connectors.files.csv_format import CsvReader, render, text_columns
from apps.connectors.files.json_format import Element, JsonArrayReader
from apps.connectors.files.parquet_format import ParquetEdits, ParquetReader, rewrite, to_native
from apps.connectors.files.paths import FileRef
from apps.connectors.files.reading import OpenFile, require_fields
from apps.connectors.files.replacing import FileLock, UnclosedSink, remove_leftovers, replace_file
from apps.connectors.files.returning import RecordsLost, Returning
from apps.connectors.files.rows import Rows
from apps.connectors.files.settings import FilesSettings
from apps.connectors.files.streams import StreamDamaged, transcoded_back

_DAMAGED = ("file.truncated", "file.malformed")

Write = Callable[[BinaryIO], None]
Edits = dict[int, tuple[int, int, bytes]]
"""By change: where the record starts and ends, and what takes its place."""


class FileWriteSession(WriteSession):
    """An exclusive right on one file.

    The right's lock is held from entering to leaving. Sessions of different rights, such as the
    partitions of one run, take turns: each batch holds the lock of the file itself.
    """

    def __init__(
        self,
        ref: FileRef,
        settings: FilesSettings,
        describe: Callable[[], DatasetSchema],
        lease_seconds: Callable[[], float],
        right: str,
    ) -> None:
        self._ref = ref
        self._settings = settings
        self._describe = describe
        self._lease_seconds = lease_seconds
        self._right = FileLock(ref.path, ref.dataset, right)
        self._turn = FileLock(ref.path, ref.dataset)
        self._schema: DatasetSchema | None = None

    def __enter__(self) -> FileWriteSession:
        self._right.acquire(self._lease_seconds)
        try:
            self._schema = self._describe()
        except BaseException:
            self._right.release()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._right.release()

    def apply(
        self,
        batch: ChangeBatch,
        fence: Fence,
        *,
        returning: Sequence[str] = (),
        note: Note | None = None,
    ) -> WriteResult:
        """Decide each change, then replace the file if anything is to be written."""
        if self._schema is None:
            raise RuntimeError("apply() outside of the session")
        if batch.assigns_key:
            raise KeyMissing("a file gives out no keys", where=self._ref.dataset)
        wanted = Returning(returning, self._schema)
        refused: dict[int, WriteProblem] = {}
        with self._turn.held(self._lease_seconds):
            while True:
                matcher = Matcher(batch, self._schema)
                matcher.problems.update(refused)
                remove_leftovers(self._ref.path)
                try:
                    written, stored = self._apply(batch, matcher, fence, wanted, note)
                except RecordsLost as lost:
                    refused |= lost.problems
                    continue
                problems = dict(sorted(matcher.problems.items()))
                return WriteResult(batch.num_rows, problems, written, stored)

    def _apply(
        self,
        batch: ChangeBatch,
        matcher: Matcher,
        fence: Fence,
        wanted: Returning,
        note: Note | None,
    ) -> tuple[int, pa.Table | None]:
        """The size of the new file, and the records to give back."""
        with OpenFile(self._ref, self._settings) as file:
            file.verify()
            write = _PLANNERS[self._ref.format](file, matcher, self._settings)
            stored: list[pa.Table | None] = [None]

            def before_commit(path: Path) -> None:
                if wanted.names:
                    with OpenFile(replace(self._ref, path=path), self._settings) as new:
                        stored[0] = wanted.read(new, matcher, batch.num_rows)
                file.ensure_in_place()
                if note is not None:
                    problems = dict(sorted(matcher.problems.items()))
                    note(WriteResult(batch.num_rows, problems, stored=stored[0]))
                fence()

            if len(matcher.problems) == batch.num_rows:
                present = wanted.read(file, matcher, batch.num_rows)
                fence()
                return 0, present
            size = replace_file(self._ref.path, self._ref.dataset, write, before_commit)
            return size, stored[0]


def _refuse_damaged(rows: Rows, where: str) -> None:
    for rejected in rows.rejected:
        if rejected.code in _DAMAGED:
            raise MalformedFile(
                f"the file is not whole, so it is not rewritten: {rejected.message}", where=where
            )


def _changes_of(matcher: Matcher, writes: Iterable[tuple[int, int]]) -> pa.Array:
    return pa.array([change for _, change in writes], pa.int64())


def _refuse_unencodable(matcher: Matcher, encoding: str) -> None:
    """Reject texts that the file's encoding lacks."""
    if encoding in ("utf-8", "utf-16") or matcher.after is None:
        return
    for name in matcher.after.column_names:
        for row, value in enumerate(matcher.after.column(name).to_pylist()):
            try:
                str(value).encode(encoding)
            except UnicodeEncodeError:
                message = f"the file's encoding {encoding} lacks a character of the text"
                matcher.refuse(row, name, "record.not_encodable", message)


# CSV.


def _refuse_nul(matcher: Matcher) -> None:
    for name in matcher.after.column_names if matcher.after is not None else ():
        column = matcher.after.column(name) if matcher.after is not None else None
        if column is not None and pa.types.is_string(column.type):
            nul = pc.fill_null(pc.match_substring(column, "\0"), False)
            for row in pc.indices_nonzero(nul).to_pylist():
                message = "CSV does not hold a NUL character"
                matcher.refuse(row, name, "record.nul_byte", message)


def _plan_csv(file: OpenFile, matcher: Matcher, settings: FilesSettings) -> Write:
    _refuse_nul(matcher)
    _refuse_unencodable(matcher, settings.encoding)
    reader = file.csv()
    require_fields(matcher.fields, reader.names, file.ref.dataset)
    edits: Edits = {}
    for rows in reader.rows(matcher.fields, with_source=matcher.operation is Operation.UPDATE):
        _refuse_damaged(rows, file.ref.dataset)
        writes = matcher.look(rows)
        if writes:
            texts = _csv_texts(reader, matcher, rows, writes)
            for (row, change), text in zip(writes, texts, strict=True):
                edits[change] = (*rows.address(row), text)
    file.ensure_unchanged()
    appended = _csv_inserts(reader, matcher)
    kept = {change: edit for change, edit in edits.items() if change not in matcher.problems}
    newline = reader.dialect.line_end.encode()
    return lambda sink: _splice(file, settings, kept, appended, newline, sink)


def _csv_texts(
    reader: CsvReader, matcher: Matcher, rows: Rows, writes: list[tuple[int, int]]
) -> list[bytes]:
    if matcher.operation is Operation.DELETE or matcher.after is None:
        return [b""] * len(writes)
    source = rows.source.take(pa.array([row for row, _ in writes], pa.int64()))
    after = matcher.after.take(_changes_of(matcher, writes))
    columns = text_columns(reader.names, source, after, matcher.fields)
    return render(columns, reader.dialect)


def _csv_inserts(reader: CsvReader, matcher: Matcher) -> list[bytes]:
    absent = matcher.finish()
    if not absent or matcher.after is None:
        return []
    after = matcher.after.take(pa.array(absent, pa.int64()))
    return render(text_columns(reader.names, None, after, matcher.fields), reader.dialect)


# JSON Lines.


def _plan_json_lines(file: OpenFile, matcher: Matcher, settings: FilesSettings) -> Write:
    edits, appended = _json_edits(file, matcher, settings, b"\n")
    return lambda sink: _splice(file, settings, edits, appended, b"\n", sink)


def _json_edits(
    file: OpenFile, matcher: Matcher, settings: FilesSettings, end: bytes
) -> tuple[Edits, list[bytes]]:
    _refuse_unencodable(matcher, settings.encoding)
    _refuse_json_null(matcher)
    edits: Edits = {}
    for rows in file.json().rows(matcher.fields):
        _refuse_damaged(rows, file.ref.dataset)
        writes = matcher.look(rows)
        texts = [b""] * len(writes)
        if writes and matcher.operation is Operation.UPDATE and matcher.after is not None:
            records = [rows.source[row] for row, _ in writes]
            after = matcher.after.take(_changes_of(matcher, writes))
            texts = [
                text + end for text in json_format.render_updates(records, after, matcher.fields)
            ]
        for (row, change), text in zip(writes, texts, strict=True):
            edits[change] = (*rows.address(row), text)
    file.ensure_unchanged()
    absent = matcher.finish()
    appended: list[bytes] = []
    if absent and matcher.after is not None:
        after = matcher.after.take(pa.array(absent, pa.int64()))
        appended = [text + end for text in json_format.render_inserts(after, matcher.fields)]
    kept = {change: edit for change, edit in edits.items() if change not in matcher.problems}
    return kept, appended


def _refuse_json_null(matcher: Matcher) -> None:
    """A JSON field that holds the document `null` would read back as NULL."""
    if matcher.after is None:
        return
    json_fields = {f.name for f in matcher.fields if f.type.kind == "json"}
    for name in json_fields & set(matcher.after.column_names):
        is_null = pc.fill_null(pc.equal(matcher.after.column(name), "null"), False)
        for row in pc.indices_nonzero(is_null).to_pylist():
            message = "a JSON file cannot tell the JSON value null from a missing value"
            matcher.refuse(row, name, "record.invalid", message)


# JSON arrays.


def _plan_json_array(file: OpenFile, matcher: Matcher, settings: FilesSettings) -> Write:
    edits, appended = _json_edits(file, matcher, settings, b"")
    by_ordinal = {start: text for start, _, text in edits.values()}

    def write(sink: BinaryIO) -> None:
        pieces = _array_pieces(file.json_array(), by_ordinal, appended, file.ref.dataset)
        write_compressed(sink, file.ref.compression, transcoded_back(pieces, settings.encoding))

    return write


def _array_pieces(
    reader: JsonArrayReader, edits: dict[int, bytes], appended: list[bytes], where: str
) -> Iterator[bytes]:
    separator = b"\n"
    started = False
    for element in reader.elements():
        if not isinstance(element, Element):
            raise MalformedFile(element.message, where=where)
        if not started:
            yield reader.prefix.encode("utf-8", "surrogateescape")
            started = True
        text = edits.get(element.ordinal)
        if text != b"":
            original = element.text.encode("utf-8", "surrogateescape")
            yield separator + (original if text is None else text)
            separator = b",\n"
    if not started:
        yield reader.prefix.encode("utf-8", "surrogateescape")
    for text in appended:
        yield separator + text
        separator = b",\n"
    yield b"\n" + reader.suffix.lstrip().encode("utf-8", "surrogateescape")


# Splicing and compression.


def _splice(
    file: OpenFile,
    settings: FilesSettings,
    edits: Edits,
    appended: list[bytes],
    newline: bytes,
    sink: BinaryIO,
) -> None:
    pieces = _spliced(file.chunks(), sorted(edits.values()), appended, newline)
    try:
        write_compressed(sink, file.ref.compression, transcoded_back(pieces, settings.encoding))
    except StreamDamaged as damage:
        raise MalformedFile(str(damage), where=file.ref.dataset) from None


def _spliced(
    chunks: Iterator[bytes],
    edits: list[tuple[int, int, bytes]],
    appended: list[bytes],
    newline: bytes,
) -> Iterator[bytes]:
    """The chunks with each edit's range replaced and the appended records behind."""
    position, number, last = 0, 0, b"\n"
    for chunk in chunks:
        end, used = position + len(chunk), 0
        while number < len(edits) and edits[number][0] < end:
            start, stop, text = edits[number]
            if start >= position + used:
                piece = chunk[used : start - position] + text
                if piece:
                    yield piece
                    last = piece[-1:]
            used = min(stop, end) - position
            if stop > end:
                break
            number += 1
        if rest := chunk[used:]:
            yield rest
            last = rest[-1:]
        position = end
    if appended:
        yield (newline if last != b"\n" else b"") + b"".join(appended)


def write_compressed(sink: BinaryIO, compression: str, pieces: Iterator[bytes]) -> None:
    """Write the pieces, compressed as the file's name says."""
    if compression == "gzip":
        with gzip.GzipFile(
            filename="", fileobj=sink, mode="wb", compresslevel=6, mtime=0
        ) as packed:
            for piece in pieces:
                packed.write(piece)
    elif compression == "zstd":
        target = pa.PythonFile(UnclosedSink(sink), mode="w")
        with pa.CompressedOutputStream(target, "zstd") as stream:
            for piece in pieces:
                stream.write(piece)
    else:
        for piece in pieces:
            sink.write(piece)


# Parquet.


def _plan_parquet(file: OpenFile, matcher: Matcher, settings: FilesSettings) -> Write:
    reader = file.parquet()
    require_fields(matcher.fields, reader.schema.names, file.ref.dataset)
    native = _native_after(reader, matcher)
    for rows in reader.rows(matcher.fields):
        _refuse_damaged(rows, file.ref.dataset)
        matcher.look(rows)
    file.ensure_unchanged()
    absent = matcher.finish()
    hits = {c: start for c, (start, _) in matcher.hits.items() if c not in matcher.problems}
    is_update = matcher.operation is Operation.UPDATE
    edits = ParquetEdits(
        updated={row: change for change, row in hits.items()} if is_update else {},
        updates=native if is_update else None,
        deleted=frozenset() if is_update else frozenset(hits.values()),
        inserts=native.take(pa.array(absent, pa.int64()))
        if absent and native is not None
        else None,
    )
    return lambda sink: rewrite(file.parquet(), edits, UnclosedSink(sink))


def _native_after(reader: ParquetReader, matcher: Matcher) -> pa.Table | None:
    if matcher.after is None:
        return None
    columns = []
    for name in matcher.after.column_names:
        native = reader.schema.field(name).type
        column = matcher.after.column(name).combine_chunks()
        converted = to_native(_flat(column), native)
        for row, misfit in converted.misfits.items():
            matcher.refuse(row, name, misfit.code, misfit.message)
        columns.append(converted.values)
    return pa.table(columns, names=matcher.after.column_names)


def _flat(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    if isinstance(column, pa.ChunkedArray):
        return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
    return column


_PLANNERS: dict[str, Callable[[OpenFile, Matcher, FilesSettings], Write]] = {
    "csv": _plan_csv,
    "jsonl": _plan_json_lines,
    "json": _plan_json_array,
    "parquet": _plan_parquet,
}
