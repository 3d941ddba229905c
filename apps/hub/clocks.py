"""Hybrid logical clocks: which of two edits was later, on devices whose clocks disagree.

A stamp is 16 hexadecimal digits: 12 of milliseconds since the epoch, 4 of a counter. Stamps sort as
texts. Source: Kulkarni et al., "Logical Physical Clocks" (2014). A device whose clock runs ahead is
never refused: what lies more than `AHEAD` before us is held to that, so that nobody wins every
clash of the coming year.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

AHEAD = 60_000  # milliseconds that a device may be before us
_STAMP = re.compile(r"[0-9a-f]{16}")
_MOST = 2**64 - 1


@dataclass(frozen=True, slots=True)
class Stamped:
    """skew: milliseconds by which the device was ahead of us, if it said when."""

    stamp: str
    skew: int | None


def stamp_of(milliseconds: int, counter: int = 0) -> str:
    """The stamp of a moment."""
    return f"{milliseconds << 16 | counter:016x}"


def is_stamp(text: str) -> bool:
    return _STAMP.fullmatch(text) is not None


def clamped(text: str, milliseconds: int) -> Stamped:
    """What a device said, held to our own clock; empty: it happened now."""
    if not text:
        return Stamped(stamp_of(milliseconds), None)
    skew = (int(text, 16) >> 16) - milliseconds
    return Stamped(min(text, stamp_of(milliseconds + AHEAD)), skew)


def after(text: str, milliseconds: int) -> str:
    """A stamp of ours that is later than `text` (which may be empty), and not before now."""
    return max(f"{min(int(text or '0', 16) + 1, _MOST):016x}", stamp_of(milliseconds))
