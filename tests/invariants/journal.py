"""What people wrote: every text is new, so that it can be told where it is in the end."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from tests.invariants.setups import HIDDEN, Record

_TOKEN = re.compile(r"t\d+\.")
START = "0"


def tokens(record: Record | None, name: str | None = None) -> set[str]:
    """The texts of people that a record holds, in one field or in all."""
    if record is None:
        return set()
    texts = [record.get(name)] if name else record.values()
    return {token for text in texts if text for token in _TOKEN.findall(text.lower())}


@dataclass
class Journal:
    """The writes of people in one history.

    written: platform, key and token of each text that a platform acknowledged; removed: platform
    and token of those that a person took away again; counted: what all people added to `n`, by
    key; lives: how often people created or deleted a record; writes: all that
    they wrote or deleted.
    """

    written: list[tuple[int, str, str]] = field(default_factory=list)
    removed: set[tuple[int, str]] = field(default_factory=set)
    counted: Counter[str] = field(default_factory=Counter)
    lives: Counter[str] = field(default_factory=Counter)
    number: int = 0
    writes: int = 0

    def token(self) -> str:
        self.number += 1
        return f"t{self.number}."

    def value(self, name: str, old: str | None, choice: int, *, hides: bool) -> str:
        """What a person makes of a field that holds `old`."""
        token = self.token()
        if name == "n":
            return str(int(old or 0) + choice % 2 + 1)
        if name == "tags":
            members = [member for member in (old or "").split(",") if member]
            return ",".join(members[1:] if choice % 4 == 0 else [*members, token])
        if name == "story":
            lines = (old or "").splitlines(keepends=True)
            changed = [[f"{token}\n", *lines], [*lines, f"{token}\n"], [*lines[1:], f"{token}\n"]]
            return "".join(changed[choice % 3])
        if name == "b" and hides and choice % 5 == 0:
            return HIDDEN
        return token + ("and more" if choice % 3 == 0 else "")

    def note(self, platform: int, key: str, old: Record | None, new: Record | None) -> None:
        """A person made `new` of `old` on a platform."""
        self.writes += 1
        before, after = tokens(old), tokens(new)
        self.removed |= {(platform, token) for token in before - after}
        self.written += [(platform, key, token) for token in sorted(after - before)]
        if old is None or new is None:
            self.lives[key] += 1
        else:
            self.counted[key] += int(new["n"] or 0) - int(old["n"] or 0)

    def missing(self, platform: int, records: dict[str, Record]) -> Iterable[str]:
        """Texts that a platform acknowledged, that no person removed there, and that it lacks."""
        for place, key, token in self.written:
            is_his = place == platform and (place, token) not in self.removed
            if is_his and token not in tokens(records.get(key)):
                yield token
