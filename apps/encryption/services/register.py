"""The register of erasures: a file outside the database, so that a restore cannot take one back.

A line of JSON per erasure: `at` (ISO 8601), `index` (the subject's blind index, hex), `dataset`
(older lines have none), `mac`. The keyed hash tells a line that Lockstep wrote from one that
somebody added to erase a person.
"""

from __future__ import annotations

import fcntl
import hmac
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from uuid import UUID

import orjson
from django.conf import settings

from apps.connectors.errors import ConfigurationError
from apps.core.protected import derived_keys

PURPOSE = "lockstep erasures 1"


class RegisterUnwritable(ConfigurationError):
    """Nothing is erased that a restore would bring back."""

    code = "erasure.register_unwritable"
    default_remedy = "Make the file writable that LOCKSTEP_ERASURE_REGISTER names, and erase again."


@dataclass(frozen=True, slots=True)
class Entry:
    """One erasure. `is_genuine`: its keyed hash is right."""

    line: int
    at: datetime | None
    index: bytes
    is_genuine: bool
    dataset_id: UUID | None = None


def register_file() -> Path:
    return Path(str(settings.LOCKSTEP["ERASURE_REGISTER"]))


def add_entry(index: bytes, at: datetime, dataset_id: UUID) -> None:
    """Add a line and make sure that it is on the disk. Raises RegisterUnwritable."""
    content = {"at": at.isoformat(), "index": index.hex(), "dataset": str(dataset_id)}
    mac = _mac(content, next(iter(derived_keys(PURPOSE).values())))
    line = orjson.dumps({**content, "mac": mac}) + b"\n"
    path = register_file()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        with os.fdopen(descriptor, "ab") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            stream.write(line)
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        raise RegisterUnwritable(
            f"the register of erasures cannot be written: {error.strerror}", where=str(path)
        ) from None


def entries() -> list[Entry]:
    """All lines of the file, in order; none where there is no file yet."""
    try:
        lines = register_file().read_bytes().splitlines()
    except FileNotFoundError:
        return []
    keys = list(derived_keys(PURPOSE).values())
    return [_entry(number, line, keys) for number, line in enumerate(lines, start=1)]


def _entry(number: int, line: bytes, keys: list[bytes]) -> Entry:
    try:
        content = {name: str(value) for name, value in orjson.loads(line).items()}
        mac, dataset = content.pop("mac"), content.get("dataset")
        genuine = any(hmac.compare_digest(_mac(content, key), mac) for key in keys)
        at, index = datetime.fromisoformat(content["at"]), bytes.fromhex(content["index"])
        return Entry(number, at, index, genuine, UUID(dataset) if dataset else None)
    except (ValueError, KeyError, TypeError, AttributeError):
        return Entry(number, None, b"", False)


def _mac(content: Mapping[str, str], key: bytes) -> str:
    """The keyed hash of a line: over what it says, and no name more."""
    text = f"{content['at']}|{content['index']}"
    if "dataset" in content:
        text += f"|{content['dataset']}"
    return hmac.digest(key, text.encode(), "sha256").hex()
