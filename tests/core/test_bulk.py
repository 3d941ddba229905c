"""Many rows at once read back as the ORM would have written them.

On the database of the tests: SQLite, or PostgreSQL with LOCKSTEP_TEST_DATABASE_URL. The test
marked `postgresql` runs this module once more on PostgreSQL.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4
from zoneinfo import ZoneInfo

import pytest
from django.db import IntegrityError, connection, connections, transaction

from apps.core.bulk import bulk_exchange, bulk_insert, bulk_upsert
from apps.core.keys import forget_keys
from apps.core.models import OutboxEvent
from apps.core.protected import seal, unseal
from apps.ledger.models import Link
from tests.on_postgresql import again_on_postgresql

RULE, RUN = uuid4(), uuid4()
COLUMNS = ["rule_id", "left_key", "right_key", "left_hash", "right_hash", "left_image"]
COLUMNS += ["right_image", "state", "run_id"]
EXTREMES = "tab\t line\n return\r backslash \\ \\N quote ' \" nul-free ünïcödé 🐢 '); --"


def _link(number: int, *, left_key: str = "", right_image: str = "i") -> tuple[object, ...]:
    digest = number.to_bytes(16, "big")
    return (
        RULE,
        left_key or f"l{number}",
        f"r{number}",
        digest,
        digest,
        "",
        right_image,
        "live",
        RUN,
    )


@pytest.mark.django_db
def test_rows_come_back_through_the_orm_as_they_were_given():
    bulk_insert(Link, COLUMNS, [_link(1, left_key=EXTREMES), _link(2)])

    first, second = Link.objects.order_by("right_key")
    assert (first.rule_id, first.run_id) == (RULE, RUN)
    assert first.left_key == EXTREMES
    assert bytes(first.right_hash) == (1).to_bytes(16, "big")
    assert second.left_key == "l2"


@pytest.mark.django_db
def test_rows_are_found_by_what_the_orm_asks():
    bulk_insert(Link, COLUMNS, [_link(7)])

    assert Link.objects.filter(rule_id=RULE, right_hash=(7).to_bytes(16, "big")).exists()


@pytest.mark.django_db
def test_times_json_and_nothing_come_back():
    at = datetime(2024, 2, 29, 23, 59, 59, 123456, tzinfo=UTC)
    subject = uuid4()

    columns = ["topic", "subject", "payload", "created_at", "delivered_at"]
    rows = [("a", subject, '{"n": [1, "ü"]}', at, None), ("b", subject, "{}", at, at)]
    bulk_insert(OutboxEvent, columns, rows)

    first, second = OutboxEvent.objects.order_by("topic")
    assert (first.created_at, first.delivered_at) == (at, None)
    assert (first.subject, first.payload) == (subject, {"n": [1, "ü"]})
    assert OutboxEvent.objects.filter(delivered_at=at).get() == second


@pytest.mark.django_db
def test_times_of_another_zone_are_the_same_instant():
    at = datetime(2024, 7, 1, 12, tzinfo=ZoneInfo("Asia/Tokyo"))

    bulk_insert(
        OutboxEvent, ["topic", "subject", "payload", "created_at"], [("a", uuid4(), "{}", at)]
    )

    assert OutboxEvent.objects.get().created_at == at


@pytest.mark.django_db
def test_a_generator_of_many_rows_is_taken():
    bulk_insert(Link, COLUMNS, (_link(number) for number in range(5000)))

    assert Link.objects.count() == 5000


@pytest.mark.django_db
def test_no_rows_are_no_error():
    bulk_insert(Link, COLUMNS, [])
    bulk_upsert(Link, COLUMNS, ["rule_id", "right_hash"], ["right_image"], [])

    assert not Link.objects.exists()


@pytest.mark.django_db
def test_an_upsert_changes_only_the_named_columns_of_rows_that_clash():
    bulk_insert(Link, COLUMNS, [_link(1, left_key="kept", right_image="old")])
    before = Link.objects.get()

    rows = [_link(1, left_key="ignored", right_image="new"), _link(2, right_image="new")]
    bulk_upsert(Link, COLUMNS, ["rule_id", "right_hash"], ["right_image"], rows)

    first, second = Link.objects.order_by("right_key")
    assert (first.pk, first.left_key, first.right_image) == (before.pk, "kept", "new")
    assert (second.left_key, second.right_image) == ("l2", "new")


@pytest.mark.django_db
def test_two_upserts_in_one_transaction():
    with transaction.atomic():
        for image in ("first", "second"):
            bulk_upsert(
                Link,
                COLUMNS,
                ["rule_id", "right_hash"],
                ["right_image"],
                [_link(1, right_image=image)],
            )

    assert Link.objects.get().right_image == "second"


@pytest.mark.django_db(transaction=True)
def test_rows_that_clash_leave_nothing_behind():
    with pytest.raises(IntegrityError), transaction.atomic():
        bulk_insert(Link, COLUMNS, [_link(1), _link(2), _link(1)])

    assert not Link.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_an_upsert_outside_a_transaction_is_all_or_nothing():
    bulk_upsert(Link, COLUMNS, ["rule_id", "right_hash"], ["right_image"], [_link(1)])
    broken = [_link(2), (RULE, None, *_link(3)[2:])]

    with pytest.raises(IntegrityError):
        bulk_upsert(Link, COLUMNS, ["rule_id", "right_hash"], ["right_image"], broken)

    assert list(Link.objects.values_list("right_key", flat=True)) == ["r1"]


@pytest.mark.django_db(transaction=True)
def test_rows_may_be_sealed_as_they_are_inserted():
    """Also where the list of data keys has to be read just then: COPY has the connection."""

    def rows() -> Iterator[tuple[Any, ...]]:
        forget_keys()
        yield (*_link(1), seal(b"base", "link"))

    bulk_insert(Link, [*COLUMNS, "sealed_base"], rows())

    assert unseal(Link.objects.get().sealed_base, "link") == b"base"


@pytest.mark.django_db(transaction=True)
def test_a_value_is_exchanged_where_it_is_the_one_that_was_read():
    bulk_insert(Link, COLUMNS, [_link(1), _link(2), _link(3)])
    Link.objects.update(sealed_base=b"old")
    one, two, three = Link.objects.order_by("right_key").values_list("pk", flat=True)
    Link.objects.filter(pk=two).update(sealed_base=b"somebody's")

    done = bulk_exchange(Link, "sealed_base", [(pk, b"old", b"new") for pk in (one, two, three)])

    assert done == 2
    found = Link.objects.order_by("right_key").values_list("sealed_base", flat=True)
    assert [bytes(value) for value in found] == [b"new", b"somebody's", b"new"]


if connection.vendor == "postgresql":  # SQLite locks the whole database

    @pytest.mark.django_db(transaction=True)
    def test_a_row_that_somebody_holds_is_left_alone():
        bulk_insert(Link, COLUMNS, [_link(1), _link(2)])
        Link.objects.update(sealed_base=b"old")
        one, two = Link.objects.order_by("right_key").values_list("pk", flat=True)
        other = connections.create_connection("default")
        with other.cursor() as cursor:
            cursor.execute("BEGIN")
            cursor.execute("SELECT id FROM ledger_link WHERE id = %s FOR UPDATE", [one])
            done = bulk_exchange(Link, "sealed_base", [(pk, b"old", b"new") for pk in (one, two)])
            cursor.execute("ROLLBACK")
        other.close()

        assert done == 1


@pytest.mark.postgresql
@pytest.mark.skipif(connection.vendor == "postgresql", reason="the tests run on it already")
def test_all_of_this_holds_on_postgresql():
    done = again_on_postgresql("bulk", __file__, "-k", "not on_postgresql")

    assert done.returncode == 0, done.stdout[-3000:]
    assert " passed" in done.stdout
