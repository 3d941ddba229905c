"""Seals told to a file outside the database: whoever rewrites the database cannot rewrite both.

One line of JSON per seal, added after the seal is committed. A line that could not be written is
made up for with the next seal.
"""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import orjson
from django.conf import settings

from apps.audit.models import AuditSeal
from apps.connectors.errors import ConfigurationError

logger = logging.getLogger("lockstep.audit")
TAIL_BYTES = 8192
COLUMNS = ("number", "sealed_at", "count", "root", "mac")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """One line of the file. `seal` and `mac` are empty where it cannot be read."""

    line: int
    seal: int | None = None
    mac: bytes = b""


class CheckpointsUnreadable(ConfigurationError):
    """The file that was named cannot be opened."""

    code = "audit.checkpoints_unreadable"
    default_remedy = "Name a file of checkpoints that can be read."


def checkpoint_file() -> Path:
    return Path(str(settings.LOCKSTEP["AUDIT_CHECKPOINT_FILE"]))


def write_checkpoints() -> int:
    """Add the seals that the file does not know yet; returns how many.

    What cannot be written is said in the log, and tried again with the next seal.
    """
    path = checkpoint_file()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        with os.fdopen(descriptor, "r+b") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            return _add_lines(stream.fileno())
    except OSError as error:
        logger.error("Checkpoints of the audit log cannot be written: %s", error.strerror)
        return 0


def _add_lines(descriptor: int) -> int:
    last, is_whole = _last_seal(descriptor)
    lines = [] if is_whole else [b""]
    new = AuditSeal.objects.filter(number__gt=last).order_by("number").only(*COLUMNS)
    count = 0
    for seal in new.iterator(chunk_size=500):
        line = checkpoint_line(seal)
        logger.info("Audit seal %s", line.decode())
        lines.append(line)
        count += 1
    if count:
        os.write(descriptor, b"\n".join([*lines, b""]))
        os.fsync(descriptor)
    return count


def _last_seal(descriptor: int) -> tuple[int, bool]:
    """The number in the last line that can be read (0: none), and whether that line ends."""
    size = os.fstat(descriptor).st_size
    tail = os.pread(descriptor, TAIL_BYTES, max(0, size - TAIL_BYTES))
    for line in reversed(tail.splitlines()):
        found = _parsed(line, 0)
        if found.seal is not None:
            return found.seal, tail.endswith(b"\n")
    return 0, not tail or tail.endswith(b"\n")


def checkpoint_line(seal: AuditSeal) -> bytes:
    """What is told of a seal: nothing of the events themselves."""
    return orjson.dumps(
        {
            "seal": seal.number,
            "sealed_at": seal.sealed_at.isoformat(timespec="seconds"),
            "events": seal.count,
            "root": bytes(seal.root).hex(),
            "mac": bytes(seal.mac).hex(),
        }
    )


def read_checkpoints(path: Path | None = None) -> Iterator[Checkpoint]:
    """The lines of a file of checkpoints; none where our own does not exist yet.

    path: another file, such as a copy that is kept elsewhere. Raises CheckpointsUnreadable.
    """
    chosen = path or checkpoint_file()
    if path is None and not chosen.exists():
        return
    try:
        with chosen.open("rb") as stream:
            for number, line in enumerate(stream, start=1):
                if line.strip():
                    yield _parsed(line, number)
    except OSError as error:
        raise CheckpointsUnreadable(
            f"the checkpoints cannot be read: {error.strerror}", where=str(chosen)
        ) from None


def _parsed(line: bytes, number: int) -> Checkpoint:
    try:
        facts = orjson.loads(line)
        return Checkpoint(number, int(facts["seal"]), bytes.fromhex(facts["mac"]))
    except (ValueError, KeyError, TypeError):
        return Checkpoint(number)
