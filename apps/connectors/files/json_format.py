"""JSON Lines and JSON: reading and rendering, record by record, numbers exact.

A JSON Lines record that is not a JSON object is a rejection of its line. In a JSON array a
record that is valid JSON but no object is a rejection too; where the text stops being JSON the
rest of the file cannot be split safely and is one rejection, from that line to the end.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from apps.connectors.base import FieldSchema, RawRejection
from apps.connectors.errors import ConfigurationError
from apps.connectors.files.conversion import from_json, to_json_fragments
from apps.connectors.files.csv_format import BOM, empty_rows
from apps.connectors.files.json_text import DECODER, NotJson, dump, parse, quoted, require_shallow
from apps.connectors.files.rows import RAW_LIMIT, Rows, collect, raw_text
from apps.connectors.files.streams import StreamDamaged

_BLANKS = " \t\r\n"
_NOT_BLANK = re.compile(r"[^ \t\r\n]")
_LENIENT = json.JSONDecoder(parse_float=str, parse_int=str)
"""Finds the end of a value that is JSON in its structure only."""

_BATCH = 10_000
_BATCH_CHARS = 8 << 20


@dataclass(frozen=True, slots=True)
class Record:
    """One JSON object: where it starts and ends, on which line, and its value."""

    start: int
    end: int
    line: int
    text: str
    value: dict[str, Any]


def rows_of(
    records: Sequence[Record], rejected: Sequence[RawRejection], fields: Sequence[FieldSchema]
) -> Rows:
    """Records with these fields converted; an absent name is NULL."""
    if not records:
        return empty_rows(tuple(rejected))
    columns, misfits = collect(
        fields, lambda f: from_json([r.value.get(f.name) for r in records], f.type)
    )
    return Rows(
        num_rows=len(records),
        columns=columns,
        misfits=misfits,
        position=lambda row: f"line {records[row].line}",
        raw=lambda row: records[row].text.strip()[:RAW_LIMIT],
        address=lambda row: (records[row].start, records[row].end),
        rejected=tuple(rejected),
        source=records,
    )


def _reject(line: int, code: str, message: str, raw: str) -> RawRejection:
    return RawRejection(f"line {line}", code, f"line {line}: {message}.", raw[:RAW_LIMIT])


class JsonLinesReader:
    """Reads one file from its chunks of UTF-8."""

    def __init__(self, chunks: Iterator[bytes], *, max_record: int) -> None:
        self._chunks = chunks
        self._max_record = max_record

    def rows(self, fields: Sequence[FieldSchema]) -> Iterator[Rows]:
        """The records, with these fields converted."""
        for records, rejected in self.records():
            yield rows_of(records, rejected, fields)

    def records(self) -> Iterator[tuple[list[Record], list[RawRejection]]]:
        """Runs of records and of lines that are none."""
        offset, line, rest, skipping = 0, 1, b"", False
        damage = ""
        while True:
            try:
                chunk = next(self._chunks, b"")
            except StreamDamaged as problem:
                chunk, damage = b"", str(problem)
            rest += chunk
            cut = len(rest) if not chunk and not damage else rest.rfind(b"\n") + 1
            if skipping:
                first = rest.find(b"\n") + 1
                skipping, drop = not first, first or len(rest)
                offset, rest, line = offset + drop, rest[drop:], line + (first > 0)
                cut = max(cut - drop, 0)
            if cut:
                yield self._split(rest[:cut], offset, line)
                line += rest.count(b"\n", 0, cut)
                offset, rest = offset + cut, rest[cut:]
            if len(rest) > self._max_record:
                problem_text = "the line is longer than this source allows"
                yield [], [_reject(line, "record.too_large", problem_text, raw_text(rest))]
                offset, rest, skipping = offset + len(rest), b"", True
            if not chunk:
                break
        if damage:
            yield [], [_reject(line, "file.truncated", damage, raw_text(rest))]

    def _split(
        self, data: bytes, offset: int, line: int
    ) -> tuple[list[Record], list[RawRejection]]:
        records: list[Record] = []
        rejected: list[RawRejection] = []
        lines = data.split(b"\n")
        last = len(lines) - 1
        for number, content in enumerate(lines):
            end = offset + len(content) + (number < last)
            if content and not content.isspace():
                record = self._record(content, offset, end, line + number)
                if isinstance(record, Record):
                    records.append(record)
                else:
                    rejected.append(record)
            offset = end
        return records, rejected

    @staticmethod
    def _record(content: bytes, start: int, end: int, line: int) -> Record | RawRejection:
        if start == 0 and content.startswith(BOM):
            content, start = content[len(BOM) :], len(BOM)
        raw = raw_text(content)
        try:
            text = content.decode()
        except UnicodeDecodeError:
            problem = "the line holds bytes that are not in the encoding; set the right one"
            return _reject(line, "record.wrong_encoding", problem, raw)
        if "\0" in text:
            return _reject(line, "record.nul_byte", "the line holds a NUL byte; remove it", raw)
        try:
            value = parse(text)
        except NotJson as problem:
            message = f"the line is not JSON: {problem}; it may be cut off"
            return _reject(line, "record.malformed", message, raw)
        if not isinstance(value, dict):
            return _reject(line, "record.malformed", "the line is not a JSON object", raw)
        return Record(start, end, line, text, value)


class JsonArrayReader:
    """Reads the array of records of one JSON file. `address` counts records, not bytes.

    After `items` is exhausted `prefix` and `suffix` hold the text around the records, and
    `broken` says whether the array could not be followed to its end.
    """

    def __init__(
        self, chunks: Iterator[bytes], *, records_path: str, max_record: int, where: str
    ) -> None:
        self._chunks = chunks
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")("surrogateescape")
        self._path = [part for part in records_path.split(".") if part]
        self._max_record = max_record
        self._where = where
        self._text = ""
        self._position = 0
        self._ended = False
        self._damage = ""
        self._line = 1
        self._kept: list[str] | None = []
        self.prefix = ""
        self.suffix = ""
        self.broken = False

    # A cursor over text that is fetched as needed.

    def _fetch(self) -> bool:
        if self._ended:
            return False
        try:
            chunk = next(self._chunks, b"")
        except StreamDamaged as damage:
            self._damage, chunk = str(damage), b""
        self._ended = not chunk
        self._text = self._text[self._position :] + self._decoder.decode(chunk)
        self._position = 0
        return not self._ended

    def _advance(self, end: int) -> str:
        passed = self._text[self._position : end]
        self._position = end
        self._line += passed.count("\n")
        if self._kept is not None:
            self._kept.append(passed)
        return passed

    def _peek(self) -> str:
        """The next character that is not blank; empty at the end."""
        while True:
            match = _NOT_BLANK.search(self._text, self._position)
            if match:
                self._advance(match.start())
                return match[0]
            self._advance(len(self._text))
            if not self._fetch():
                return ""

    def _expect(self, character: str) -> None:
        found = self._peek()
        if found != character:
            shown = f"'{found}'" if found else self._damage or "the end of the file"
            raise NotJson(f"'{character}' expected, found {shown}")
        self._advance(self._position + 1)

    def _value(self) -> tuple[Any, str]:
        """The next JSON value and its text; the value is a NotJson where only content is wrong."""
        self._peek()
        while True:
            try:
                value, end = self._decoded()
                length = end - self._position
                if end < len(self._text) or not self._fetch_more():
                    return value, self._advance(self._position + length)
            except (RecursionError, ValueError) as error:
                near_end = (
                    isinstance(error, json.JSONDecodeError)
                    and error.pos < len(self._text) - 32
                    and not error.msg.startswith("Unterminated string")
                )
                if near_end or not self._fetch_more():
                    raise NotJson(self._reason(error)) from None

    def _decoded(self) -> tuple[Any, int]:
        try:
            return DECODER.raw_decode(self._text, self._position)
        except json.JSONDecodeError:
            raise
        except ValueError as problem:
            _, end = _LENIENT.raw_decode(self._text, self._position)
            is_ours = isinstance(problem, NotJson)
            return problem if is_ours else NotJson("a number has too many digits"), end

    def _reason(self, error: Exception) -> str:
        if len(self._text) - self._position > self._max_record:
            return "the record is longer than this source allows"
        return error.msg if isinstance(error, json.JSONDecodeError) else str(error)

    def _fetch_more(self) -> bool:
        too_long = len(self._text) - self._position > self._max_record
        return not too_long and self._fetch()

    def _enter(self) -> None:
        """Go to the first record. Raises ConfigurationError where there is no array."""
        for name in self._path:
            self._expect("{")
            while True:
                if self._peek() == "}":
                    raise ConfigurationError(
                        f"the file has no '{name}'",
                        where=self._where,
                        remedy="Correct 'Path of the records in JSON files'.",
                    )
                found, _ = self._value()
                self._expect(":")
                if found == name:
                    break
                self._value()
                if self._peek() == ",":
                    self._expect(",")
        if self._peek() == "{":
            raise ConfigurationError(
                "the file holds a JSON object where an array of records is expected",
                where=self._where,
                remedy="Name the array in 'Path of the records in JSON files'.",
            )
        self._expect("[")
        self.prefix, self._kept = "".join(self._kept or []), None

    def items(self) -> Iterator[Record | RawRejection]:
        """Each record, or why it is none. The text of a rejection is in its `raw`, cut."""
        for item in self.elements():
            yield item if isinstance(item, RawRejection) else self._checked(item)

    def elements(self) -> Iterator[Element | RawRejection]:
        """Each element of the array; a rejection, at last, where it is no JSON any more."""
        try:
            if self._peek() == "" and not self._damage:
                self.prefix, self.suffix, self._kept = "[", "]", None
                return
            self._enter()
            ordinal = 0
            if self._peek() != "]":
                while True:
                    self._peek()
                    line = self._line
                    value, text = self._value()
                    yield Element(ordinal, line, text, value)
                    ordinal += 1
                    if self._peek() == "]":
                        break
                    self._expect(",")
            self._kept = []
            self._expect("]")
            while self._text[self._position :] or self._fetch():
                self._advance(len(self._text))
            self.suffix, self._kept = "".join(self._kept), None
            if self._damage or (not self._path and self.suffix.strip() != "]"):
                raise NotJson("something follows the end of the array")
        except NotJson as problem:
            self.broken, self._kept = True, None
            rest = self._text[self._position : self._position + RAW_LIMIT]
            raw = rest.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
            message = (
                f"from here to the end the file cannot be split into records: {problem}. "
                f"{self._damage} Correct the file, or export it again"
            )
            yield _reject(self._line, "file.malformed", message.replace(".  ", ". "), raw)

    @staticmethod
    def _checked(element: Element) -> Record | RawRejection:
        text = element.text
        try:
            text.encode()
        except UnicodeEncodeError:
            problem = "the record holds bytes that are not in the encoding"
            raw = text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
            return _reject(element.line, "record.wrong_encoding", problem, raw)
        try:
            require_shallow(text)
        except NotJson as depth:
            return _reject(element.line, "record.malformed", str(depth), text)
        if isinstance(element.value, NotJson):
            return _reject(element.line, "record.malformed", str(element.value), text)
        if not isinstance(element.value, dict):
            problem = "the element is not a JSON object"
            return _reject(element.line, "record.malformed", problem, text)
        return Record(element.ordinal, element.ordinal + 1, element.line, text, element.value)

    def records(self) -> Iterator[tuple[list[Record], list[RawRejection]]]:
        """Runs of records and of elements that are none."""
        records: list[Record] = []
        rejected: list[RawRejection] = []
        size = 0
        for item in self.items():
            if isinstance(item, Record):
                records.append(item)
                size += len(item.text)
            else:
                rejected.append(item)
            if len(records) + len(rejected) >= _BATCH or size > _BATCH_CHARS:
                yield records, rejected
                records, rejected, size = [], [], 0
        if records or rejected:
            yield records, rejected

    def rows(self, fields: Sequence[FieldSchema]) -> Iterator[Rows]:
        """The records, with these fields converted."""
        for records, rejected in self.records():
            yield rows_of(records, rejected, fields)


@dataclass(frozen=True, slots=True)
class Element:
    """One element of the array."""

    ordinal: int
    line: int
    text: str
    value: Any


# Rendering.


def render_inserts(after: pa.Table, fields: Sequence[FieldSchema]) -> list[bytes]:
    """Objects from a table, without line ends."""
    types = {f.name: f.type for f in fields}
    names = after.column_names
    fragments = [
        to_json_fragments(after.column(name).combine_chunks(), types[name]) for name in names
    ]
    labels = [f"{quoted(name)}:" for name in names]
    return [
        ("{" + ",".join(map("".join, zip(labels, row, strict=True))) + "}").encode()
        for row in zip(*fragments, strict=True)
    ]


def render_updates(
    records: Sequence[Record], after: pa.Table, fields: Sequence[FieldSchema]
) -> list[bytes]:
    """The records with the values of `after`; all other names keep their values and places."""
    types = {f.name: f.type for f in fields}
    names = after.column_names
    fragments = [
        to_json_fragments(after.column(name).combine_chunks(), types[name]) for name in names
    ]
    result = []
    for record, *row in zip(records, *fragments, strict=True):
        members = {name: dump(value) for name, value in record.value.items()}
        members.update(zip(names, row, strict=True))
        body = ",".join(f"{quoted(name)}:{text}" for name, text in members.items())
        result.append(("{" + body + "}").encode("utf-8", "surrogatepass"))
    return result
