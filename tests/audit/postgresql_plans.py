"""How pages of a large audit log are read: by index alone. `test_postgresql` runs this on a server.

LOCKSTEP_TEST_AUDIT_ROWS says how large; the plans are the same from here to ten million.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
from django.contrib.auth.models import AnonymousUser
from django.db import connection
from django.utils import timezone

from apps.audit.actions import Act
from apps.audit.models import AuditEvent
from apps.audit.selectors import EventFilter, event_page
from apps.core.clock import id_at
from tests.people import administrator

ROWS = int(os.environ.get("LOCKSTEP_TEST_AUDIT_ROWS", "200000"))
FILTERS = {
    "everything": {},
    "action": {"action": "rule.changed"},
    "rare action": {"action": "demo.removed"},
    "actions of rules": {"action": "rule."},
    "refused": {"outcome": "refused"},
    "succeeded": {"outcome": "success"},
    "actor": {"actor": "person 17"},
    "actor's id": {"actor_id": "17"},
    "kind of object": {"object_type": "rules.rule"},
    "object": {"object_type": "rules.rule", "object_id": "1234"},
    "address": {"address": "10.0.1.5"},
    "request": {"request": "0" * 31 + "7"},
    "dates": {"since": "2026-01-10", "until": "2026-01-12"},
    "words": {"q": "rule 123"},
    "rare word": {"q": "unique77"},
    "an id": {"q": str(uuid4())},
    "actor and action": {"actor": "person 17", "action": "rule.changed"},
    "address and dates": {"address": "10.0.1.5", "since": "2026-01-10"},
    "outcome, kind and words": {"outcome": "refused", "object_type": "rules.rule", "q": "rule"},
}
# These have their order from an index too: nothing is sorted, whatever the size.
IN_ORDER = ("everything", "action", "refused", "succeeded", "actor", "actor's id", "address")
IN_ORDER += ("kind of object", "dates")


@pytest.fixture(scope="module")
def large(django_db_setup: None, django_db_blocker: Any) -> Iterator[None]:
    """Many events over a month, made by the database itself."""
    columns = ", ".join(f.column for f in AuditEvent._meta.fields)
    start = int(timezone.datetime(2026, 1, 1, tzinfo=timezone.get_default_timezone()).timestamp())
    actions = [a.value for a in Act if a is not Act.DEMO_REMOVED]
    array = "ARRAY[" + ", ".join(f"'{a}'" for a in actions) + "]"
    statement = f"""
        INSERT INTO audit_auditevent ({columns})
        SELECT (lpad(to_hex((({start}::bigint + n * 13) * 1000)), 12, '0') || '7' ||
                lpad(to_hex(n % 4096), 3, '0') || '8' || substr(md5(n::text), 1, 15))::uuid,
               to_timestamp({start} + n * 13), ({array})[1 + n * 7 % {len(actions)}],
               CASE WHEN n % 200 = 0 THEN 'refused' ELSE 'success' END, 'person',
               (n % 50)::text, 'person ' || n % 50,
               (ARRAY['rules.rule', 'runs.run', 'sources.source'])[1 + n % 3], (n % 5000)::text,
               'rule ' || n % 5000, 'web', '10.0.' || n % 20 || '.' || n % 250,
               lpad(n::text, 32, '0'), 'Browser', 'because of unique' || n, '{{}}', 'k1', ''
        FROM generate_series(1, {ROWS}) n
    """
    with django_db_blocker.unblock(), connection.cursor() as cursor:
        cursor.execute(statement)
        cursor.execute("ANALYZE audit_auditevent")
        yield
        cursor.execute("DELETE FROM audit_auditevent")


@pytest.mark.django_db
@pytest.mark.parametrize("name", FILTERS)
@pytest.mark.parametrize("place", ["newest", "older", "newer"])
def test_every_page_is_read_by_index(
    large: None, django_assert_num_queries: Any, name: str, place: str
):
    person = administrator()
    middle = id_at(timezone.datetime(2026, 1, 15, tzinfo=timezone.get_default_timezone()))
    go_on = {"before": middle if place == "older" else None}
    go_on["after"] = middle if place == "newer" else None
    with django_assert_num_queries(1) as asked:
        event_page(EventFilter.of(FILTERS[name]), person, limit=50, **go_on)
    statement = asked.captured_queries[0]["sql"]
    assert "COUNT(" not in statement
    with connection.cursor() as cursor:
        cursor.execute(f"EXPLAIN (FORMAT JSON) {statement}")
        plan = cursor.fetchone()[0]
    found = nodes(json.loads(plan) if isinstance(plan, str) else plan)

    assert "Seq Scan" not in found, found
    if name in IN_ORDER:
        assert "Sort" not in found, found


def nodes(plan: Any) -> list[str]:
    """The kinds of all nodes of a plan."""
    if isinstance(plan, list):
        return [node for part in plan for node in nodes(part)]
    if not isinstance(plan, dict):
        return []
    own = [plan["Node Type"]] if "Node Type" in plan else []
    return own + [node for part in plan.values() for node in nodes(part)]


@pytest.mark.django_db
def test_words_are_found_as_the_index_has_them(large: None):
    person = administrator()
    last = f"Unique{ROWS}"
    page = event_page(EventFilter(q=f"{last} beca"), person, before=None, after=None, limit=50)

    assert [event.reason for event in page.events] == [f"because of {last.lower()}"]
    for odd in ("'", "a & b", "!x", "(", "\\", f"{last} 'or", "ü:*"):
        event_page(EventFilter(q=odd), person, before=None, after=None, limit=5)
    nothing = event_page(EventFilter(), AnonymousUser(), before=None, after=None, limit=5)
    assert nothing.events == []
