"""What a connector promises of records that pass unique values on to one another."""

from __future__ import annotations

from collections.abc import Mapping

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

Mails = Mapping[int, str | int]
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

    def test_numbers_are_passed_on(self, harness: Harness) -> None:
        before: Mails = {1: 10, 2: 20}
        dataset = _made(harness, field("mail", neutral.INTEGER, nullable=False), before)
        assert _update(harness, dataset, before, {1: 20, 2: 10}).exceptions == {}
        assert _held(harness, dataset) == {1: 20, 2: 10}

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
