"""The right to write a SQLite database: a lock on a small file beside it."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

from apps.connectors.errors import PermissionRefused, TargetBusy


class FileLock:
    """An exclusive lock that the operating system drops when its holder dies."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = -1

    def acquire(self, seconds: float) -> None:
        """Raises TargetBusy after that many seconds."""
        deadline = time.monotonic() + seconds
        while not self._try():
            if time.monotonic() >= deadline:
                raise TargetBusy("another writer holds this target's lock", where=str(self._path))
            time.sleep(0.05)

    def _try(self) -> bool:
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise PermissionRefused(
                "the lock file cannot be made",
                where=str(self._path),
                remedy="Let the workers' user write to the database's folder.",
            ) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            held = os.fstat(descriptor).st_ino == os.stat(self._path).st_ino
        except OSError:
            held = False
        if held:
            self._descriptor = descriptor
        else:
            os.close(descriptor)
        return held

    def release(self) -> None:
        if self._descriptor >= 0:
            self._path.unlink(missing_ok=True)
            os.close(self._descriptor)
            self._descriptor = -1
