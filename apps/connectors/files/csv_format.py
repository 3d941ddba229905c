"""CSV: splitting, reading and rendering.

The file is cut into regions that end at a record's end. A region whose quotes, encoding and line
ends are sound goes to pyarrow's parser as it is (the fast path). Any other region is laid out
record by record (the careful path): sound records go to the same parser, the others become
rejections. The rules of both are the same: a quote opens a field only at its start and closes it
only before a delimiter or a line's end; `""` inside is one quote; a line ends with LF or CRLF.

A record whose quotes are broken costs its first physical line only, and splitting resumes at the
next line: so a quote that is never closed does not swallow the file. Blank lines hold nothing,
except in a file of one column, where they are NULL.
"""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

from apps.connectors.base import FieldSchema, RawRejection
from apps.connectors.errors import SchemaMismatch
from apps.connectors.files.conversion import from_text, to_text
from apps.connectors.files.limits import require_field_count
from apps.connectors.files.rows import Rows, collect, raw_text
from apps.connectors.files.streams import StreamDamaged

BOM = b"\xef\xbb\xbf"
_DELIMITERS = (",", ";", "\t", "|")
_HEAD = 256 << 10
_QUOTE = b'"'


@dataclass(frozen=True, slots=True)
class Dialect:
    """How this file is written."""

    delimiter: str
    null_text: str = ""
    line_end: str = "\n"


class Grammar:
    """The regular expressions of one delimiter."""

    def __init__(self, delimiter: str) -> None:
        d = re.escape(delimiter).encode()
        quoted = b'"[^"]*+(?:""[^"]*+)*+"'
        cell = b"(?:" + quoted + b'|[^"' + d + b"\r\n]*+)"
        self.delimiter = delimiter.encode()
        self.record = re.compile(cell + b"(?:" + d + cell + b")*+(\r?\n|\\Z)")
        self.open_at_end = re.compile(b"(?:" + cell + d + b')*+"[^"]*+(?:""[^"]*+)*+(?:"|"\r)?\\Z')
        self.quoted = re.compile(quoted)
        self.bad_open = re.compile(b"[^" + d + b'\n"]"')

    def columns(self, record: bytes) -> int:
        if _QUOTE in record:
            record = self.quoted.sub(b"", record)
        return record.count(self.delimiter) + 1


@dataclass(slots=True)
class Layout:
    """Where the records of a region stand, as offsets into it; `consumed` is where it ends."""

    starts: list[int] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)
    rejected: list[RawRejection] = field(default_factory=list)
    consumed: int = 0


@dataclass(frozen=True, slots=True)
class Problem:
    code: str
    message: str


_TOO_LARGE = Problem("record.too_large", "the record is longer than this source allows")
_BROKEN_QUOTE = Problem(
    "record.malformed",
    "a quote is not closed, or stands inside a cell, or a carriage return does",
)
_NUL = Problem("record.nul_byte", "the line holds a NUL byte")
_ENCODING = Problem("record.wrong_encoding", "the line holds bytes that are not in the encoding")
_REMEDIES = {
    "record.malformed": "Double each quote inside a quoted cell and close the cell.",
    "record.nul_byte": "Remove the NUL bytes; such a file was often cut off or padded.",
    "record.wrong_encoding": "Set the source's encoding, or save the file in it.",
    "record.missing_columns": "Add the missing cells.",
    "record.extra_columns": "Quote the cells that contain the delimiter.",
    "record.too_large": "Look for an unclosed quote, or raise 'Largest record'.",
    "file.truncated": "Get the file again from where it came.",
}


def rejection(line: int, code: str, message: str, data: bytes) -> RawRejection:
    """A line that is not a record."""
    return RawRejection(
        position=f"line {line}",
        code=code,
        message=f"line {line}: {message}. {_REMEDIES[code]}",
        raw=raw_text(data.rstrip(b"\r\n")),
    )


def lay_out(
    data: bytes, grammar: Grammar, columns: int, first_line: int, *, final: bool, forced: bool
) -> Layout:
    """Split a region record by record.

    An incomplete record at the end is left unconsumed unless `final`; `forced` says that there
    is no room to wait for its end, so its first line is given up.
    """
    layout = Layout()
    position, line, size = 0, first_line, len(data)
    next_quote = data.find(_QUOTE)
    while position < size:
        line_end = data.find(b"\n", position)
        if line_end < 0 and not final and not (forced and position == 0):
            break
        end = size if line_end < 0 else line_end + 1
        if 0 <= next_quote < position:
            next_quote = data.find(_QUOTE, position)
        problem: Problem | None = None
        if 0 <= next_quote < end:
            match = grammar.record.match(data, position)
            complete = match is not None and (match[1] or final)
            if match is not None and complete:
                end = match.end()
            elif (
                not final
                and not (forced and position == 0)
                and (match is not None or grammar.open_at_end.match(data, position))
            ):
                break
            else:
                problem = _BROKEN_QUOTE
        record = data[position:end]
        _place(layout, record, position, line, problem, grammar, columns)
        line += record.count(b"\n") if record.endswith(b"\n") else 1
        position = end
    layout.consumed = position
    return layout


def _place(
    layout: Layout,
    record: bytes,
    position: int,
    line: int,
    problem: Problem | None,
    grammar: Grammar,
    columns: int,
) -> None:
    text = record[:-2] if record.endswith(b"\r\n") else record.removesuffix(b"\n")
    if not text and columns != 1:
        return
    problem = problem or _problem_of(text, grammar, columns)
    if problem is not None:
        layout.rejected.append(rejection(line, problem.code, problem.message, record))
        return
    layout.starts.append(position)
    layout.ends.append(position + len(record))
    layout.lines.append(line)


def _problem_of(text: bytes, grammar: Grammar, columns: int) -> Problem | None:
    if b"\0" in text:
        return _NUL
    if not text.isascii() and not _is_utf8(text):
        return _ENCODING
    if b"\r" in text and b"\r" in grammar.quoted.sub(b"", text):
        return _BROKEN_QUOTE
    found = grammar.columns(text)
    if found < columns:
        return Problem("record.missing_columns", f"it has {found} of {columns} columns")
    if found > columns:
        return Problem("record.extra_columns", f"it has {found} columns, the header {columns}")
    return None


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _is_clean(data: bytes, delimiter: str) -> bool:
    """Whether the fast path may split this region: it would by the same rules."""
    if b"\0" in data or not (data.isascii() or _is_utf8(data)):
        return False
    if b"\r" in data and data.count(b"\r") != data.count(b"\r\n"):
        return False
    return _QUOTE not in data or _quotes_are_sound(data, delimiter)


def _quotes_are_sound(data: bytes, delimiter: str) -> bool:
    """Whether each opening quote follows, and each closing quote precedes, the right byte.

    Quotes open and close in turns; a close next to an open is an escaped quote.
    """
    codes = pa.Array.from_buffers(pa.uint8(), len(data), [None, pa.py_buffer(data)])
    quotes = pc.cast(pc.indices_nonzero(pc.equal(codes, 34)), pa.int64())
    if len(quotes) % 2:
        return False
    pairs = pa.FixedSizeListArray.from_arrays(quotes, 2)
    opens, closes = pc.list_element(pairs, 0), pc.list_element(pairs, 1)
    if opens[0].as_py() == 0:
        opens = opens.slice(1)
    if closes[-1].as_py() == len(data) - 1:
        closes = closes.slice(0, len(closes) - 1)
    before = pa.array([34, 10, ord(delimiter)], pa.uint8())
    after = pa.array([34, 10, 13, ord(delimiter)], pa.uint8())
    return bool(
        pc.all(pc.is_in(pc.take(codes, pc.subtract(opens, 1)), before), min_count=0).as_py()
        and pc.all(pc.is_in(pc.take(codes, pc.add(closes, 1)), after), min_count=0).as_py()
    )


def _last_record_end(data: bytes) -> int:
    """After the last line break outside quotes, by parity; 0 if there is none."""
    end = data.rfind(b"\n") + 1
    if _QUOTE not in data:
        return end
    quotes = data.count(_QUOTE, 0, end)
    while end and quotes % 2:
        previous = data.rfind(b"\n", 0, end - 1) + 1
        quotes -= data.count(_QUOTE, previous, end)
        end = previous
    return end


@dataclass(frozen=True, slots=True)
class Region:
    """Whole records: at which offset and line of the file they begin, and how they lie."""

    data: bytes
    offset: int
    first_line: int
    layout: Layout | None  # None: clean, not laid out
    damage: str = ""


def header_of(data: bytes, delimiter: str, where: str) -> tuple[tuple[str, ...], int]:
    """The names in the first line that is not blank, and where the records begin.

    A name that stands twice gets `_2`, an empty one `column_3`. Raises SchemaMismatch.
    """
    start = len(BOM) if data.startswith(BOM) else 0
    while data[start : start + 1] in (b"\n", b"\r"):
        start += 1
    if start == len(data):
        return (), len(data)
    grammar = Grammar(delimiter)
    match = grammar.record.match(data, start)
    if match is None or b"\0" in match[0] or not _is_utf8(match[0]):
        raise SchemaMismatch(
            "the header line cannot be read: broken quotes, line ends or encoding",
            where=where,
            remedy="Correct the first line; line ends must be LF or CRLF. Check the encoding.",
        )
    columns = grammar.columns(match[0].rstrip(b"\r\n"))
    require_field_count(columns, where)
    table = _parse(match[0], delimiter, columns, None, None)
    cells = [str(column[0].as_py() or "") for column in table.columns]
    return unique_names(cells), match.end()


def unique_names(cells: Sequence[str]) -> tuple[str, ...]:
    """Names that are all there and all different."""
    taken = Counter(cells)
    names: list[str] = []
    for number, cell in enumerate(cells, 1):
        name = cell or f"column_{number}"
        suffix = 2
        while name in names or (name != cell and name in taken):
            name, suffix = f"{cell or 'column'}_{suffix}", suffix + 1
        names.append(name)
    return tuple(names)


def detect_delimiter(sample: bytes) -> str:
    """The delimiter that cuts the first lines into the most columns, equally many in each."""
    sample = sample[:_HEAD].removeprefix(BOM)
    best, most = ",", 1
    for delimiter in _DELIMITERS:
        grammar = Grammar(delimiter)
        counts: list[int] = []
        position = 0
        while position < len(sample) and len(counts) < 50:
            match = grammar.record.match(sample, position)
            if match is None or not match[1]:
                break
            if match[0].strip(b"\r\n"):
                counts.append(grammar.columns(match[0]))
            position = match.end()
        agreed = Counter(counts).most_common(1)[0] if counts else (1, 0)
        if counts and counts[0] == agreed[0] and agreed[1] * 2 > len(counts) and agreed[0] > most:
            best, most = delimiter, agreed[0]
    if most == 1:
        first = sample.partition(b"\n")[0]
        found = {d: Grammar(d).columns(first.rstrip(b"\r")) for d in _DELIMITERS}
        best = max(_DELIMITERS, key=lambda d: found[d])
    return best


def _parse(
    data: bytes, delimiter: str, columns: int, wanted: Sequence[int] | None, null_text: str | None
) -> pa.Table:
    """Split sound records into text columns. Raises pa.ArrowInvalid for wrong column counts."""
    names = [f"c{number}" for number in range(columns)]
    if data.startswith(BOM):
        data = BOM + data  # pyarrow drops one
    if not data.endswith(b"\n"):
        data += b"\n"  # else pyarrow takes an empty last cell after a quoted one as quoted
    return pa_csv.read_csv(
        io.BytesIO(data),
        read_options=pa_csv.ReadOptions(column_names=names, block_size=len(data) + 1024),
        parse_options=pa_csv.ParseOptions(
            delimiter=delimiter, newlines_in_values=True, ignore_empty_lines=columns > 1
        ),
        convert_options=pa_csv.ConvertOptions(
            check_utf8=False,
            column_types=dict.fromkeys(names, pa.string()),
            include_columns=None if wanted is None else [names[number] for number in wanted],
            null_values=[] if null_text is None else [null_text],
            strings_can_be_null=null_text is not None,
            quoted_strings_can_be_null=False,
        ),
    )


class CsvReader:
    """Reads one file from its chunks of UTF-8."""

    def __init__(
        self,
        chunks: Iterator[bytes],
        *,
        delimiter: str,
        null_text: str,
        max_record: int,
        where: str,
        careful: bool = False,
    ) -> None:
        self._chunks = chunks
        self._max_record = max_record
        self._careful = careful
        self._ended = False
        self._damage = ""
        head = b""
        while len(head) < _HEAD or b"\n" not in head:
            if not self._more():
                break
            head += self._next
            if len(head) > max_record:
                break
        delimiter = delimiter or detect_delimiter(head)
        self.names, self.data_start = header_of(head, delimiter, where)
        self.header = head[: self.data_start]
        line_end = "\r\n" if self.header.endswith(b"\r\n") else "\n"
        self.dialect = Dialect(delimiter, null_text, line_end)
        self._grammar = Grammar(delimiter)
        self._buffer = head[self.data_start :]
        self._first_line = 1 + self.header.count(b"\n")

    def _more(self) -> bool:
        """Fetch a chunk into `_next`; False at the end."""
        try:
            self._next = next(self._chunks, b"")
        except StreamDamaged as damage:
            self._damage, self._next = str(damage), b""
        self._ended = not self._next
        return not self._ended

    def regions(self) -> Iterator[Region]:
        """The records of the file, in pieces."""
        if not self.names:
            return
        offset, line, buffer = self.data_start, self._first_line, self._buffer
        skipping = False
        while True:
            if skipping:
                cut = buffer.find(b"\n") + 1
                skipping = not cut
                cut = cut or len(buffer)
                offset, buffer, line = offset + cut, buffer[cut:], line + (not skipping)
            elif buffer:
                region, skipping = self._region(buffer, offset, line)
                if region is not None:
                    yield region
                    used = len(region.data)
                    offset, buffer = offset + used, buffer[used:]
                    line += region.data.count(b"\n")
            if self._ended and (not buffer or self._damage):
                break
            if not self._ended and len(buffer) <= self._max_record and self._more():
                buffer += self._next
        if self._damage:
            yield Region(buffer, offset, line, None, self._damage)

    def _region(self, buffer: bytes, offset: int, line: int) -> tuple[Region | None, bool]:
        """The next region of the buffer, and whether the rest of its last line is to be skipped."""
        final = self._ended and not self._damage
        if not self._careful:
            data = buffer if final else buffer[: _last_record_end(buffer)]
            if data and _is_clean(data, self.dialect.delimiter):
                return Region(data, offset, line, None), False
        forced = len(buffer) > self._max_record
        if forced and b"\n" not in buffer:
            layout = Layout(consumed=len(buffer))
            layout.rejected.append(rejection(line, _TOO_LARGE.code, _TOO_LARGE.message, buffer))
            return Region(buffer, offset, line, layout), True
        layout = self._lay_out(buffer, line, final=final, forced=forced)
        if not layout.consumed:
            return None, False
        return Region(buffer[: layout.consumed], offset, line, layout), False

    def _lay_out(self, data: bytes, line: int, *, final: bool, forced: bool = False) -> Layout:
        return lay_out(data, self._grammar, len(self.names), line, final=final, forced=forced)

    def rows(self, fields: Sequence[FieldSchema], *, with_source: bool = False) -> Iterator[Rows]:
        """The records, with these fields converted. `with_source` keeps all cells as text."""
        for region in self.regions():
            if region.damage:
                lost = rejection(region.first_line, "file.truncated", region.damage, region.data)
                yield empty_rows((lost,))
                continue
            yield self._rows(region, fields, with_source)

    def _rows(self, region: Region, fields: Sequence[FieldSchema], with_source: bool) -> Rows:
        wanted = [self.names.index(f.name) for f in fields]
        if with_source:
            wanted = list(range(len(self.names)))
        elif not wanted:
            wanted = [0]
        layout, table = region.layout, None
        if layout is None:
            try:
                table = self._parse(region.data, wanted)
            except pa.ArrowInvalid:
                layout = self._lay_out(region.data, region.first_line, final=True)
        if table is None:
            layout = layout or Layout()
            sound = b"".join(
                region.data[start:end]
                for start, end in zip(layout.starts, layout.ends, strict=True)
            )
            table = self._parse(sound, wanted)
        return self._converted(region, layout, table, fields, with_source)

    def _parse(self, data: bytes, wanted: Sequence[int]) -> pa.Table:
        columns = len(self.names)
        if not data:
            return pa.table({f"c{number}": pa.array([], pa.string()) for number in wanted})
        return _parse(data, self.dialect.delimiter, columns, wanted, self.dialect.null_text)

    def _converted(
        self,
        region: Region,
        layout: Layout | None,
        table: pa.Table,
        fields: Sequence[FieldSchema],
        with_source: bool,
    ) -> Rows:
        table = table.combine_chunks()
        places = _Places(self, region, layout)
        columns, misfits = collect(
            fields,
            lambda f: from_text(_flat(table.column(f"c{self.names.index(f.name)}")), f.type),
        )
        return Rows(
            num_rows=table.num_rows,
            columns=columns,
            misfits=misfits,
            position=places.position,
            raw=places.raw,
            address=places.address,
            rejected=tuple(layout.rejected) if layout is not None else (),
            source=table.rename_columns(list(self.names)) if with_source else None,
        )


def _flat(column: pa.ChunkedArray) -> pa.Array:
    combined = column.combine_chunks()
    if isinstance(combined, pa.ChunkedArray):
        return combined.chunk(0) if combined.num_chunks else pa.array([], column.type)
    return combined


def empty_rows(rejected: tuple[RawRejection, ...]) -> Rows:
    """No records, only rejections."""
    return Rows(0, {}, {}, lambda _: "", lambda _: "", lambda _: (0, 0), rejected)


class _Places:
    """Where the rows of a region stand; laid out only when somebody asks."""

    def __init__(self, reader: CsvReader, region: Region, layout: Layout | None) -> None:
        self._reader, self._region, self._layout = reader, region, layout

    @property
    def layout(self) -> Layout:
        if self._layout is None:
            self._layout = self._reader._lay_out(
                self._region.data, self._region.first_line, final=True
            )
        return self._layout

    def position(self, row: int) -> str:
        return f"line {self.layout.lines[row]}"

    def raw(self, row: int) -> str:
        data = self._region.data[self.layout.starts[row] : self.layout.ends[row]]
        return raw_text(data.rstrip(b"\r\n"))

    def address(self, row: int) -> tuple[int, int]:
        offset = self._region.offset
        return offset + self.layout.starts[row], offset + self.layout.ends[row]


# Rendering.


def render(texts: Sequence[pa.Array], dialect: Dialect) -> list[bytes]:
    """Records from columns of text; a NULL is an unquoted null text."""
    cells = [_cells(column, dialect) for column in texts]
    joined = pc.binary_join_element_wise(*cells, dialect.delimiter)
    ended = pc.binary_join_element_wise(joined, "", dialect.line_end)
    return [line.encode() for line in ended.to_pylist()]


def _cells(column: pa.Array, dialect: Dialect) -> pa.Array:
    special = f'["\r\n{re.escape(dialect.delimiter)}]'
    needs = pc.or_(pc.match_substring_regex(column, special), pc.equal(column, dialect.null_text))
    needs = pc.or_(needs, pc.equal(column, ""))
    quoted = pc.binary_join_element_wise("", pc.replace_substring(column, '"', '""'), "", '"')
    return pc.fill_null(pc.if_else(needs, quoted, column), dialect.null_text)


def header_line(names: Sequence[str], dialect: Dialect) -> bytes:
    """The header."""
    columns = [pa.array([name], pa.string()) for name in names]
    return render(columns, dialect)[0]


def text_columns(
    names: Sequence[str], source: pa.Table | None, after: pa.Table, fields: Sequence[FieldSchema]
) -> list[pa.Array]:
    """All cells of the rows: those of `after` where it has them, else those of `source`."""
    types = {f.name: f.type for f in fields}
    result = []
    for name in names:
        if name in after.column_names:
            result.append(to_text(_flat(after.column(name)), types[name]))
        elif source is not None:
            result.append(_flat(source.column(name)))
        else:
            result.append(pa.nulls(after.num_rows, pa.string()))
    return result
