"""What applying a file changes, as values that can be printed. Never a secret among them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Action(StrEnum):
    CREATED = "created"
    UPDATED = "updated"
    UNCHANGED = "unchanged"


@dataclass(frozen=True, slots=True)
class FieldChange:
    """One fact before and after, as text; empty where it was not there."""

    name: str
    before: str
    after: str

    def __str__(self) -> str:
        return f"{self.name}: {self.before or '(nothing)'} → {self.after or '(nothing)'}"


@dataclass(frozen=True, slots=True)
class Entry:
    """What happens to one object. kind: source, lookup, dataset, table, mapping or rule."""

    kind: str
    name: str
    action: Action
    changes: tuple[FieldChange, ...] = ()


@dataclass(slots=True)
class Diff:
    """All objects that a file describes, in the order in which they are applied."""

    entries: list[Entry] = field(default_factory=list)

    def of(self, action: Action) -> list[Entry]:
        return [entry for entry in self.entries if entry.action == action]

    @property
    def is_empty(self) -> bool:
        return all(entry.action is Action.UNCHANGED for entry in self.entries)

    def note(
        self, kind: str, name: str, before: Mapping[str, str] | None, after: Mapping[str, str]
    ) -> Entry:
        """Add an object by its facts before (None: it was not there) and after."""
        changes = changed(before or {}, after) if before is not None else ()
        action = (
            Action.CREATED if before is None else Action.UPDATED if changes else Action.UNCHANGED
        )
        entry = Entry(kind, name, action, changes)
        self.entries.append(entry)
        return entry


def changed(before: Mapping[str, str], after: Mapping[str, str]) -> tuple[FieldChange, ...]:
    names = [*before, *(name for name in after if name not in before)]
    return tuple(
        FieldChange(name, before.get(name, ""), after.get(name, ""))
        for name in names
        if before.get(name, "") != after.get(name, "")
    )


def facts(section: Any, prefix: str = "") -> dict[str, str]:
    """Nested content as texts by path, without what is empty: what a diff compares."""
    if isinstance(section, Mapping):
        found: dict[str, str] = {}
        for name, value in section.items():
            found |= facts(value, f"{prefix}.{name}" if prefix else str(name))
        return found
    if isinstance(section, Sequence) and not isinstance(section, str):
        text = ", ".join(str(item) for item in section)
    else:
        text = "" if section is None else str(section)
    return {prefix: text} if text else {}
