"""What a connector promises of records whose keys the target assigns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa
import pytest

from apps.connectors import types as neutral
from apps.connectors.base import ChangeBatch, DatasetSchema, Operation, ReadRequest, WriteResult
from apps.connectors.errors import LeaseLost
from apps.connectors.testing.harness import (
    ALREADY,
    APPLIED,
    IN_DOUBT,
    NOT_CLAIMED,
    REJECTED,
    SAMPLES,
    STALE,
    Harness,
    do_nothing,
    field,
    needs,
    open_session,
    read_all,
    statuses,
)
from apps.connectors.types import Kind, NeutralType

NO_KEY = pa.table({})


class AssignedKeyBehaviour:
    """Inserts without a key, again after a crash, and by match fields."""

    @pytest.fixture(params=list(SAMPLES), ids=str)
    def sought_kind(self, request: pytest.FixtureRequest, harness: Harness) -> NeutralType:
        found: NeutralType = request.param
        needs(harness, "write", "server_assigned_keys")
        if not harness.samples(found):
            pytest.skip(f"{NOT_CLAIMED}{harness.connector.name} has no {found}")
        return found

    def test_each_record_is_found_under_the_key_given_back(self, harness: Harness) -> None:
        dataset = _people(harness)
        rows = [(f"name {n * 7 % 300}", n % 5) for n in range(300)]
        result = _insert(harness, dataset, rows)
        assert set(statuses(result)) == {APPLIED}
        assert dict(zip(_keys(result), rows, strict=True)) == _held(harness, dataset)

    def test_records_that_are_equal_get_keys_of_their_own(self, harness: Harness) -> None:
        dataset = _people(harness)
        result = _insert(harness, dataset, [("Ada", 1)] * 3)
        assert set(_keys(result)) == _held(harness, dataset).keys()
        assert harness.connector.count(dataset) == 3

    def test_a_bad_record_has_no_key_and_stops_no_other(self, harness: Harness) -> None:
        dataset = _people(harness)
        rows = [("Ada", 1), ("x" * 41, 2), ("Bob", 3)]
        result = _insert(harness, dataset, rows, returning=("name",))
        assert statuses(result) == [APPLIED, REJECTED, APPLIED]
        assert result.exceptions[1].code == "record.too_long"
        ada, nobody, bob = _keys(result)
        assert nobody is None
        assert _held(harness, dataset) == {ada: ("Ada", 1), bob: ("Bob", 3)}
        assert result.stored is not None
        assert result.stored["name"].to_pylist() == ["Ada", None, "Bob"]

    def test_a_lost_lease_leaves_nothing(self, harness: Harness) -> None:
        dataset = _people(harness)
        needs(harness, "transactions")

        def lost() -> None:
            raise LeaseLost("another worker has it")

        with pytest.raises(LeaseLost):
            _insert(harness, dataset, [("Ada", 1)], fence=lost)
        assert harness.connector.count(dataset) == 0

    def test_a_doubtful_insert_finds_what_got_through(self, harness: Harness) -> None:
        dataset = _people(harness)
        earlier = [("Ada", 1), (None, 2), ("Cid", None), (None, None)]
        first = _insert(harness, dataset, earlier)
        again = _insert(
            harness, dataset, [*earlier, ("Ada", 2)], in_doubt=True, returning=("name", "age")
        )
        assert statuses(again) == [ALREADY] * 4 + [APPLIED]
        assert _keys(again)[:4] == _keys(first)
        assert harness.connector.count(dataset) == 5
        assert again.stored is not None
        rows = [tuple(row.values()) for row in again.stored.to_pylist()]
        assert rows == [*earlier, ("Ada", 2)]

    def test_without_doubt_nothing_is_looked_for(self, harness: Harness) -> None:
        dataset = _people(harness)
        for _ in range(2):
            assert statuses(_insert(harness, dataset, [("Ada", 1)])) == [APPLIED]
        assert harness.connector.count(dataset) == 2

    def test_several_candidates_are_left_to_a_person(self, harness: Harness) -> None:
        dataset = _people(harness)
        _insert(harness, dataset, [("Ada", 1), ("Ada", 1), ("Bob", 2)])
        result = _insert(harness, dataset, [("Ada", 1), ("Bob", 2), ("Cid", 3)], in_doubt=True)
        assert statuses(result) == [IN_DOUBT, ALREADY, APPLIED]
        assert result.exceptions[0].code == "record.in_doubt"
        assert _keys(result)[0] is None
        assert harness.connector.count(dataset) == 4

    def test_two_changes_never_claim_one_record(self, harness: Harness) -> None:
        dataset = _people(harness)
        _insert(harness, dataset, [("Ada", 1)])
        result = _insert(harness, dataset, [("Ada", 1), ("Ada", 1)], in_doubt=True)
        assert statuses(result) == [IN_DOUBT, IN_DOUBT]
        assert harness.connector.count(dataset) == 1

    def test_doubt_is_exact(self, harness: Harness) -> None:
        dataset = _people(harness)
        _insert(harness, dataset, [("Ada", 1)])
        others: list[tuple[str | None, int | None]] = [
            (name, 1) for name in ("ada", "Ada ", "Adá", "", None)
        ]
        result = _insert(harness, dataset, [*others, ("Ada", None)], in_doubt=True)
        assert set(statuses(result)) == {APPLIED}

    def test_a_doubtful_insert_finds_values_of_any_type(
        self, harness: Harness, sought_kind: NeutralType
    ) -> None:
        dataset = harness.make_assigning([field("value", sought_kind)])
        after = pa.table(
            {"value": pa.array([*harness.samples(sought_kind), None], sought_kind.arrow)}
        )
        results = []
        with open_session(harness.connector, dataset) as session:
            for in_doubt in (False, True):
                batch = ChangeBatch(Operation.INSERT, NO_KEY, None, after, in_doubt=in_doubt)
                results.append(session.apply(batch, do_nothing))
        assert set(statuses(results[0])) == {APPLIED}
        assert set(statuses(results[1])) == {ALREADY}
        assert _keys(results[1]) == _keys(results[0])

    def test_match_fields_find_the_record(self, harness: Harness) -> None:
        dataset = _people(harness)
        first = _insert(harness, dataset, [("Ada", 1), ("Bob", 2), (None, 3)])
        rows = [("Bob", 2), ("Ada", 7), ("ada", 1), (None, 3), ("Cid", 4)]
        result = _insert(harness, dataset, rows, match=("name",))
        assert statuses(result) == [ALREADY, STALE, APPLIED, APPLIED, APPLIED]
        assert result.exceptions[1].code == "record.exists"
        keys = _keys(result)
        assert keys[0] == _keys(first)[1]
        assert keys[1] is None
        assert harness.connector.count(dataset) == 6

    def test_match_fields_that_several_records_have_are_ambiguous(self, harness: Harness) -> None:
        dataset = _people(harness)
        _insert(harness, dataset, [("Ada", 1), ("Ada", 2)])
        rows = [("Ada", 1), ("Bob", 1), ("Bob", 2)]
        result = _insert(harness, dataset, rows, match=("name",))
        assert statuses(result) == [REJECTED, APPLIED, REJECTED]
        assert [problem.code for problem in result.exceptions.values()] == [
            "record.ambiguous",
            "record.duplicate",
        ]

    def test_match_fields_go_before_doubt(self, harness: Harness) -> None:
        dataset = _people(harness)
        _insert(harness, dataset, [("Ada", 1), (None, 5)])
        rows = [("Ada", 1), ("Bob", 2), (None, 5)]
        result = _insert(harness, dataset, rows, match=("name",), in_doubt=True)
        assert statuses(result) == [ALREADY, APPLIED, ALREADY]

    def test_an_empty_batch_has_no_keys(self, harness: Harness) -> None:
        dataset = _people(harness)
        assert _keys(_insert(harness, dataset, [])) == []


def _people(harness: Harness) -> DatasetSchema:
    needs(harness, "write", "server_assigned_keys")
    return harness.make_assigning(
        [field("name", NeutralType(Kind.TEXT, length=40)), field("age", neutral.INTEGER)]
    )


def _insert(
    harness: Harness,
    dataset: DatasetSchema,
    rows: Sequence[tuple[str | None, int | None]],
    *,
    fence: Callable[[], None] = do_nothing,
    returning: Sequence[str] = (),
    **options: Any,
) -> WriteResult:
    names, ages = ([row[place] for row in rows] for place in (0, 1))
    after = pa.table({"name": pa.array(names, pa.string()), "age": pa.array(ages, pa.int64())})
    batch = ChangeBatch(Operation.INSERT, NO_KEY, None, after, **options)
    assert batch.num_rows == len(rows)
    with open_session(harness.connector, dataset) as session:
        return session.apply(batch, fence, returning=returning)


def _keys(result: WriteResult) -> list[int | None]:
    assert result.keys is not None
    assert result.keys.column_names == ["id"]
    assert result.keys.schema.field("id").type == pa.int64()
    keys: list[int | None] = result.keys["id"].to_pylist()
    assert len(keys) == result.num_rows
    return keys


def _held(harness: Harness, dataset: DatasetSchema) -> dict[int, tuple[Any, Any]]:
    read = read_all(harness.connector, ReadRequest(dataset, ("id", "name", "age")))
    return {row["id"]: (row["name"], row["age"]) for row in read.to_pylist()}
