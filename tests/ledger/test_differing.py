"""Which characters are marked where two texts differ."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.ledger.admin.differing import MOST_CHARACTERS, segments


def marked(text: str, other: str) -> str:
    return "".join(f"[{s.text}]" if s.differs else s.text for s in segments(text, other))


@pytest.mark.parametrize(
    ("text", "other", "expected"),
    [
        ("Maria López", "Maria Lopez", "Maria L[ó]pez"),
        ("same", "same", "same"),
        ("new@example.org", "m.lopez@example.com", "[new]@example.[org]"),
        ("abc", "xyz", "[abc]"),
        ("abc", "", "[abc]"),
    ],
)
def test_what_the_other_lacks_is_marked(text, other, expected):
    assert marked(text, other) == expected


def test_no_value_has_no_pieces():
    assert segments(None, "x") == []
    assert marked("x", None) == "x"


def test_long_texts_are_compared_by_their_ends():
    middle = "m" * MOST_CHARACTERS
    assert marked(f"a{middle}b", f"a{middle}") == f"a{middle}[b]"
    assert marked(f"{middle}XY{middle}", f"{middle}Z{middle}") == f"{middle}[XY]{middle}"


@given(st.text(max_size=60), st.text(max_size=60))
def test_the_pieces_are_the_whole_text(text, other):
    pieces = segments(text, other)
    assert "".join(piece.text for piece in pieces) == text
    assert any(piece.differs for piece in pieces) or text == other or len(text) < len(other)
