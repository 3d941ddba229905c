"""Which characters of two texts differ, for people who compare them."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import SequenceMatcher

MOST_CHARACTERS = 2_000
"""Longer texts are compared by their common beginning and end only: the match is quadratic."""
LEAST_COMMON = 3
"""Fewer common characters between two differences are chance, and hard to read as islands."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A piece of a text, and whether the other text lacks it."""

    text: str
    differs: bool


def segments(text: str | None, other: str | None) -> list[Segment]:
    """`text` in pieces, those marked that `other` has not; None (NULL) gives none."""
    if text is None:
        return []
    if other is None or text == other:
        return [Segment(text, False)] if text else []
    if len(text) > MOST_CHARACTERS or len(other) > MOST_CHARACTERS:
        return _by_ends(text, other)
    matcher = SequenceMatcher(None, other, text, autojunk=False)
    return _joined(
        [
            Segment(text[begin:end], tag != "equal")
            for tag, _, _, begin, end in matcher.get_opcodes()
            if begin < end
        ]
    )


def _joined(pieces: list[Segment]) -> list[Segment]:
    """Neighbours of one kind as one piece, and islands between two differences with them."""
    joined: list[Segment] = []
    for place, piece in enumerate(pieces):
        island = 0 < place < len(pieces) - 1 and len(piece.text) < LEAST_COMMON
        differs = piece.differs or island
        if joined and joined[-1].differs == differs:
            joined[-1] = Segment(joined[-1].text + piece.text, differs)
        else:
            joined.append(Segment(piece.text, differs))
    return joined


def _by_ends(text: str, other: str) -> list[Segment]:
    shorter = min(len(text), len(other))
    begin = next((i for i in range(shorter) if text[i] != other[i]), shorter)
    left = shorter - begin
    end = next((i for i in range(left) if text[-1 - i] != other[-1 - i]), left)
    parts = (
        (text[:begin], False),
        (text[begin : len(text) - end], True),
        (text[len(text) - end :], False),
    )
    return [Segment(part, differs) for part, differs in parts if part]
