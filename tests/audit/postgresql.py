"""What only PostgreSQL does for the audit log. `test_postgresql` runs this on a server."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from django.db import DatabaseError, close_old_connections, connection, transaction

from apps.audit.actions import Act
from apps.audit.models import AuditEvent, AuditPending, AuditSeal
from apps.audit.services import record, seal_pending, verify
from config.environment import BASE_DIR
from tests.audit.streams import checkpoints_in, write_events

TABLES = ("audit_auditevent", "audit_auditseal")
ROLE_PAGE = BASE_DIR / "docs" / "how-to" / "audit-role.md"


@pytest.fixture(autouse=True)
def _own_checkpoints(tmp_path: Path) -> Iterator[None]:
    with checkpoints_in(tmp_path):
        yield


@pytest.fixture
def guarded(db: None) -> None:
    """With the triggers that other tests do without."""
    with connection.cursor() as cursor:
        for table in TABLES:
            cursor.execute(f"ALTER TABLE {table} ENABLE TRIGGER USER")


@contextmanager
def refused(why: str) -> Iterator[None]:
    """What is tried within is refused by the database; the transaction around goes on."""
    with pytest.raises(DatabaseError, match=why), transaction.atomic():
        yield


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize(
    "statement",
    ["UPDATE {} SET key_id = 'x'", "DELETE FROM {}", "DELETE FROM {} WHERE false", "TRUNCATE {}"],
)
def test_the_database_refuses_to_change_the_log(guarded: None, table: str, statement: str):
    write_events(3)
    seal_pending()

    with refused("append-only"), connection.cursor() as cursor:
        cursor.execute(statement.format(table))

    assert AuditEvent.objects.count() == 3
    assert verify(actor=None).is_sound


def test_the_log_grows_and_is_sealed_with_the_triggers_on(guarded: None):
    write_events(20)
    assert seal_pending(batch=7) == 20
    assert AuditSeal.objects.count() == 3
    assert not AuditPending.objects.exists()


@pytest.mark.django_db
def test_a_role_made_as_the_docs_say_can_add_and_nothing_else():
    """The statements of the page are run as they stand; then each right is tried."""
    blocks = re.findall(r"^```sql\n(.*?)^```", ROLE_PAGE.read_text(), re.MULTILINE | re.DOTALL)
    role = f"lockstep_web_{uuid4().hex[:12]}"
    script = blocks[0].replace("lockstep_app", role).replace("LOGIN PASSWORD '…'", "NOLOGIN")
    with connection.cursor() as cursor:
        cursor.execute(script)
        cursor.execute(f"SET LOCAL ROLE {role}")
        write_events(3)
        seal_pending()
        for table in TABLES:
            for statement in (
                f"UPDATE {table} SET key_id = 'x'",
                f"DELETE FROM {table}",
                f"TRUNCATE {table}",
                f"ALTER TABLE {table} DISABLE TRIGGER USER",
            ):
                with refused("denied|must be owner"):
                    cursor.execute(statement)
        cursor.execute("RESET ROLE")
    assert verify(actor=None).is_sound


@pytest.mark.django_db(transaction=True)
def test_an_event_that_commits_late_is_in_a_later_seal_and_breaks_none():
    """Its id is smaller than those of a seal that was made before it could be seen."""
    begun, go_on = threading.Event(), threading.Event()
    made: list[UUID] = []

    def slow() -> None:
        try:
            with transaction.atomic():
                made.append(record(Act.RULE_CHANGED, actor=None, reason="late").id)
                begun.set()
                go_on.wait(20)
        finally:
            close_old_connections()
            connection.close()

    thread = threading.Thread(target=slow)
    thread.start()
    begun.wait(20)
    later = write_events(5)
    assert seal_pending() == 5
    assert verify(actor=None).is_sound
    go_on.set()
    thread.join()
    assert made[0] < later[0].id

    assert verify(actor=None).is_sound
    seal_pending()

    report = verify(actor=None)
    assert report.findings == []
    assert AuditSeal.objects.get(number=2).first_event_id == made[0]


@pytest.mark.django_db(transaction=True)
def test_sealers_beside_one_another_seal_each_event_once():
    write_events(400)

    def seal() -> None:
        try:
            seal_pending(batch=20)
        finally:
            connection.close()

    threads = [threading.Thread(target=seal) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seal_pending()

    report = verify(actor=None)
    assert report.findings == []
    assert sum(AuditSeal.objects.values_list("count", flat=True)) == 400
