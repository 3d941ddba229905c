"""What a connector promises of records that pass unique values on to one another."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from apps.connectors import types as neutral
from apps.connectors.base import (
    ChangeBatch,
    DatasetSchema,
    FieldSchema,
    Operation,
    ReadRequest,
    WriteResult,
)
from apps.connectors.testing.harness import (
    APPLIED,
    ID,
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

Mails = Mapping[int, Any]
"""By record its unique value."""

SHORT = NeutralType(Kind.TEXT, length=40)
ABC: Mails = {1: "a", 2: "b", 3: "c", 4: "d"}


class ExchangeBehaviour:
    """Updates of which one takes the value that another one gives up."""

    @pytest.mark.parametrize(
        "after",
        [
            {1: "b", 2: "a"},
            {1: "b", 2: "c", 3: "a"},
            {1: "b", 2: "c", 3: "d", 4: "e"},
            {4: "c", 3: "b", 2: "a", 1: "z"},
            {1: "b", 2: "a", 3: "d", 4: "c"},
        ],
        ids=["swap", "circle", "chain", "chain backwards", "two swaps"],
    )
    @pytest.mark.parametrize("nullable", [True, False], ids=["optional", "required"])
    def test_values_are_passed_on(self, harness: Harness, after: Mails, nullable: bool) -> None:
        dataset = _made(harness, field("mail", SHORT, nullable=nullable), ABC)
        result = _update(harness, dataset, ABC, after)
        assert result.exceptions == {}
        assert _held(harness, dataset) == {**ABC, **after}

    @pytest.mark.parametrize(
        ("kind", "first", "second"),
        [
            (neutral.INTEGER, 10, 20),
            (neutral.decimal(3, 2), Decimal("9.98"), Decimal("9.99")),
            (neutral.DATE, date(2024, 2, 29), date(2024, 3, 1)),
            (
                neutral.TIMESTAMPTZ,
                datetime(2024, 1, 1, tzinfo=UTC),
                datetime(2024, 1, 2, tzinfo=UTC),
            ),
            (NeutralType(Kind.TEXT, length=2), "ab", "cd"),
            (neutral.UUID, SAMPLES[neutral.UUID][0], SAMPLES[neutral.UUID][1]),
        ],
        ids=str,
    )
    def test_values_of_any_type_are_passed_on(
        self, harness: Harness, kind: NeutralType, first: Any, second: Any
    ) -> None:
        before: Mails = {1: first, 2: second}
        dataset = _made(harness, field("mail", kind, nullable=False), before)
        assert _update(harness, dataset, before, {1: second, 2: first}).exceptions == {}
        assert _held(harness, dataset) == {1: second, 2: first}

    def test_each_record_may_write_other_fields(self, harness: Harness) -> None:
        needs(harness, "write", "exchanges")
        fields = [ID, field("mail", SHORT), field("name", SHORT, nullable=False)]
        rows = pa.table({"id": [1, 2, 3], "mail": ["a", "b", "c"], "name": ["A", "B", "C"]})
        dataset = harness.make(fields, ("id",), rows, (("mail",),))
        changed = pa.table({"mail": ["b", "a", None], "name": ["new", "B", None]})
        gone = pa.table({"mail": ["a", "b", None], "name": ["A", "B", None]})
        batch = ChangeBatch(
            Operation.UPDATE,
            pa.table({"id": [1, 2, 99]}),
            gone,
            changed,
            written=(("mail", "name"), ("mail",), ("mail",)),
        )
        with open_session(harness.connector, dataset) as session:
            result = session.apply(batch, do_nothing)
        assert statuses(result) == [APPLIED, APPLIED, STALE]
        read = read_all(harness.connector, ReadRequest(dataset, ("id", "mail", "name")))
        assert [tuple(row.values()) for row in read.sort_by("id").to_pylist()] == [
            (1, "b", "new"),
            (2, "a", "B"),
            (3, "c", "C"),
        ]

    def test_a_value_that_is_truly_taken_costs_its_record_only(self, harness: Harness) -> None:
        dataset = _made(harness, field("mail", SHORT), ABC)
        result = _update(harness, dataset, ABC, {1: "b", 2: "a", 3: "d"})
        assert statuses(result) == [APPLIED, APPLIED, REJECTED]
        assert result.exceptions[2].code == "record.duplicate"
        assert _held(harness, dataset) == {1: "b", 2: "a", 3: "c", 4: "d"}

    def test_who_waits_for_a_refused_record_is_refused_too(self, harness: Harness) -> None:
        dataset = _made(harness, field("mail", SHORT), ABC)
        result = _update(harness, dataset, ABC, {1: "b", 2: "c", 3: "d"})
        assert statuses(result) == [REJECTED] * 3
        assert _held(harness, dataset) == ABC

    def test_a_record_that_moved_meanwhile_opens_the_circle(self, harness: Harness) -> None:
        dataset = _made(harness, field("mail", SHORT), {**ABC, 2: "moved"})
        result = _update(harness, dataset, ABC, {1: "b", 2: "c", 3: "a"})
        assert statuses(result) == [APPLIED, STALE, APPLIED]
        assert _held(harness, dataset) == {1: "b", 2: "moved", 3: "a", 4: "d"}


def _made(harness: Harness, mail: FieldSchema, mails: Mails) -> DatasetSchema:
    needs(harness, "write")
    dataset = harness.make([ID, mail], ("id",), _table(mail, mails), (("mail",),))
    if not dataset.unique_keys:
        pytest.skip(f"{NOT_CLAIMED}nothing keeps fields unique")
    return dataset


def _table(mail: FieldSchema, mails: Mails) -> pa.Table:
    return pa.table(
        {
            "id": pa.array(list(mails), pa.int64()),
            "mail": pa.array(list(mails.values()), mail.type.arrow),
        }
    )


def _update(harness: Harness, dataset: DatasetSchema, before: Mails, after: Mails) -> WriteResult:
    mail = dataset.field("mail")
    old = _table(mail, {number: before[number] for number in after})
    new = _table(mail, after)
    batch = ChangeBatch(
        Operation.UPDATE, old.select(["id"]), old.select(["mail"]), new.select(["mail"])
    )
    returning = ("id", "mail") if harness.connector.capabilities.returns_stored else ()
    with open_session(harness.connector, dataset) as session:
        return session.apply(batch, do_nothing, returning=returning)


def _held(harness: Harness, dataset: DatasetSchema) -> Mails:
    read = read_all(harness.connector, ReadRequest(dataset, ("id", "mail")))
    return {row["id"]: row["mail"] for row in read.to_pylist()}
