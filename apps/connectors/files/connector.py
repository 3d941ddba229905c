"""Files in a folder as datasets: CSV, JSON Lines, JSON and Parquet, plain or compressed."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import BinaryIO, ClassVar

import pyarrow.parquet as pq

from apps.connectors.base import (
    Capabilities,
    CheckStep,
    Connector,
    ConnectorSettings,
    DatasetSchema,
    ReadBatch,
    ReadRequest,
    StepStatus,
    WriteSession,
)
from apps.connectors.errors import ConfigurationError, LockstepError, PermissionRefused
from apps.connectors.files import sidecar
from apps.connectors.files.csv_format import Dialect, header_line
from apps.connectors.files.describing import describe, united
from apps.connectors.files.json_text import quoted
from apps.connectors.files.parquet_format import native_schema
from apps.connectors.files.paths import FileRef, Folder
from apps.connectors.files.reading import OpenFile
from apps.connectors.files.replacing import UnclosedSink, create_file, disk_errors
from apps.connectors.files.rows import Rows
from apps.connectors.files.selection import Selection
from apps.connectors.files.settings import FilesSettings
from apps.connectors.files.streams import transcoded_back
from apps.connectors.files.writing import FileWriteSession, write_compressed


class FilesConnector(Connector[FilesSettings]):
    """Reads and writes the files of one folder."""

    name: ClassVar[str] = "files"
    label: ClassVar[str] = "Files in a folder"
    settings_model: ClassVar[type[ConnectorSettings]] = FilesSettings
    capabilities: Capabilities = Capabilities(
        inferred_types=True,
        read=True,
        write=True,
        keys=True,
        transactions=True,
        target_lock=True,
        returns_stored=True,
        delete=True,
        create_dataset=True,
        batch_rows=200_000,
    )

    def __init__(self, settings: FilesSettings) -> None:
        super().__init__(settings)
        self._folder = Folder(settings)

    def check(self) -> Iterator[CheckStep]:
        """Resolve the folder, list it, write to it."""
        steps: tuple[tuple[str, Callable[[], str]], ...] = (
            ("resolve", self._check_resolve),
            ("read", self._check_read),
            ("write", self._check_write),
        )
        for name, test in steps:
            try:
                message = test()
            except LockstepError as error:
                yield CheckStep(name, StepStatus.FAILED, error.message, error.remedy)
                return
            except Exception as error:
                yield CheckStep(name, StepStatus.FAILED, f"{type(error).__name__}: {error}")
                return
            yield CheckStep(name, StepStatus.OK, message)

    def _check_resolve(self) -> str:
        return f"The folder is {self._folder.root()}."

    def _check_read(self) -> str:
        root = self._folder.root()
        if not os.access(root, os.R_OK | os.X_OK):
            raise PermissionRefused("the folder may not be read")
        return f"The folder holds {len(self._folder.names())} files that are datasets."

    def _check_write(self) -> str:
        root = self._folder.root()
        probe = root / f".lockstep-check.{secrets.token_hex(6)}.tmp"
        with disk_errors(str(root)):
            try:
                create_file(probe, str(root), lambda sink: _write(sink, b"x"))
            finally:
                probe.unlink(missing_ok=True)
        return "A file can be created and removed."

    def discover(self) -> list[DatasetSchema]:
        """All files and groups. A file that cannot be described is listed without fields."""
        found = []
        for name in sorted({*self._folder.names(), *self.settings.groups}):
            try:
                found.append(self.describe(name))
            except LockstepError:
                found.append(DatasetSchema(name=name, fields=(), writable=False, format="unknown"))
        return found

    def describe(self, dataset: str) -> DatasetSchema:
        """One file, or a group, as it is now."""
        members = self._folder.members(dataset)
        schemas = [describe(ref, self.settings) for ref in members]
        return united(dataset, schemas) if dataset in self.settings.groups else schemas[0]

    def count(self, dataset: DatasetSchema) -> int:
        """Records, those that cannot be read included."""
        total = 0
        for ref in self._folder.members(dataset.name):
            with OpenFile(ref, self.settings) as file:
                if ref.format == "parquet":
                    total += file.parquet().file.metadata.num_rows
                    continue
                for rows in file.rows(()):
                    total += rows.num_rows + len(rows.rejected)
        return total

    def read(self, request: ReadRequest) -> Iterator[ReadBatch]:
        """Read records; keys, cursors and ranges are looked up by reading the whole file."""
        chosen = [r for r in (request.part, request.cursor, request.keys) if r is not None]
        if len(chosen) > 1:
            raise ValueError("at most one of part, cursor and keys")
        selection = Selection(request)
        is_group = request.dataset.name in self.settings.groups
        for ref in self._folder.members(request.dataset.name):
            with OpenFile(ref, self.settings) as file:
                for rows in file.rows(selection.needed):
                    if selection.exhausted:
                        return
                    yield from selection.batches(_named(rows, ref) if is_group else rows)

    def write_session(
        self, dataset: DatasetSchema, *, lock: str, lease_seconds: Callable[[], float]
    ) -> AbstractContextManager[WriteSession]:
        """Begin writing one file."""
        if dataset.name in self.settings.groups:
            raise ConfigurationError("a group of files is read-only", where=dataset.name)
        ref = self._folder.locate(dataset.name)
        return FileWriteSession(
            ref, self.settings, lambda: self._current(dataset), lease_seconds, lock
        )

    def _current(self, dataset: DatasetSchema) -> DatasetSchema:
        """What is written to: declared types win over the caller's, the caller's over guesses."""
        now = self.describe(dataset.name)
        declared = sidecar.load(self._folder.locate(dataset.name))
        if declared is not None and self.settings.schema_source != "inferred":
            return now
        given = {f.name: f.type for f in dataset.fields}
        fields = tuple(replace(f, type=given.get(f.name, f.type)) for f in now.fields)
        added = tuple(f for f in dataset.fields if f.name not in now.field_names)
        return replace(now, fields=fields + (added if now.format in ("json", "jsonl") else ()))

    def create_dataset(self, schema: DatasetSchema) -> None:
        """Create an empty file and the schema file beside it."""
        ref = self._folder.locate(schema.name)
        taken = ConfigurationError("there is such a file already", where=schema.name)
        if ref.path.exists() or "*" in schema.name:
            raise taken
        if not schema.fields or len(set(schema.field_names)) != len(schema.fields):
            raise ConfigurationError("a file needs fields of different names", where=schema.name)
        with disk_errors(schema.name):
            ref.path.parent.mkdir(parents=True, exist_ok=True)
            ref.sidecar.unlink(missing_ok=True)
        declared = sidecar.render(schema)
        try:
            create_file(ref.sidecar, schema.name, lambda sink: _write(sink, declared))
            create_file(ref.path, schema.name, lambda sink: self._fill(ref, schema, sink))
        except FileExistsError:
            raise taken from None
        except LockstepError:
            ref.sidecar.unlink(missing_ok=True)
            raise

    def _fill(self, ref: FileRef, schema: DatasetSchema, sink: BinaryIO) -> None:
        if ref.format == "parquet":
            with pq.ParquetWriter(
                UnclosedSink(sink), native_schema(schema.fields), compression="zstd"
            ):
                return
        content = iter([self._empty_content(ref, schema)])
        write_compressed(sink, ref.compression, transcoded_back(content, self.settings.encoding))

    def _empty_content(self, ref: FileRef, schema: DatasetSchema) -> bytes:
        if ref.format == "csv":
            default = "\t" if ref.is_tab_separated else ","
            delimiter = default if ref.is_tab_separated else self.settings.delimiter or default
            return header_line(schema.field_names, Dialect(delimiter, self.settings.null_text))
        if ref.format == "jsonl":
            return b""
        path = [name for name in self.settings.json_records_path.split(".") if name]
        opening = "".join("{" + quoted(name) + ":" for name in path)
        return f"{opening}[\n]{'}' * len(path)}\n".encode()


def _write(sink: BinaryIO, content: bytes) -> None:
    sink.write(content)


def _named(rows: Rows, ref: FileRef) -> Rows:
    """Rows of one file of a group: positions name the file."""
    position = rows.position
    rejected = tuple(replace(r, position=f"{r.position} of {ref.dataset}") for r in rows.rejected)
    return replace(
        rows, rejected=rejected, position=lambda row: f"{position(row)} of {ref.dataset}"
    )
