"""What a connector promises of reading."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from datetime import UTC, date, datetime
from itertools import pairwise
from typing import Any

import pyarrow as pa
import pytest

from apps.connectors import types as neutral
from apps.connectors.base import (
    CursorWindow,
    DatasetSchema,
    DigestField,
    KeyRange,
    KeyShare,
    ReadRequest,
)
from apps.connectors.digests import SHARE_DIGITS, Form, share_text
from apps.connectors.errors import (
    DatasetMissing,
    FieldMissing,
)
from apps.connectors.testing.harness import (
    ID,
    INSTANT,
    Harness,
    field,
    needs,
    people,
    read_all,
)
from apps.connectors.types import Kind, NeutralType

KEY_SAMPLES: dict[NeutralType, list[Any]] = {
    NeutralType(Kind.TEXT, length=20): [
        "", "A", "B", "Z", "a", "a ", "ab", "b", "z", "ß", "é", "ö", "\uffff", "😀",
    ],
    neutral.UUID: [f"{digits * 8}-0000-4000-8000-{'0' * 12}" for digits in "01289acf"],
    neutral.DATE: [date(1, 1, 1), date(1969, 12, 31), date(1970, 1, 1), date(9999, 12, 31)],
    neutral.TIMESTAMP: [
        datetime.fromisoformat(text)
        for text in ("1000-01-01", "2024-02-29 12:00", "2024-02-29 12:00:01", "9999-12-31")
    ],
    neutral.TIMESTAMPTZ: [
        datetime(1971, 1, 1, tzinfo=UTC), INSTANT, datetime(2037, 1, 1, tzinfo=UTC),
    ],
}  # fmt: skip
"""Values of key fields, in the order that all platforms give them."""

_TEXTS = {kind for kind in KEY_SAMPLES if kind.kind in (Kind.TEXT, Kind.UUID)}


def _share(text: str, shares: int) -> int:
    digest = hashlib.md5(share_text([text]).encode(), usedforsecurity=False).hexdigest()
    return int(digest[:SHARE_DIGITS], 16) % shares


class ReadingBehaviour:
    """Requests and what they give."""

    def _numbered(self, harness: Harness, count: int = 10) -> DatasetSchema:
        rows = people([f"name {number}" for number in range(1, count + 1)])
        return harness.make([ID, field("name", neutral.TEXT)], ("id",), rows)

    def _ids(self, harness: Harness, request: ReadRequest) -> list[int]:
        read = read_all(harness.connector, request)
        assert tuple(read.column_names) == request.fields
        return sorted(read.column("id").to_pylist())

    def test_fields_come_in_the_order_asked_for(self, harness: Harness) -> None:
        dataset = self._numbered(harness)
        read = read_all(harness.connector, ReadRequest(dataset, ("name", "id"), limit=1))
        assert read.column_names == ["name", "id"]

    def test_batches_are_bounded(self, harness: Harness) -> None:
        dataset = self._numbered(harness)
        request = ReadRequest(dataset, ("id",), batch_rows=3)
        sizes = [batch.records.num_rows for batch in harness.connector.read(request)]
        assert max(sizes) <= 3
        assert sum(sizes) == 10

    def test_a_limit_holds(self, harness: Harness) -> None:
        dataset = self._numbered(harness)
        assert len(self._ids(harness, ReadRequest(dataset, ("id",), limit=4))) == 4

    def test_an_empty_dataset_reads_as_nothing(self, harness: Harness) -> None:
        dataset = self._numbered(harness, 0)
        assert self._ids(harness, ReadRequest(dataset, ("id", "name"))) == []

    def test_an_unfinished_read_can_be_dropped(self, harness: Harness) -> None:
        dataset = self._numbered(harness)
        reading = harness.connector.read(ReadRequest(dataset, ("id",), batch_rows=1))
        next(iter(reading))
        if isinstance(reading, Iterator) and hasattr(reading, "close"):
            reading.close()
        assert harness.connector.count(dataset) == 10

    def test_count_is_exact(self, harness: Harness) -> None:
        assert harness.connector.count(self._numbered(harness)) == 10

    def test_a_missing_field_is_named(self, harness: Harness) -> None:
        dataset = self._numbered(harness)
        harness.drop_field(dataset, "name")
        with pytest.raises(FieldMissing, match="name"):
            list(harness.connector.read(ReadRequest(dataset, ("id", "name"))))

    def test_a_missing_dataset_is_named(self, harness: Harness) -> None:
        with pytest.raises(DatasetMissing):
            harness.connector.describe("no_such_dataset")

    def test_discovery_finds_the_dataset(self, harness: Harness) -> None:
        dataset = self._numbered(harness)
        found = {each.name: each for each in harness.connector.discover()}
        assert found[dataset.name].field_names == dataset.field_names
        assert list(found) == sorted(found)

    def test_keys_are_looked_up(self, harness: Harness) -> None:
        needs(harness, "key_lookup")
        dataset = self._numbered(harness)
        keys = pa.table({"id": pa.array([2, 5, 99, 5], pa.int64())})
        assert self._ids(harness, ReadRequest(dataset, ("id",), keys=keys)) == [2, 5]
        read = read_all(harness.connector, ReadRequest(dataset, ("name",), keys=keys))
        assert sorted(read.column("name").to_pylist()) == ["name 2", "name 5"]

    def test_no_keys_find_nothing(self, harness: Harness) -> None:
        needs(harness, "key_lookup")
        dataset = self._numbered(harness)
        keys = pa.table({"id": pa.array([], pa.int64())})
        assert self._ids(harness, ReadRequest(dataset, ("id",), keys=keys)) == []

    def test_text_keys_are_found_to_the_letter(self, harness: Harness) -> None:
        needs(harness, "key_lookup")
        codes = ["abc", "ABC", "abc ", "ábc", "😀", "it's", "a\\b", ""]
        rows = pa.table({"code": codes, "id": pa.array(range(len(codes)), pa.int64())})
        fields = [field("code", NeutralType(Kind.TEXT, length=20), nullable=False), ID]
        dataset = harness.make(fields, ("code",), rows)
        for number, code in enumerate(codes):
            request = ReadRequest(dataset, ("code", "id"), keys=pa.table({"code": [code]}))
            read = read_all(harness.connector, request).to_pylist()
            assert read == [{"code": code, "id": number}]

    def test_composite_keys_are_looked_up(self, harness: Harness) -> None:
        needs(harness, "key_lookup")
        rows = pa.table({"id": pa.array([1, 1, 2], pa.int64()), "code": ["a", "b", "a"]})
        fields = [ID, field("code", NeutralType(Kind.TEXT, length=20), nullable=False)]
        dataset = harness.make(fields, ("id", "code"), rows)
        keys = pa.table({"id": pa.array([1, 2, 2], pa.int64()), "code": ["b", "b", "a"]})
        read = read_all(harness.connector, ReadRequest(dataset, ("id", "code"), keys=keys))
        found = sorted((row["id"], row["code"]) for row in read.to_pylist())
        assert found == [(1, "b"), (2, "a")]

    def test_key_ranges_are_half_open(self, harness: Harness) -> None:
        needs(harness, "key_ranges")
        dataset = self._numbered(harness)
        for lower, upper, expected in (
            ((3,), (6,), [3, 4, 5]),
            (None, (3,), [1, 2]),
            ((9,), None, [9, 10]),
            (None, None, list(range(1, 11))),
        ):
            request = ReadRequest(dataset, ("id",), part=KeyRange(("id",), lower, upper))
            assert self._ids(harness, request) == expected

    def test_the_first_key_range_holds_those_without_a_key(self, harness: Harness) -> None:
        needs(harness, "key_ranges")
        rows = pa.table(
            {
                "id": pa.array(range(5), pa.int64()),
                "number": pa.array([1, None, 7, 9, None], pa.int64()),
            }
        )
        dataset = harness.make([ID, field("number", neutral.INTEGER)], ("id",), rows)
        for lower, upper, expected in (
            (None, (5,), [0, 1, 4]),
            ((5,), (9,), [2]),
            ((9,), None, [3]),
            (None, None, [0, 1, 2, 3, 4]),
        ):
            part = KeyRange(("number",), lower, upper)
            request = ReadRequest(dataset, ("id", "number"), part=part)
            assert self._ids(harness, request) == expected

    def test_split_cuts_the_key_into_shares(self, harness: Harness) -> None:
        needs(harness, "key_ranges")
        dataset = self._numbered(harness, 90)
        inner = harness.connector.split(dataset, ("id",), 3).bounds
        assert list(inner) == sorted(set(inner))
        found = [
            self._ids(harness, ReadRequest(dataset, ("id",), part=KeyRange(("id",), *edges)))
            for edges in pairwise([None, *inner, None])
        ]
        assert sorted(key for part in found for key in part) == list(range(1, 91))
        assert [round(len(part), -1) for part in found] == [30, 30, 30]

    def test_splitting_nothing_gives_no_bounds(self, harness: Harness) -> None:
        needs(harness, "key_ranges")
        assert harness.connector.split(self._numbered(harness, 0), ("id",), 4).bounds == ()

    @pytest.mark.parametrize("kind", KEY_SAMPLES, ids=str)
    def test_ranges_of_any_key_hold_each_record_once(
        self, harness: Harness, kind: NeutralType
    ) -> None:
        """Bounds are of this order on every platform, so both sides read the same ranges."""
        needs(harness, "key_spans")
        values = KEY_SAMPLES[kind]
        rows = pa.table(
            {"k": pa.array(values, kind.arrow), "id": pa.array(range(len(values)), pa.int64())}
        )
        dataset = harness.make([field("k", kind, nullable=False), ID], ("k", "id"), rows)
        for key in (("k",), ("k", "id")):
            edges = [None, *((value, 1)[: len(key)] for value in values[1::2]), None]
            found = [
                self._ids(harness, ReadRequest(dataset, ("id",), part=KeyRange(key, *pair)))
                for pair in pairwise(edges)
            ]
            expected = [[0], *([n, n + 1] for n in range(1, len(values) - 1, 2))]
            last = [len(values) - 1] if len(values) % 2 == 0 else []
            assert found == [part for part in [*expected, last] if part], key
        cut = harness.connector.split(dataset, ("k", "id"), 3)
        assert list(cut.bounds) == sorted(cut.bounds, key=lambda b: values.index(b[0]))

    @pytest.mark.parametrize("kind", [neutral.INTEGER, *KEY_SAMPLES], ids=str)
    def test_shares_hold_each_record_once(self, harness: Harness, kind: NeutralType) -> None:
        needs(harness, "key_shares")
        values = KEY_SAMPLES.get(kind, [-3, 0, 7, 10**15])
        rows = pa.table(
            {
                "k": pa.array([*values, None], kind.arrow),
                "id": pa.array(range(len(values) + 1), pa.int64()),
            }
        )
        dataset = harness.make([field("k", kind), ID], ("id",), rows)
        for form in harness.connector.digest_forms(dataset.field("k")):
            fields = (DigestField("k", form),)
            found = [
                self._ids(harness, ReadRequest(dataset, ("id",), part=KeyShare(fields, number, 3)))
                for number in range(3)
            ]
            assert sorted(key for part in found for key in part) == [*range(len(values) + 1)]
            if kind in _TEXTS and form == Form.TEXT:
                numbers = [_share(value, 3) for value in [*map(str, values), ""]]
                assert found == [[i for i, n in enumerate(numbers) if n == k] for k in range(3)]

    @pytest.mark.parametrize(
        ("kind", "values", "after", "expected"),
        [
            (neutral.INTEGER, [5, 7, 7, 9, None], 7, [1, 2, 3, 4]),
            (
                neutral.TIMESTAMPTZ,
                [
                    datetime(2024, 1, 1, tzinfo=UTC),
                    INSTANT,
                    INSTANT,
                    datetime(2024, 3, 1, tzinfo=UTC),
                    None,
                ],
                INSTANT,
                [1, 2, 3, 4],
            ),
            (neutral.DATE, [date(2024, 2, 28), date(2024, 2, 29)], date(2024, 2, 29), [1]),
        ],
        ids=["integer", "timestamptz", "date"],
    )
    def test_a_cursor_reads_ties_and_nulls_again(
        self,
        harness: Harness,
        kind: NeutralType,
        values: list[Any],
        after: Any,
        expected: list[int],
    ) -> None:
        needs(harness, "cursor")
        rows = pa.table(
            {
                "id": pa.array(range(len(values)), pa.int64()),
                "changed": pa.array(values, kind.arrow),
            }
        )
        dataset = harness.make([ID, field("changed", kind)], ("id",), rows)
        window = CursorWindow("changed", after)
        assert self._ids(harness, ReadRequest(dataset, ("id",), cursor=window)) == expected
        everything = ReadRequest(dataset, ("id",), cursor=CursorWindow("changed"))
        assert len(self._ids(harness, everything)) == len(values)
