"""Which files there are, and that none outside the folder is ever touched.

A dataset is named by the path of its file below the folder. Real paths are compared, so neither
`..` nor a symbolic link leads out; the last component is opened without following links.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import BinaryIO

from apps.connectors.errors import (
    ConfigurationError,
    ConnectionLost,
    DatasetMissing,
    PermissionRefused,
)
from apps.connectors.files.settings import FilesSettings
from apps.connectors.reach import is_own, require_reachable

SIDECAR_SUFFIX = ".schema.json"

_FORMATS = {
    ".csv": "csv",
    ".tsv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".parquet": "parquet",
}
_COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}


@dataclass(frozen=True, slots=True)
class FileRef:
    """One file: its dataset's name, its real path, and what its name says of its content."""

    dataset: str
    path: Path
    format: str
    compression: str
    is_tab_separated: bool

    @property
    def sidecar(self) -> Path:
        return self.path.with_name(self.path.name + SIDECAR_SUFFIX)


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What changes when somebody writes to an open file."""

    inode: int
    size: int
    mtime_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> Fingerprint:
        return cls(status.st_ino, status.st_size, status.st_mtime_ns)


def classify(name: str) -> tuple[str, str, bool] | None:
    """Format, compression and whether tabs separate, from a file's name; None for other files."""
    if name.endswith(SIDECAR_SUFFIX):
        return None
    stem, suffix = os.path.splitext(name.lower())
    compression = _COMPRESSIONS.get(suffix, "")
    if compression:
        suffix = os.path.splitext(stem)[1]
    kind = _FORMATS.get(suffix)
    if kind is None or (kind == "parquet" and compression):
        return None
    return kind, compression, suffix == ".tsv"


class Folder:
    """The folder of a source."""

    def __init__(self, settings: FilesSettings) -> None:
        self._settings = settings

    def root(self) -> Path:
        """The folder's real path. Raises ConfigurationError or PermissionRefused."""
        given = Path(self._settings.folder)
        if not given.is_absolute():
            raise ConfigurationError(
                "the folder's path is not absolute", remedy="Give the path from the root, '/…'."
            )
        require_reachable(given, "folder")
        root = Path(os.path.realpath(given))
        if not root.is_dir():
            raise ConfigurationError(
                f"there is no folder '{given}'",
                remedy="Create the folder or correct the path; it must exist on every worker.",
            )
        return root

    def names(self) -> list[str]:
        """Names of all single-file datasets, sorted."""
        return sorted(self._walk(self.root()))

    def _walk(self, root: Path) -> Iterator[str]:
        for folder, subfolders, files in os.walk(root):
            subfolders[:] = [name for name in subfolders if not name.startswith(".")]
            for name in files:
                path = Path(folder, name)
                relative = path.relative_to(root).as_posix()
                if self._is_dataset(relative) and self._is_inside(root, path) and path.is_file():
                    yield relative

    def _is_dataset(self, relative: str) -> bool:
        if any(part.startswith(".") for part in relative.split("/")) or classify(relative) is None:
            return False
        return not self._settings.pattern or fnmatchcase(relative, self._settings.pattern)

    @staticmethod
    def _is_inside(root: Path, path: Path) -> bool:
        return Path(os.path.realpath(path)).is_relative_to(root) and not is_own(path)

    def locate(self, dataset: str) -> FileRef:
        """The file of a dataset, existing or not. Raises DatasetMissing or PermissionRefused."""
        root = self.root()
        facts = classify(dataset)
        relative = Path(dataset)
        if facts is None or "\0" in dataset or relative.is_absolute() or ".." in relative.parts:
            raise DatasetMissing(
                "this name is not that of a file below the folder",
                where=dataset,
                remedy="Use a relative path that ends in .csv, .tsv, .jsonl, .json or .parquet, "
                "with .gz or .zst after it if the file is compressed.",
            )
        if not self._is_dataset(dataset):
            raise DatasetMissing("the source's pattern leaves this file out", where=dataset)
        real = Path(os.path.realpath(root / relative))
        if not real.is_relative_to(root):
            raise PermissionRefused(
                "a symbolic link leads out of the folder",
                where=dataset,
                remedy="Put the file itself into the folder.",
            )
        require_reachable(real, "file")
        kind, compression, tabs = facts
        return FileRef(dataset, real, kind, compression, tabs)

    def members(self, dataset: str) -> list[FileRef]:
        """The files of a dataset: one, or those of a group. Raises DatasetMissing."""
        if dataset not in self._settings.groups:
            return [self.locate(dataset)]
        names = [name for name in self.names() if fnmatchcase(name, dataset)]
        refs = [self.locate(name) for name in names]
        if not refs:
            raise DatasetMissing("no file matches this pattern", where=dataset)
        if len({ref.format for ref in refs}) > 1:
            raise ConfigurationError("the files of a group differ in format", where=dataset)
        return refs


def open_file(ref: FileRef) -> BinaryIO:
    """Open for reading. Raises DatasetMissing, PermissionRefused or ConnectionLost."""
    try:
        descriptor = os.open(ref.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise DatasetMissing("there is no such file", where=ref.dataset) from None
    except PermissionError:
        raise PermissionRefused(
            "the file may not be read",
            where=ref.dataset,
            remedy="Give the user that runs Lockstep the right to read the file.",
        ) from None
    except OSError as error:
        raise ConnectionLost(
            f"the file cannot be opened: {error.strerror}", where=ref.dataset
        ) from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise DatasetMissing("this is not a regular file", where=ref.dataset)
    return os.fdopen(descriptor, "rb")
