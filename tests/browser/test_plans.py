"""Plans and records in a real Chromium: choosing changes, asking first, phones."""

from __future__ import annotations

from pathlib import Path

import pytest
from django.urls import reverse
from playwright.sync_api import Page, expect

from apps.ledger.selectors.record_family import Address
from apps.rules.services import save_rule
from apps.runs.admin import changes
from apps.runs.models import RestoreRequest, Run
from apps.runs.services import UndoScope, plan_undo, work_until_finished
from tests.browser.chromium import PHONE, overflow, sign_in
from tests.people import administrator
from tests.two_way import TwoWay, key

pytestmark = [
    pytest.mark.browser,
    pytest.mark.xdist_group("browser"),
    pytest.mark.django_db(transaction=True),
]


@pytest.fixture
def pair(tmp_path: Path) -> TwoWay:
    pair = TwoWay(tmp_path)
    pair.add_contacts(4)
    pair.run()
    return pair


def waiting(pair: TwoWay) -> Run:
    pair.rule.approval = "always"
    save_rule(pair.rule, [], actor=None)
    pair.on_left("UPDATE contacts SET name = 'Renamed'")
    return pair.run()


def test_changes_are_chosen_across_pages_and_applied_after_a_question(
    page: Page, pair: TwoWay, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(changes, "PAGE", 2)
    run = waiting(pair)
    administrator()
    sign_in(page)
    page.goto(reverse("admin:runs_run_changes", args=(run.pk,)))
    apply = page.get_by_role("button", name="Apply the chosen…")
    expect(apply).to_be_disabled()
    page.get_by_label("Choose all of this page").check()
    page.get_by_role("link", name="Next page").click()
    page.locator("input[name=change]").first.check()
    expect(page.locator("[data-ls-chosen-count]")).to_have_text("3")
    apply.click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("Write 3 chosen changes to Billing?")
    dialog.get_by_role("button", name="Apply the chosen").click()
    expect(page.get_by_text("Applying").first).to_be_visible()
    work_until_finished(run)
    assert [row[1] for row in pair.accounts()].count("Renamed") == 3


def test_a_link_for_a_ticket_is_copied_or_shown(page: Page, pair: TwoWay):
    administrator()
    sign_in(page)
    at = Address(pair.mapping.right_id, key(1))
    page.goto(reverse("admin:ledger_change_record", args=(at.dataset_id, at.digest)))
    button = page.locator("[data-ls-copy]")
    button.click()
    expect(button.locator("[aria-live]")).not_to_have_text("Copy link for a ticket")


def test_no_page_of_plans_and_records_is_wider_than_a_phone(page: Page, pair: TwoWay):
    first = Run.objects.get()
    preview = work_until_finished(
        plan_undo(pair.rule, UndoScope(run_id=first.pk), actor=None, reason="")
    )
    asked = RestoreRequest.objects.create(
        rule=pair.rule, run=first, scope=UndoScope(run_id=first.pk).as_json(), reason="wrong"
    )
    run = waiting(pair)
    at = Address(pair.mapping.right_id, key(1))
    administrator()
    sign_in(page)
    page.set_viewport_size(PHONE)
    pages = {
        "admin:runs_run_change": (run.pk,),
        "admin:runs_run_changes": (run.pk,),
        "admin:runs_restorerequest_changelist": (),
        "admin:runs_restorerequest_change": (asked.pk,),
        "admin:ledger_change_find": (),
        "admin:ledger_change_record": (at.dataset_id, at.digest),
    }
    addresses = [reverse(name, args=args) for name, args in pages.items()]
    addresses += [reverse("admin:runs_run_change", args=(preview.pk,)), "/admin/"]
    wide = {}
    for place in addresses:
        page.goto(place)
        wide[place] = overflow(page)
    assert {place: pixels for place, pixels in wide.items() if pixels > 0} == {}
