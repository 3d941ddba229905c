"""Rejections and changes in the admin."""

from __future__ import annotations

from pathlib import Path

import pytest
from django.urls import reverse

from apps.engine.spec import CheckKind, CheckSpec
from apps.ledger.models import Change, Rejection
from apps.runs.models import Run
from apps.runs.services import work_until_finished
from tests.people import administrator, signed_in, viewer
from tests.platforms import Pair

pytestmark = pytest.mark.django_db(transaction=True)
CHECK = CheckSpec(name="mail", kind=CheckKind.PATTERN, field="mail", pattern=".+@example.org")


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    pair = Pair(tmp_path, checks=[CHECK])
    pair.add_customers(4)
    pair.on_left("UPDATE customers SET email = 'nonsense' WHERE id = 2")
    pair.run()
    return pair


def decide(client, rejection: Rejection, **data: str):
    return client.post(reverse("admin:ledger_rejection_decide", args=(rejection.pk,)), data)


def corrected(rejection: Rejection, name: str, value: str) -> dict[str, str]:
    record = rejection.record()
    return {
        f"value-{number}": value if field == name else (kept or "")
        for number, (field, kept) in enumerate(record.items())
    } | {f"null-{n}": "1" for n, kept in enumerate(record.values()) if kept is None}


def test_the_page_marks_the_field_behind_the_reason(pair):
    rejection = Rejection.objects.get()
    page = signed_in(administrator()).get(
        reverse("admin:ledger_rejection_change", args=(rejection.pk,))
    )
    wrong = [line["name"] for line in page.context["lines"] if line["is_wrong"]]
    assert wrong == ["email"]
    assert "nonsense" in page.content.decode()


def test_save_and_replay_writes_the_corrected_record(pair):
    rejection = Rejection.objects.get()
    data = corrected(rejection, "email", "two@example.org")
    answer = decide(signed_in(administrator()), rejection, **data, replay="1")
    run = Run.objects.latest("created_at")
    assert answer["Location"] == reverse("admin:runs_run_change", args=(run.pk,))
    work_until_finished(run)
    assert (2, "Name 2", "two@example.org", 2.5) in pair.clients()
    rejection.refresh_from_db()
    assert rejection.state == Rejection.State.RESOLVED


def test_a_correction_is_kept_beside_the_original(pair):
    rejection = Rejection.objects.get()
    client = signed_in(administrator())
    decide(client, rejection, **corrected(rejection, "email", "x@example.org"), save="1")
    rejection.refresh_from_db()
    assert rejection.record()["email"] == "nonsense"
    assert rejection.edit()["email"] == "x@example.org"


@pytest.mark.parametrize("text", ["two\nlines", "two\r\nlines", "\nbegins", "tab\tand \rreturn"])
def test_a_text_with_lines_stays_as_it_is_when_nobody_touches_it(tmp_path, text):
    pair = Pair(tmp_path, "lines", checks=[CHECK])
    pair.on_left("INSERT INTO customers VALUES (1, ?, 'nonsense', 1, '2026-01-01')", text)
    pair.run()
    rejection = Rejection.objects.get()
    client = signed_in(administrator())
    page = client.get(reverse("admin:ledger_rejection_change", args=(rejection.pk,)))
    assert "<textarea" in page.content.decode()
    as_browsers_send = text.replace("\r\n", "\n").replace("\r", "\n").replace("\n", "\r\n")
    data = corrected(rejection, "name", as_browsers_send)
    decide(client, rejection, **data, save="1")
    rejection.refresh_from_db()
    assert rejection.edit() is None
    decide(client, rejection, **{**data, "value-2": "one@example.org"}, save="1")
    rejection.refresh_from_db()
    assert rejection.edit() == {**rejection.record(), "email": "one@example.org"}


def test_a_text_typed_where_null_stood_counts(tmp_path):
    pair = Pair(tmp_path, "nameless", checks=[CHECK])
    pair.on_left("INSERT INTO customers VALUES (1, NULL, 'nonsense', 1, '2026-01-01')")
    pair.run()
    rejection = Rejection.objects.get()
    assert rejection.record()["name"] is None
    client = signed_in(administrator())
    data = corrected(rejection, "name", "Ada")
    assert "null-1" in data  # the box is still ticked
    decide(client, rejection, **data, save="1")
    rejection.refresh_from_db()
    assert rejection.edit()["name"] == "Ada"
    decide(client, rejection, **data, save="1")
    rejection.refresh_from_db()
    assert rejection.edit()["name"] is None


def test_dismissing_keeps_the_note(pair):
    rejection = Rejection.objects.get()
    decide(signed_in(administrator()), rejection, dismiss="1", note="a test record")
    rejection.refresh_from_db()
    assert (rejection.state, rejection.note) == ("dismissed", "a test record")


def test_deciding_needs_its_permission(pair):
    rejection = Rejection.objects.get()
    assert decide(signed_in(viewer()), rejection, dismiss="1").status_code == 403
    rejection.refresh_from_db()
    assert rejection.state == Rejection.State.OPEN


def test_bulk_replay_asks_before_it_does_anything(pair):
    client = signed_in(administrator())
    address = reverse("admin:ledger_rejection_changelist")
    rejection = Rejection.objects.get()
    chosen = {"action": "replay_chosen", "_selected_action": str(rejection.pk)}
    before = Run.objects.count()
    page = client.post(address, chosen)
    assert "these 1 rejections" in page.content.decode()
    assert Run.objects.count() == before
    client.post(address, {**chosen, "confirmed": "yes"})
    assert Run.objects.count() == before + 1


def test_the_list_is_filtered_by_run_and_cause(pair):
    rejection = Rejection.objects.get()
    address = reverse("admin:ledger_rejection_changelist")
    client = signed_in(administrator())
    found = client.get(f"{address}?run_id__exact={rejection.run_id}&code__exact={rejection.code}")
    assert [row.pk for row in found.context["cl"].result_list] == [rejection.pk]
    none = client.get(f"{address}?code__exact=other")
    assert "Nothing matches" in none.content.decode()


def test_a_change_is_found_by_its_whole_key(pair):
    client = signed_in(administrator())
    address = reverse("admin:ledger_change_changelist")
    page = client.get(f"{address}?q=3")
    (change,) = page.context["cl"].result_list
    shown = client.get(reverse("admin:ledger_change_change", args=(change.pk,)))
    assert "n3@example.org" in shown.content.decode()
    assert Change.objects.count() == 3
