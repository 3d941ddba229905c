"""Every connector gives the same digest for the same value, and orders keys alike.

Sources that compute digests are asked; the others are read. Each answer is compared with the
definition of the forms, so any two connectors agree wherever both hold the type.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from apps.connectors import types as neutral
from apps.connectors.base import DatasetSchema, DigestsRefused, FieldSchema, KeySpan
from apps.connectors.digests import neutral_forms
from apps.connectors.testing import NOT_CLAIMED, SAMPLES, Harness
from apps.connectors.testing.harness import ID, field
from apps.connectors.types import Kind, NeutralType
from tests.digests import digest_session, expected_digest, forms_of, row_digests

MORE: dict[NeutralType, tuple[Any, ...]] = {
    neutral.decimal(10, 2): (Decimal("0.10"), Decimal("100.00"), Decimal("-0.01"), Decimal("10")),
    NeutralType(Kind.DECIMAL): ("100", "-0.5", "0.000000000000000000000000000001"),
    neutral.TEXT: ("a", "A", "a ", " a", "á", "a\u0301", "<null>", "NULL", "|", ":", "0:", "1:a|"),
    neutral.DATE: (date(2000, 2, 29), date(1900, 3, 1), date(1582, 10, 10)),
    neutral.TIME: (time(0, 0, 10), time(0, 0, 0, 100), time(12, 0)),
    neutral.TIMESTAMP: (
        datetime(2000, 2, 29, 10, 20, 30, 500000),  # noqa: DTZ001 - wall clock
        datetime(2024, 1, 1, 0, 0, 0, 10),  # noqa: DTZ001
    ),
    neutral.TIMESTAMPTZ: (
        datetime(2024, 3, 31, 3, 30, tzinfo=timezone(timedelta(hours=2))),
        datetime(2024, 12, 31, 23, 0, tzinfo=timezone(timedelta(hours=-5, minutes=-30))),
    ),
}
FLOATS = (-0.0, 1e-320, 0.1 + 0.2, 1 / 3, 123456789012345680.0, 1e15, 1e16, -1e22)


def samples(harness: Harness, kind: NeutralType) -> list[Any]:
    held = list(harness.samples(kind))
    if not held:
        pytest.skip(f"{NOT_CLAIMED}{harness.connector.name} has no {kind}")
    return [*held, *MORE.get(kind, ())]


def filled(harness: Harness, kind: NeutralType, values: Sequence[Any]) -> DatasetSchema:
    rows = {"id": pa.array(range(len(values)), pa.int64()), "value": pa.array(values, kind.arrow)}
    return harness.make([ID, field("value", kind)], ("id",), pa.table(rows))


@pytest.mark.parametrize("kind", [k for k in SAMPLES if neutral_forms(k)], ids=str)
def test_equal_values_have_equal_digests_everywhere_and_others_differ(
    harness: Harness, kind: NeutralType
) -> None:
    values = [*samples(harness, kind), None]
    dataset = filled(harness, kind, values)
    forms = [f for f in forms_of(harness.connector, dataset.field("value")) if ":" not in f]
    if not forms:
        pytest.skip(f"{NOT_CLAIMED}{harness.connector.name} compares {kind} by reading")
    for form in forms:
        with digest_session(harness.connector, dataset, [("value", form)]) as session:
            found = row_digests(session)
        expected = {number: expected_digest([v], [form]) for number, v in enumerate(values)}
        assert found == expected
        assert len(set(found.values())) == len({str(value) for value in values})


def test_floats_are_told_apart_by_their_bits(harness: Harness) -> None:
    dataset = filled(harness, neutral.FLOAT, FLOATS)
    form = forms_of(harness.connector, dataset.field("value"))[0]
    if ":" in form:
        pytest.skip(f"{NOT_CLAIMED}{harness.connector.name} compares float by reading")
    with digest_session(harness.connector, dataset, [("value", form)]) as session:
        found = row_digests(session)
    assert found == {number: expected_digest([v], [form]) for number, v in enumerate(FLOATS)}


def test_no_two_records_are_encoded_alike(harness: Harness) -> None:
    pairs = [
        ("a", "bc"), ("ab", "c"), ("abc", ""), ("", "abc"), (None, ""), ("", None), (None, None),
        ("", ""), ("<null>", None), ("1:a", "b"), ("1", "a1:b"), ("|", ":"), ("\\N", "\\"),
    ]  # fmt: skip
    rows = pa.table(
        {
            "id": pa.array(range(len(pairs)), pa.int64()),
            "one": pa.array([one for one, _ in pairs], pa.string()),
            "two": pa.array([two for _, two in pairs], pa.string()),
        }
    )
    fields = [ID, field("one", neutral.TEXT), field("two", neutral.TEXT)]
    dataset = harness.make(fields, ("id",), rows)
    with digest_session(harness.connector, dataset, [("one", "text"), ("two", "text")]) as session:
        found = row_digests(session)
    assert found == {
        number: expected_digest(pair, ["text", "text"]) for number, pair in enumerate(pairs)
    }
    assert len(set(found.values())) == len(pairs)


def test_a_record_of_many_fields_has_one_digest(harness: Harness) -> None:
    names = [f"f{number}" for number in range(70)]
    rows = pa.table({"id": [1], **{name: [name] for name in names}})
    kind = NeutralType(Kind.TEXT, length=8)
    dataset = harness.make([ID, *(field(name, kind) for name in names)], ("id",), rows)
    with digest_session(harness.connector, dataset, [(name, "text") for name in names]) as session:
        assert row_digests(session) == {1: expected_digest(names, ["text"] * len(names))}


UUIDS = [f"{first}0000000-0000-4000-8000-{last:012x}" for first in "0a9f" for last in (0, 255)]
KEYS: dict[NeutralType, list[Any]] = {
    neutral.INTEGER: [-(2**63), -5, 0, 1, 2, 1000, 1_000_000, 2**53 + 1, 2**53 + 2, 2**63 - 1],
    neutral.decimal(20, 2): [Decimal(text) for text in ("-7.50", "-7.25", "0.00", "9.99", "10.00")],
    NeutralType(Kind.TEXT, length=60): [
        "",
        "A",
        "B",
        "a",
        "a ",
        "a  ",
        "a\t",
        "aa",
        "b",
        "Z",
        "z",
        "á",
        "Ä",
        "ä",
        "ß",
        "ss",
        "e\u0301",
        "é",
        "😀",
        "\uffee",
        "l'été",
        'quote"',
        "back\\slash",
        "100%",
        "_",
    ],
    neutral.UUID: UUIDS,
    neutral.BYTES: [b"", b"\x00", b"\x00\x01", b"a", b"'", b"\\", b"\xff"],
    neutral.DATE: [date(1, 1, 1), date(1999, 12, 31), date(2024, 2, 29), date(9999, 12, 31)],
    neutral.TIMESTAMP: [
        datetime(2024, 2, 29, 12, 0, 0, micro)  # noqa: DTZ001 - wall clock
        for micro in (0, 1, 10, 100000, 999999)
    ],
    neutral.TIMESTAMPTZ: [
        datetime(2024, 2, 29, 12, 0, 0, micro, tzinfo=UTC) for micro in (0, 1, 500000)
    ],
}


def sort_key(value: Any) -> Any:
    return value.encode() if isinstance(value, str) else value


@pytest.mark.parametrize("kind", list(KEYS), ids=str)
def test_every_key_lies_in_the_same_span_everywhere(harness: Harness, kind: NeutralType) -> None:
    keys = sorted(KEYS[kind], key=sort_key)
    dataset = with_keys(harness, [field("key", kind, nullable=False)], [(key,) for key in keys])
    for step in (1, 2, 3):
        edges = [(key,) for key in keys[step::step]]
        spans = [KeySpan(a, b) for a, b in zip([None, *edges], [*edges, None], strict=True)]
        with digest_session(
            harness.connector, dataset, [("key", neutral_forms(kind)[0])]
        ) as session:
            found = [set(row_digests(session, [span])) for span in spans]
            counted = [digest.rows for digest in session.digests(spans)]
        expected = [{k for k in keys if within(k, span)} for span in spans]
        assert found == expected
        assert counted == [len(part) for part in expected]


def within(key: Any, span: KeySpan) -> bool:
    above = span.lower is None or sort_key(key) >= sort_key(span.lower[0])
    return above and (span.upper is None or sort_key(key) < sort_key(span.upper[0]))


def with_keys(
    harness: Harness, fields: Sequence[FieldSchema], keys: Sequence[tuple[Any, ...]]
) -> DatasetSchema:
    columns = {
        each.name: pa.array([key[place] for key in keys], each.type.arrow)
        for place, each in enumerate(fields)
    }
    return harness.make(fields, tuple(columns), pa.table(columns))


TWO = [
    field("name", NeutralType(Kind.TEXT, length=20), nullable=False),
    field("number", neutral.INTEGER, nullable=False),
]


def test_several_key_fields_are_ordered_one_after_the_other(harness: Harness) -> None:
    keys = [(name, number) for name in ("", "A", "a", "ä") for number in (-1, 0, 7)]
    dataset = with_keys(harness, TWO, keys)
    edges = [keys[2], keys[3], keys[7], ("a", 100)]
    spans = [KeySpan(a, b) for a, b in zip([None, *edges], [*edges, None], strict=True)]
    forms = [("name", "text"), ("number", "number")]
    with digest_session(harness.connector, dataset, forms) as session:
        assert [digest.rows for digest in session.digests(spans)] == [2, 1, 4, 2, 3]
        assert set(row_digests(session, [spans[1], spans[3]])) == {keys[2], *keys[7:9]}


def test_bounds_cut_equal_shares_whatever_the_gaps(harness: Harness) -> None:
    keys = [(number**3,) for number in range(1, 1001)]
    dataset = with_keys(harness, [ID], keys)
    with digest_session(harness.connector, dataset, [("id", "number")]) as session:
        (bounds,) = session.sample_bounds([KeySpan()], 10, 1.0)
        assert list(bounds) == [keys[place] for place in range(100, 1000, 100)]
        spans = [KeySpan(None, (20**3,)), KeySpan((101**3,), None)]
        inner = session.sample_bounds(spans, 4, 1.0)
        assert [len(found) for found in inner] == [3, 3]
        assert all(key < (20**3,) for key in inner[0])
        assert all(key > (101**3,) for key in inner[1])
        assert session.count() == 1000


def test_a_key_that_may_be_empty_is_refused(harness: Harness) -> None:
    fields = [ID, field("second", neutral.INTEGER), field("value", neutral.TEXT)]
    rows = pa.table({"id": [1], "second": [2], "value": ["x"]})
    dataset = harness.make(fields, ("id",), rows)
    with (
        pytest.raises(DigestsRefused, match="the key field 'second' may be empty"),
        digest_session(harness.connector, dataset, [("value", "text")], key=("id", "second")),
    ):
        pass


def test_a_float_is_no_key(harness: Harness) -> None:
    fields = [ID, field("value", neutral.FLOAT, nullable=False)]
    dataset = harness.make(fields, ("id",), pa.table({"id": [1], "value": [0.5]}))
    with (
        pytest.raises(DigestsRefused, match="do not order alike"),
        digest_session(harness.connector, dataset, [("id", "number")], key=("value",)),
    ):
        pass
