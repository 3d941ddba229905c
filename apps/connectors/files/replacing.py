"""The lock on a file, and replacing a file whole or not at all."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from apps.connectors.errors import (
    ConnectionLost,
    LockstepError,
    OutOfSpace,
    PermissionRefused,
    TargetBusy,
)

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS)
_POLL_SECONDS = 0.05


@contextmanager
def disk_errors(where: str) -> Iterator[None]:
    """Turn an OSError into the error class that says what to do about it."""
    try:
        yield
    except OSError as error:
        raise _translated(error, where) from error


def _translated(error: OSError, where: str) -> LockstepError:
    reason = error.strerror or str(error)
    if error.errno in _FULL:
        return OutOfSpace(f"there is no room to write the file: {reason}", where=where)
    if error.errno in _REFUSED:
        return PermissionRefused(
            f"the folder may not be written: {reason}",
            where=where,
            remedy="Give the user that runs Lockstep the right to write to the folder.",
        )
    return ConnectionLost(f"writing failed: {reason}", where=where)


class UnclosedSink:
    """A file for pyarrow, which closes what it writes to before we could sync it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.closed = False

    def write(self, data: bytes) -> int:
        return self._file.write(data)

    def flush(self) -> None:
        self._file.flush()

    def tell(self) -> int:
        return self._file.tell()

    def close(self) -> None:
        self.closed = True


class FileLock:
    """Excludes other holders of one right on a file, in any process, until released or dead."""

    def __init__(self, path: Path, where: str, right: str = "") -> None:
        part = f".{hashlib.sha256(right.encode()).hexdigest()[:12]}" if right else ""
        self._path = path.with_name(f".{path.name}{part}.lock")
        self._where = where
        self._descriptor: int | None = None

    def acquire(self, lease_seconds: Callable[[], float]) -> None:
        """Wait for the lock while the lease lasts. Raises TargetBusy."""
        with disk_errors(self._where):
            descriptor = os.open(
                self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
            )
        deadline = time.monotonic() + lease_seconds()
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if min(deadline - time.monotonic(), lease_seconds()) <= _POLL_SECONDS:
                    os.close(descriptor)
                    raise TargetBusy(
                        "another session writes this file", where=self._where
                    ) from None
                time.sleep(_POLL_SECONDS)
            else:
                self._descriptor = descriptor
                return

    @contextmanager
    def held(self, lease_seconds: Callable[[], float]) -> Iterator[None]:
        """Hold the lock for a block."""
        self.acquire(lease_seconds)
        try:
            yield
        finally:
            self.release()

    def release(self) -> None:
        """Let others write. The lock file stays: removing it would let two in."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def remove_leftovers(path: Path) -> None:
    """Remove what writers that died have left. Only under the lock."""
    for leftover in path.parent.glob(f".{_escaped(path.name)}.*.tmp"):
        with suppress(OSError):
            leftover.unlink()


def _escaped(name: str) -> str:
    return "".join(f"[{c}]" if c in "*?[" else c for c in name)


def replace_file(
    path: Path, where: str, write: Callable[[BinaryIO], None], before_commit: Callable[[Path], None]
) -> int:
    """Write beside the file, then put the new one in its place; returns its size in bytes.

    `before_commit` gets the new file's path and may raise: then nothing has changed. Raises
    OutOfSpace, PermissionRefused or ConnectionLost, with the old file as it was.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
    try:
        with disk_errors(where):
            size = _write_durably(temporary, path, write)
        before_commit(temporary)
        with disk_errors(where):
            os.replace(temporary, path)
            _sync_folder(path.parent)
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    return size


def _write_durably(temporary: Path, path: Path, write: Callable[[BinaryIO], None]) -> int:
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb", buffering=1 << 20) as file:
        write(file)
        file.flush()
        _copy_rights(path, file.fileno())
        os.fsync(file.fileno())
        return os.fstat(file.fileno()).st_size


def _copy_rights(path: Path, descriptor: int) -> None:
    try:
        status = os.stat(path)
    except FileNotFoundError:
        os.fchmod(descriptor, 0o644)
        return
    os.fchmod(descriptor, status.st_mode & 0o7777)
    with suppress(PermissionError):
        os.fchown(descriptor, status.st_uid, status.st_gid)


def create_file(path: Path, where: str, write: Callable[[BinaryIO], None]) -> None:
    """Create a file whole or not at all. Raises FileExistsError, or as `replace_file` does."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
    try:
        with disk_errors(where):
            _write_durably(temporary, path, write)
        _link(temporary, path, where)
        with disk_errors(where):
            _sync_folder(path.parent)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _link(temporary: Path, path: Path, where: str) -> None:
    """Give the file its name unless the name is taken; some file systems have no links."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise
    except OSError:
        if path.exists():
            raise FileExistsError(path) from None
        with disk_errors(where):
            os.replace(temporary, path)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
