"""Reading the audit log: filters, pages, exports, and who may do so."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from datetime import date, datetime, time, timedelta
from pathlib import Path
from typing import Any
from unittest import mock
from uuid import uuid4

import pytest
from django.core.exceptions import PermissionDenied
from django.test import AsyncClient, Client
from django.urls import reverse
from django.utils import timezone

from apps.audit.actions import Act
from apps.audit.models import AuditEvent, AuditVerification, Outcome, SavedFilter
from apps.audit.origin import Channel, Origin, acting_from
from apps.audit.selectors import EventFilter, event_page, matching, seal_of
from apps.audit.services import Subject, begin_export, record, seal_pending, verify
from apps.core.spreadsheets import csv_line, safe_cell
from tests.audit.streams import checkpoints_in, sql, write_events
from tests.people import administrator, person, signed_in, viewer

pytestmark = pytest.mark.django_db
LIST = "admin:audit_auditevent_changelist"


@pytest.fixture(autouse=True)
def _own_checkpoints(tmp_path: Path) -> Iterator[None]:
    with checkpoints_in(tmp_path):
        yield


def event(act: Act = Act.RULE_CHANGED, **facts: Any) -> AuditEvent:
    return record(act, actor=facts.pop("actor", None), **facts)


def found(actor: Any, /, **wanted: str) -> list[AuditEvent]:
    return list(matching(EventFilter(**wanted), actor))


def test_each_filter_narrows_and_together_they_narrow_more():
    boss = administrator("boss")
    with acting_from(Origin(Channel.WEB, "192.0.2.7", "a" * 32)):
        wanted = event(Act.RULE_PAUSED, subject=Subject("rules.rule", "5", "Customers"), actor=boss)
    refused = event(Act.ACCESS_REFUSED, outcome=Outcome.REFUSED)
    event(Act.RUN_REQUESTED, subject=Subject("runs.run", "6", "Customers"))

    for narrow in (
        {"action": "rule.paused"},
        {"action": "rule."},
        {"actor": "boss"},
        {"actor_id": str(boss.pk)},
        {"object_type": "rules.rule"},
        {"object_id": "5"},
        {"address": "192.0.2.7"},
        {"request": "a" * 32},
        {"q": "a" * 32},
        {"q": str(wanted.id)},
        {"q": "custo boss"},
        {"q": "customers", "action": "rule."},
    ):
        assert found(boss, **narrow) == [wanted], narrow
    assert found(boss, outcome="refused") == [refused]
    assert len(found(boss)) == 3
    assert found(boss, q="customers", actor="nobody") == []
    assert found(boss, q="!!") == []


def test_an_address_is_found_however_it_is_spelt():
    boss = administrator()
    with acting_from(Origin(Channel.WEB, "2001:db8::1")):
        one = event()
    assert found(boss, address="2001:0DB8:0::1") == [one]


def test_dates_are_those_of_the_person_and_both_are_included():
    boss = administrator()
    with timezone.override("Pacific/Auckland"):
        midnight = timezone.make_aware(datetime.combine(date(2026, 5, 2), time.min))
        moments = [midnight + timedelta(seconds=s) for s in (-1, 0, 86_399, 86_400)]
        made = []
        for moment in moments:
            with mock.patch("apps.audit.services.recording.now", return_value=moment):
                made.append(event())
        assert set(found(boss, since="2026-05-02", until="2026-05-02")) == set(made[1:3])
        assert set(found(boss, since="2026-05-02")) == set(made[1:])


@pytest.mark.parametrize(
    ("wanted", "word"),
    [
        ({"action": "rule.danced"}, "no action"),
        ({"action": "nothing."}, "no action"),
        ({"outcome": "maybe"}, "no outcome"),
        ({"since": "yesterday"}, "no date"),
        ({"until": "2026-02-31"}, "no date"),
        ({"since": "0001-01-01"}, "no date"),
        ({"until": "9999-12-31"}, "no date"),
    ],
)
def test_a_filter_that_makes_no_sense_shows_nothing_and_says_why(wanted: dict, word: str):
    boss = administrator()
    event()
    assert found(boss, **wanted) == []
    page = signed_in(boss).get(reverse(LIST), wanted)
    assert word in page.content.decode()
    answer = signed_in(boss).post(
        reverse("admin:audit_auditevent_export"), {**wanted, "format": "csv"}
    )
    assert answer.status_code == 302
    assert not found(boss, action="audit.exported")


def test_pages_hold_every_event_once_in_both_directions():
    boss = administrator()
    made = [e.id for e in write_events(23)][::-1]
    forth, before = [], None
    while True:
        page = event_page(EventFilter(), boss, before=before, after=None, limit=5)
        forth += [e.id for e in page.events]
        if page.older is None:
            break
        before = page.older
    back, after = [e.id for e in page.events], page.newer
    while after is not None:
        page = event_page(EventFilter(), boss, before=None, after=after, limit=5)
        back = [e.id for e in page.events] + back
        after = page.newer
    assert forth == back == made


def test_a_page_asks_the_same_however_long_the_log_is(django_assert_num_queries):
    client = signed_in(administrator())
    write_events(60)
    address = reverse(LIST)
    client.get(address)
    from django.db import connection
    from django.test.utils import CaptureQueriesContext

    with CaptureQueriesContext(connection) as few:
        client.get(address)
    write_events(300)
    with CaptureQueriesContext(connection) as many:
        client.get(address)
    assert len(few) == len(many)
    assert not [q for q in many if "COUNT(" in q["sql"] and "audit_auditevent" in q["sql"]]


# Exports


def download(client: Client, **fields: str) -> str:
    answer = client.post(reverse("admin:audit_auditevent_export"), fields)
    assert answer.status_code == 200
    assert "no-store" in answer["Cache-Control"]
    return b"".join(answer.streaming_content).decode("utf-8-sig")


def test_a_csv_says_what_it_is_and_holds_what_the_filter_shows():
    client = signed_in(administrator("boss"))
    with acting_from(Origin(Channel.WEB, "192.0.2.7")):
        wanted = event(reason="=HYPERLINK(1)", details={"changed": ["filter"]})
    event()

    rows = list(csv.reader(io.StringIO(download(client, format="csv", address="192.0.2.7"))))

    head = dict(row for row in rows[1:6])
    assert head["Filter"] == "Address: 192.0.2.7"
    assert head["By"] == "boss"
    assert head["Last verified"] == "never"
    assert rows[7][:3] == ["id", "at", "action"]
    assert [row[0] for row in rows[8:]] == [str(wanted.id)]
    values = dict(zip(rows[7], rows[8], strict=True))
    assert values["reason"] == "'=HYPERLINK(1)"
    assert json.loads(values["details"]) == {"changed": ["filter"]}


def test_json_lines_hold_values_as_they_are():
    client = signed_in(administrator("boss"))
    wanted = event(reason="=1+1", details={"version": 3})

    head, *lines = [json.loads(x) for x in download(client, format="jsonl", q="1").splitlines()]

    assert head["export"]["Filter"] == "Search: 1"
    assert [line["id"] for line in lines] == [str(wanted.id)]
    assert lines[0]["reason"] == "=1+1"
    assert lines[0]["details"] == {"version": 3}


def test_an_export_is_on_record_and_not_in_itself():
    client = signed_in(administrator("boss"))
    text = download(client, format="jsonl", action="audit.exported")
    told = AuditEvent.objects.get(action=Act.AUDIT_EXPORTED)
    assert told.details == {
        "format": "jsonl",
        "filter": {"Action": "audit.exported"},
    }
    assert len(text.splitlines()) == 1
    assert str(told.id) in text


def test_a_long_export_holds_every_event_once(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("apps.audit.selectors.EXPORT_CHUNK", 7)
    client = signed_in(administrator())
    made = {str(e.id) for e in write_events(30)}
    lines = [json.loads(x) for x in download(client, format="jsonl", q="rule").splitlines()[1:]]
    assert {line["id"] for line in lines} == made
    assert len(lines) == 30


@pytest.mark.django_db(transaction=True)
def test_an_export_streams_under_asgi_too():
    """Whole blocks reach the client while later ones are still to be read."""
    import asyncio

    boss = administrator()
    write_events(1_200)

    cookies = signed_in(boss).cookies

    async def fetch() -> list[bytes]:
        client = AsyncClient()
        client.cookies = cookies
        address = reverse("admin:audit_auditevent_export")
        answer = await client.post(address, {"format": "jsonl", "q": "rule"})
        return [chunk async for chunk in answer.streaming_content]

    chunks = asyncio.run(fetch())

    assert len(chunks) == 3
    assert len(b"".join(chunks).splitlines()) == 1_201


def test_no_format_but_those_there_are():
    client = signed_in(administrator())
    address = reverse("admin:audit_auditevent_export")
    assert client.post(address, {"format": "xlsx"}).status_code == 404
    assert client.get(address, {"format": "csv"}).status_code == 405


@pytest.mark.parametrize("text", ["=1", "+1", "-1", "@a", "\t=1", "\r=1", "  =1", "＝1"])  # noqa: RUF001
def test_no_cell_is_a_formula(text: str):
    assert safe_cell(text) == f"'{text}"
    assert next(csv.reader([csv_line([text, 'a "b", c', None])]))[1:] == ['a "b", c', ""]


# Who may


def test_each_right_is_asked_for():
    event()
    looker = person("looker", "audit.view_auditevent")
    client = signed_in(looker)
    page = client.get(reverse(LIST)).content.decode()
    assert "JSON Lines" not in page
    assert "Verify now" not in page
    for name in ("export", "verify"):
        answer = client.post(reverse(f"admin:audit_auditevent_{name}"), {"format": "csv"})
        assert answer.status_code == 403, name
    stranger = signed_in(person("stranger", "audit.export_auditevent"))
    one = AuditEvent.objects.first()
    assert stranger.get(reverse(LIST)).status_code == 403
    assert stranger.get(reverse("admin:audit_auditevent_change", args=(one.pk,))).status_code == 403
    export = reverse("admin:audit_auditevent_export")
    assert stranger.post(export, {"format": "csv"}).status_code == 403
    with pytest.raises(PermissionDenied):
        begin_export(EventFilter(), "csv", actor=looker)
    assert not AuditEvent.objects.filter(action=Act.AUDIT_EXPORTED).exists()


def test_nobody_changes_or_deletes_an_event_through_the_admin():
    one = event()
    client = signed_in(administrator())
    for name in ("change", "delete"):
        address = reverse(f"admin:audit_auditevent_{name}", args=(one.pk,))
        client.post(address, {"reason": "x", "post": "yes"})
    client.post(reverse(LIST), {"action": "delete_selected", "_selected_action": [str(one.pk)]})
    client.post(reverse("admin:audit_auditevent_add"), {"reason": "x"})
    assert AuditEvent.objects.get(pk=one.pk).reason == ""


def test_a_verification_is_asked_of_a_worker():
    client = signed_in(administrator())
    with mock.patch("apps.audit.tasks.verify.delay") as asked:
        answer = client.post(reverse("admin:audit_auditevent_verify"), follow=True)
    assert asked.called
    assert "A worker verifies" in answer.content.decode()
    with mock.patch("apps.audit.tasks.verify.delay", side_effect=OSError):
        answer = client.post(reverse("admin:audit_auditevent_verify"), follow=True)
    assert "the broker does not answer" in answer.content.decode()


# Pages


def test_the_page_of_an_event_says_everything_and_what_else_the_request_did():
    boss = administrator("boss")
    with acting_from(Origin(Channel.WEB, "192.0.2.7", "b" * 32, "Firefox")):
        one = event(
            subject=Subject.of(boss), reason="why not", details={"gained": ["role A", "role B"]}
        )
        event(Act.RULE_PAUSED, subject=Subject("rules.rule", str(uuid4()), "Gone rule"))
    seal_pending()

    page = signed_in(boss).get(reverse("admin:audit_auditevent_change", args=(one.pk,)))

    text = page.content.decode()
    for words in ("why not", "192.0.2.7", "Firefox", "role A, role B", "Gone rule", "number 1"):
        assert words in text, words
    assert reverse("admin:accounts_user_change", args=(boss.pk,)) in text
    support = signed_in(person("auditor", "audit.view_auditevent"))
    page = support.get(reverse("admin:audit_auditevent_change", args=(one.pk,)))
    assert reverse("admin:accounts_user_change", args=(boss.pk,)) not in page.content.decode()


def test_the_seal_of_an_event_is_found():
    one = write_events(5)[2]
    assert seal_of(one) is None
    seal_pending(batch=2)
    assert seal_of(one).number == 2


def test_an_alteration_is_told_in_the_browser_and_beside_its_entry():
    boss = administrator()
    one = write_events(5)[2]
    seal_pending()
    verify(actor=boss)
    client = signed_in(boss)
    assert "As it was written" in client.get(reverse(LIST)).content.decode()
    sql("UPDATE audit_auditevent SET reason = 'x' WHERE id = %s", one.id)
    verify(actor=boss)
    page = client.get(reverse(LIST)).content.decode()
    assert "not as it was written" in page
    assert str(one.id) in page
    assert "data-ls-waiting" in client.get("/admin/").content.decode()
    assert AuditVerification.objects.count() == 2


@pytest.mark.parametrize("after", ["x", "%C2%B2", "9" * 40])
def test_an_address_that_makes_no_sense_shows_the_newest(after: str):
    client = signed_in(administrator())
    event()
    for name in ("before", "after"):
        assert client.get(f"{reverse(LIST)}?{name}={after}").status_code == 200
    assert client.get(f"{reverse(LIST)}?q=%00&actor=%00").status_code == 200


# Saved filters


def test_a_filter_is_kept_for_its_owner_alone():
    boss, other = administrator("boss"), viewer("other")
    save = reverse("admin:audit_auditevent_save_filter")
    signed_in(boss).post(save, {"name": " Rules ", "action": "rule."})
    signed_in(boss).post(save, {"name": "Rules", "action": "rule.", "outcome": "failed"})
    kept = SavedFilter.objects.get()
    assert (kept.name, kept.query, kept.owner) == ("Rules", "action=rule.&outcome=failed", boss)
    assert "Rules</a>" not in signed_in(other).get(reverse(LIST)).content.decode()
    forget = reverse("admin:audit_auditevent_forget_filter", args=(kept.pk,))
    signed_in(other).post(forget)
    assert SavedFilter.objects.exists()
    signed_in(boss).post(forget)
    assert not SavedFilter.objects.exists()


@pytest.mark.parametrize(
    "fields",
    [
        {"name": "", "action": "rule."},
        {"name": "x" * 61, "action": "rule."},
        {"name": "nothing"},
        {"name": "wrong", "action": "rule.danced"},
    ],
)
def test_a_filter_that_is_none_is_not_kept(fields: dict):
    client = signed_in(administrator())
    answer = client.post(reverse("admin:audit_auditevent_save_filter"), fields, follow=True)
    assert answer.status_code == 200
    assert not SavedFilter.objects.exists()
