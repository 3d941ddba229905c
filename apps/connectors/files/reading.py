"""One file, opened: the reader of its format, and whether it stayed the same meanwhile."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import BinaryIO

from apps.connectors.base import FieldSchema
from apps.connectors.errors import ConnectionLost, FieldMissing, SourceChanged
from apps.connectors.files import sidecar
from apps.connectors.files.csv_format import CsvReader
from apps.connectors.files.json_format import JsonArrayReader, JsonLinesReader
from apps.connectors.files.limits import require_growth
from apps.connectors.files.parquet_format import ParquetReader
from apps.connectors.files.paths import FileRef, Fingerprint, open_file
from apps.connectors.files.rows import Rows
from apps.connectors.files.settings import FilesSettings
from apps.connectors.files.streams import text_chunks, verify


class OpenFile:
    """A file open for reading; a context manager."""

    def __init__(self, ref: FileRef, settings: FilesSettings) -> None:
        self.ref = ref
        self._settings = settings

    def __enter__(self) -> OpenFile:
        self.file: BinaryIO = open_file(self.ref)
        self.fingerprint = self._now()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: object, trace: TracebackType | None
    ) -> None:
        self.file.close()

    def _now(self) -> Fingerprint:
        try:
            return Fingerprint.of(os.fstat(self.file.fileno()))
        except OSError as error:
            raise ConnectionLost(
                f"the file is gone: {error.strerror}", where=self.ref.dataset
            ) from None

    def ensure_unchanged(self) -> None:
        """Raises SourceChanged when the file was written to since it was opened."""
        if self._now() != self.fingerprint:
            raise SourceChanged(
                "the file was written to while it was being read", where=self.ref.dataset
            )

    def ensure_in_place(self) -> None:
        """Raises SourceChanged when another file stands at its path, or none."""
        self.ensure_unchanged()
        try:
            present = Fingerprint.of(os.stat(self.ref.path, follow_symlinks=False))
        except FileNotFoundError:
            present = None
        if present != self.fingerprint:
            raise SourceChanged("somebody replaced the file", where=self.ref.dataset)

    def chunks(self) -> Iterator[bytes]:
        """The file's text from its start, in UTF-8."""
        self.file.seek(0)
        return text_chunks(self.file, self.ref.compression, self._settings, self.ref.dataset)

    def verify(self) -> None:
        """Raises MalformedFile when the file's compression is corrupt."""
        if self.ref.compression:
            verify(self.chunks(), self.ref.dataset)

    @property
    def _max_record(self) -> int:
        return self._settings.max_record_mib << 20

    def csv(self) -> CsvReader:
        """A reader of CSV from the start."""
        settings = self._settings
        return CsvReader(
            self.chunks(),
            delimiter="\t" if self.ref.is_tab_separated else settings.delimiter,
            null_text=settings.null_text,
            max_record=self._max_record,
            where=self.ref.dataset,
        )

    def json_lines(self) -> JsonLinesReader:
        """A reader of JSON Lines from the start."""
        return JsonLinesReader(self.chunks(), max_record=self._max_record)

    def json_array(self) -> JsonArrayReader:
        """A reader of a JSON array from the start."""
        return JsonArrayReader(
            self.chunks(),
            records_path=self._settings.json_records_path,
            max_record=self._max_record,
            where=self.ref.dataset,
        )

    def json(self) -> JsonLinesReader | JsonArrayReader:
        """A reader of either kind of JSON."""
        return self.json_lines() if self.ref.format == "jsonl" else self.json_array()

    def parquet(self) -> ParquetReader:
        """A reader of Parquet."""
        self.file.seek(0)
        parquet = ParquetReader(self.file, self.ref.dataset)
        ratio, most = self._settings.max_compression_ratio, self._settings.max_decompressed
        size = os.fstat(self.file.fileno()).st_size
        require_growth(parquet.decompressed_bytes, size, ratio, most, self.ref.dataset)
        return parquet

    def rows(self, fields: Sequence[FieldSchema]) -> Iterator[Rows]:
        """All records, with these fields. Raises FieldMissing, and SourceChanged at the end."""
        self.verify()
        if self.ref.format == "csv":
            csv = self.csv()
            self._require(fields, csv.names)
            yield from csv.rows(fields)
        elif self.ref.format == "parquet":
            parquet = self.parquet()
            self._require(fields, parquet.schema.names)
            yield from parquet.rows(fields)
        else:
            self._require_declared(fields)
            yield from self.json().rows(fields)
        self.ensure_unchanged()

    def _require_declared(self, fields: Sequence[FieldSchema]) -> None:
        """JSON has no header: an absent name is NULL, unless the schema file leaves it out."""
        if self._settings.schema_source != "inferred":
            declared = sidecar.load(self.ref)
            if declared is not None:
                self._require(fields, [f.name for f in declared.fields])

    def _require(self, fields: Sequence[FieldSchema], names: Sequence[str]) -> None:
        require_fields(fields, names, self.ref.dataset)


def require_fields(fields: Sequence[FieldSchema], names: Sequence[str], where: str) -> None:
    """Raises FieldMissing when a field is not among the names."""
    present = set(names)
    missing = [f.name for f in fields if f.name not in present]
    if missing:
        raise FieldMissing(
            f"the file no longer has the field '{missing[0]}'; it has {', '.join(names)[:500]}",
            where=where,
        )
