"""The audit log in a real Chromium: filters, saved filters, exports, phones, an alarm."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from django.urls import reverse
from playwright.sync_api import Page, expect

from apps.audit.models import AuditEvent
from apps.audit.services import seal_pending, verify
from tests.audit.streams import checkpoints_in, sql, write_events
from tests.browser.chromium import PHONE, overflow, sign_in
from tests.people import administrator

pytestmark = [
    pytest.mark.browser,
    pytest.mark.xdist_group("browser"),
    pytest.mark.django_db(transaction=True),
]


def browse(page: Page, query: str = "") -> None:
    administrator()
    sign_in(page)
    page.goto(f"{reverse('admin:audit_auditevent_changelist')}{query}")


def test_a_filter_is_chosen_saved_and_found_again(page: Page):
    about_rules = next(e for e in write_events(120) if e.action.startswith("rule."))
    browse(page)
    page.get_by_text("Filter and search").click()
    page.get_by_label("Action").select_option("rule.")
    page.get_by_label("Address").fill(about_rules.address)
    page.get_by_role("button", name="Show", exact=True).click()
    rows = page.locator("tbody tr")
    expect(rows).to_have_count(1)
    expect(rows).to_contain_text(about_rules.address)
    page.get_by_label("Name for this filter").fill("Rules from there")
    page.get_by_role("button", name="Save filter").click()
    page.get_by_role("link", name="Everything", exact=True).click()
    expect(rows).to_have_count(50)
    page.get_by_role("link", name="Rules from there").click()
    expect(rows).to_have_count(1)


def test_pages_are_turned_both_ways(page: Page):
    write_events(120)
    browse(page)
    newest = page.locator("tbody tr").first.get_by_role("link").first.get_attribute("href")
    page.get_by_role("link", name="Older").click()
    page.get_by_role("link", name="Older").click()
    expect(page.get_by_text("End of the list")).to_be_visible()
    page.get_by_role("link", name="Newer").click()
    page.get_by_role("link", name="Newer").click()
    expect(page.get_by_role("link", name="Newer")).to_have_count(0)
    first = page.locator("tbody tr").first.get_by_role("link").first
    expect(first).to_have_attribute("href", str(newest))


def test_what_the_filter_shows_is_downloaded(page: Page):
    write_events(30)
    browse(page, "?address=10.0.0.7")
    with page.expect_download() as waiting:
        page.get_by_role("button", name="CSV").click()
    text = Path(waiting.value.path()).read_text(encoding="utf-8-sig")
    assert "Filter,Address: 10.0.0.7" in text
    assert len(re.findall("10.0.0.7,", text)) == 1


def test_an_altered_log_is_told_on_every_page(page: Page, tmp_path: Path):
    with checkpoints_in(tmp_path):
        events = write_events(20)
        seal_pending()
        sql("UPDATE audit_auditevent SET reason = 'x' WHERE id = %s", events[3].id)
        verify(actor=None)
    browse(page)
    expect(page.get_by_role("alert")).to_contain_text(str(events[3].id))
    page.goto(reverse("admin:index"))
    expect(page.locator("[data-ls-waiting]").filter(has_text="!")).to_be_visible()


def test_the_log_fits_a_phone(page: Page, tmp_path: Path):
    with checkpoints_in(tmp_path):
        write_events(60)
        seal_pending()
        verify(actor=None)
    browse(page)
    page.set_viewport_size(PHONE)
    wide = {}
    event = AuditEvent.objects.order_by("id")[10]
    addresses = [
        reverse("admin:audit_auditevent_changelist"),
        reverse("admin:audit_auditevent_changelist") + "?q=rule&since=2020-01-01",
        reverse("admin:audit_auditevent_change", args=(event.pk,)),
    ]
    for place in addresses:
        page.goto(place)
        wide[place] = overflow(page)
    assert {place: pixels for place, pixels in wide.items() if pixels > 0} == {}
