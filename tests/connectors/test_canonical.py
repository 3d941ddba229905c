"""Canonical JSON and decimals: one text per value."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.connectors.canonical import (
    canonical_decimal,
    canonical_json,
    canonical_number,
    dump_json,
    load_json,
)

_SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]))
)
_DOCUMENTS = st.recursive(
    _SCALARS,
    lambda inner: (
        st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner)
    ),
    max_leaves=20,
)


@given(_DOCUMENTS)
def test_both_ways_of_reading_give_the_same_text(document: object) -> None:
    text = json.dumps(document)
    assert canonical_json(text) == dump_json(load_json(text))


@given(_DOCUMENTS)
def test_canonical_text_is_its_own_canonical_text(document: object) -> None:
    once = canonical_json(json.dumps(document))
    assert canonical_json(once) == once


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"b": 1.50, "a": [1e2, -0.0]}', '{"a":[100,0],"b":1.5}'),
        ("123456789012345678901234567890.10", "123456789012345678901234567890.1"),
        ("1e400", "1e400"),
        ("12345678901234567890", "12345678901234567890"),
        ('"\\u00e9\\ud83d\\ude00"', '"é😀"'),
        ('{"a":1,"a":2}', '{"a":2}'),
    ],
)
def test_numbers_and_text_keep_every_digit(text: str, expected: str) -> None:
    assert canonical_json(text) == expected


@pytest.mark.parametrize("text", ["", "{", "NaN", "[1,]", '"\\ud83d"', "'a'", "1 2"])
def test_what_is_not_json_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        canonical_json(text)


@pytest.mark.parametrize(
    ("number", "expected"),
    [("1E+3", "1000"), ("1.500", "1.5"), ("-0.00", "0"), ("1E-12", "0.000000000001")],
)
def test_decimals_are_plain(number: str, expected: str) -> None:
    assert canonical_decimal(Decimal(number)) == expected
    assert canonical_number(number) == expected


@pytest.mark.parametrize("number", ["NaN", "Infinity", "abc", ""])
def test_what_is_no_number_is_refused(number: str) -> None:
    with pytest.raises(ValueError, match="number"):
        canonical_number(number)
