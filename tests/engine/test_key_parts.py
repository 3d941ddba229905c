"""Parts of a key: every link lies in exactly one, in the one of its records."""

from __future__ import annotations

import hashlib
from datetime import UTC, date, datetime
from itertools import pairwise
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.connectors import types as neutral
from apps.connectors.base import DigestsRefused, FieldSchema, Key
from apps.connectors.digests import SHARE_DIGITS, Form, neutral_forms, share_text
from apps.connectors.types import Kind, NeutralType
from apps.engine.codec import encode_keys
from apps.engine.key_parts import (
    KeyPart,
    SharedKey,
    decode_bound,
    encode_bound,
    range_part,
    share_part,
)

TEXTS = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=5)
VALUES: dict[NeutralType, st.SearchStrategy[Any]] = {
    neutral.INTEGER: st.integers(-(2**63), 2**63 - 1),
    neutral.TEXT: TEXTS,
    neutral.UUID: st.uuids().map(str),
    neutral.DATE: st.dates(),
    neutral.TIMESTAMP: st.datetimes(),
    neutral.TIMESTAMPTZ: st.datetimes(timezones=st.just(UTC)),
    neutral.BYTES: st.binary(max_size=5),
    neutral.BOOLEAN: st.booleans(),
}


def shared(*types: NeutralType, left: tuple[NeutralType, ...] = ()) -> SharedKey:
    """A key of these right types, and of the same or of other left ones."""
    names = tuple(f"k{place}" for place in range(len(types)))
    fields = [
        tuple(FieldSchema(names[place], kind, nullable=False) for place, kind in enumerate(side))
        for side in (left or types, types)
    ]
    return SharedKey(names, names, *fields)


def links(keys: list[Key], types: tuple[NeutralType, ...]) -> pa.Table:
    names = {f"k{place}": kind for place, kind in enumerate(types)}
    columns = [pa.array([key[i] for key in keys], kind.arrow) for i, kind in enumerate(types)]
    texts = encode_keys(pa.table(columns, names=list(names)), names)
    return pa.table({"right_key": pa.array(texts, pa.string()), "n": range(len(keys))})


def found(part: KeyPart, table: pa.Table) -> list[int]:
    return part.of_links(table).column("n").to_pylist()


def order(value: Any) -> Any:
    return value.encode() if isinstance(value, str) else value


@pytest.mark.parametrize("types", [*((kind,) for kind in VALUES), (neutral.TEXT, neutral.INTEGER)])
@given(data=st.data())
def test_ranges_hold_each_link_once_in_the_order_of_the_keys(
    types: tuple[NeutralType, ...], data: st.DataObject
) -> None:
    keys = data.draw(st.lists(st.tuples(*(VALUES[kind] for kind in types)), max_size=8))
    bounds = data.draw(st.lists(st.tuples(*(VALUES[kind] for kind in types)), max_size=3))
    ranked = sorted({tuple(map(order, bound)): bound for bound in bounds}.items())
    key, table = shared(*types), links(keys, types)
    for lower, upper in pairwise([None, *(bound for _, bound in ranked), None]):
        low, high = (edge and tuple(map(order, edge)) for edge in (lower, upper))
        expected = [
            n
            for n, values in enumerate(tuple(map(order, key)) for key in keys)
            if (low is None or values >= low) and (high is None or values < high)
        ]
        assert found(range_part(key, lower, upper), table) == expected


@pytest.mark.parametrize("kind", [neutral.TEXT, neutral.INTEGER, neutral.UUID, neutral.DATE])
@given(data=st.data())
def test_shares_hold_each_link_once_by_the_hash_of_its_text(
    kind: NeutralType, data: st.DataObject
) -> None:
    values = data.draw(st.lists(VALUES[kind] | st.none(), max_size=8))
    key, table = shared(kind), links([(value,) for value in values], (kind,))
    texts = [None if value is None else str(value) for value in values]
    for number in range(3):
        expected = [n for n, text in enumerate(texts) if share(text, 3) == number]
        assert found(share_part(key, ("text",), number, 3), table) == expected


def share(text: str | None, shares: int) -> int:
    digest = hashlib.md5(share_text([text]).encode(), usedforsecurity=False).hexdigest()
    return int(digest[:SHARE_DIGITS], 16) % shares


def test_a_link_of_another_kind_of_key_lies_in_the_first_range() -> None:
    key = shared(neutral.INTEGER)
    table = pa.table({"right_key": ['["x"]', "[null]", '["7"]'], "n": [0, 1, 2]})
    assert found(range_part(key, None, (5,)), table) == [0, 1]
    assert found(range_part(key, (5,), None), table) == [2]
    assert found(KeyPart(), table) == [0, 1, 2]


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (neutral.INTEGER, -5),
        (neutral.TEXT, 'a"\\é'),
        (neutral.DATE, date(2024, 2, 29)),
        (neutral.TIMESTAMPTZ, datetime(2024, 2, 29, 12, 0, 0, 5, tzinfo=UTC)),
        (neutral.BYTES, b"\x00\xff"),
    ],
)
def test_bounds_come_back_as_they_were(kind: NeutralType, value: Any) -> None:
    assert decode_bound(encode_bound((value,), (kind,)), (kind,)) == (value,)
    assert encode_bound(None, (kind,)) == ""
    assert decode_bound("", (kind,)) is None


def forms(field: FieldSchema) -> tuple[str, ...]:
    return neutral_forms(field.type)


def test_numbers_and_uuids_that_are_kept_as_text_have_one_text_on_both_sides() -> None:
    for kind in (neutral.INTEGER, neutral.UUID):
        key = shared(neutral.TEXT, left=(kind,))
        assert key.forms(forms, forms, both_ways=False) == (Form.TEXT,)
        with pytest.raises(DigestsRefused):
            key.forms(forms, forms, both_ways=True)
        with pytest.raises(DigestsRefused):
            key.ordered_types()


@pytest.mark.parametrize(
    "left", [neutral.INTEGER, neutral.UUID, neutral.FLOAT, NeutralType(Kind.DECIMAL, 10, 2)]
)
def test_text_that_becomes_another_text_is_hashed_nowhere(left: NeutralType) -> None:
    """The text '007' is the number 7, 'ABC…' the UUID 'abc…', and '1.50' the number 1.5."""
    pairs = [(neutral.TEXT, left), (left, neutral.FLOAT)]
    if left.kind is Kind.DECIMAL:
        pairs.append((left, neutral.TEXT))
    for ours, theirs in pairs:
        with pytest.raises(DigestsRefused):
            shared(theirs, left=(ours,)).forms(forms, forms, both_ways=False)
