"""The proof: what is encrypted is told from the stored bytes, not from what the code means to do.

Each value of each column of protected values is read and opened at its place: so many under which
key, so many plain, so many that cannot be read. Nothing may stand for a person who has been erased.
Then the files: what lies where the comparison spills must look like noise to a compressor, which
nothing else than encrypted bytes does.
"""

from __future__ import annotations

import zlib
from collections import Counter
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from django.conf import settings

from apps.audit.actions import Act
from apps.audit.models import Outcome
from apps.audit.services import record
from apps.connectors.errors import LockstepError
from apps.core.clock import now
from apps.core.protected import ErasedValueError, key_name_of, unseal, unseal_large
from apps.core.selectors import require
from apps.encryption.columns import SealedColumn, Stored, sealed_columns
from apps.encryption.models import Proof
from apps.encryption.selectors import data_keys
from apps.encryption.services.traces import traces_of_erased

if TYPE_CHECKING:
    from apps.accounts.models import User

ROWS = 200
EXAMPLES = 5
KEPT = 50  # proofs
OWN_KEYS = "a key of its own"
SAMPLE_BYTES = 1 << 20
NOISE = 0.99  # encrypted bytes do not get smaller than that


@dataclass(slots=True)
class ColumnState:
    """What one column holds."""

    column: str
    keys: Counter[str] = field(default_factory=Counter)  # name of the key -> values
    plain: int = 0
    erased: int = 0  # with the key of their person
    unreadable: int = 0
    examples: list[str] = field(default_factory=list)  # places of what is wrong, no values

    @property
    def values(self) -> int:
        return sum(self.keys.values()) + self.plain + self.erased + self.unreadable


@dataclass(frozen=True, slots=True)
class FileState:
    """What one file that should be encrypted looks like."""

    path: str
    size: int
    is_encrypted: bool


@dataclass(frozen=True, slots=True)
class Proven:
    """What was found."""

    started_at: datetime
    columns: list[ColumnState]
    files: list[FileState]
    traces: int = 0  # rows that name persons who have been erased since, by blind index

    @property
    def plain(self) -> int:
        return sum(c.plain for c in self.columns) + sum(not f.is_encrypted for f in self.files)

    @property
    def unreadable(self) -> int:
        return sum(column.unreadable for column in self.columns)

    @property
    def is_sound(self) -> bool:
        return not (self.plain or self.unreadable or self.traces)

    def keys(self) -> Counter[str]:
        """Values by the name of their key, over all columns."""
        return sum((column.keys for column in self.columns), Counter())

    def as_json(self) -> dict[str, Any]:
        columns = [{**asdict(column), "keys": dict(column.keys)} for column in self.columns]
        return {
            "sound": self.is_sound,
            "plain": self.plain,
            "unreadable": self.unreadable,
            "traces": self.traces,
            "keys": dict(self.keys()),
            "columns": columns,
            "files": [asdict(file) for file in self.files],
        }


def prove(*, actor: User | None) -> Proven:
    """Look at all stored bytes; what was found is kept and put on record."""
    require(actor, data_keys, "prove")
    started_at = now()
    columns = [_column_state(column) for column in sealed_columns()]
    traces = sum(rows.count() for rows in traces_of_erased())
    proven = Proven(started_at, columns, _file_states(), traces)
    Proof.objects.create(
        started_at=started_at,
        finished_at=now(),
        is_sound=proven.is_sound,
        content=proven.as_json(),
    )
    outdated = Proof.objects.order_by("-id").values_list("pk", flat=True)[KEPT:]
    Proof.objects.filter(pk__in=list(outdated)).delete()
    record(
        Act.ENCRYPTION_PROVED,
        actor=actor,
        outcome=Outcome.SUCCESS if proven.is_sound else Outcome.FAILED,
        details={
            "values": sum(column.values for column in proven.columns),
            "plain": proven.plain,
            "unreadable": proven.unreadable,
            "traces": proven.traces,
        },
    )
    return proven


def _column_state(column: SealedColumn) -> ColumnState:
    state = ColumnState(column.label)
    position, rows = "", column.values()
    while batch := column.read(rows, position, ROWS):
        for value in batch:
            _count(value, column, state)
        position = str(batch[-1].pk)
    return state


def _count(value: Stored, column: SealedColumn, state: ColumnState) -> None:
    name = OWN_KEYS if column.has_own_keys else key_name_of(value.sealed)
    try:
        if name is None:
            state.plain += 1
        else:
            _open(value, column)
            state.keys[name] += 1
            return
    except ErasedValueError:
        state.erased += 1
        return
    except LockstepError:
        state.unreadable += 1
    if len(state.examples) < EXAMPLES:
        state.examples.append(f"row {value.pk}")


def _open(value: Stored, column: SealedColumn) -> None:
    if column.has_own_keys:
        unseal_large(value.sealed_key, value.sealed, value.place)
    else:
        unseal(value.sealed, value.place)


def _file_states() -> list[FileState]:
    """The files that the comparison spills to, of workers that are at it or were killed."""
    folder: Path = settings.LOCKSTEP["SPILL_DIR"]
    found = []
    for path in sorted(folder.rglob("*")) if folder.is_dir() else ():
        try:
            if path.is_file():
                found.append(_file_state(path, folder))
        except FileNotFoundError:  # its worker has finished
            continue
    return found


def _file_state(path: Path, folder: Path) -> FileState:
    with path.open("rb") as stream:
        sample = stream.read(SAMPLE_BYTES)
    is_noise = len(zlib.compress(sample, 6)) >= NOISE * len(sample)
    return FileState(str(path.relative_to(folder)), path.stat().st_size, is_noise)
