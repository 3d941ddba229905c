"""The screens in a real Chromium: sign-in, live parts, the wizard, phones, no errors."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from django.urls import reverse
from playwright.sync_api import Page, expect

from apps.engine.spec import CheckKind, CheckSpec
from apps.ledger.models import Change, Rejection
from apps.rules.models import Rule, SyncDraft
from apps.runs.models import Run
from apps.runs.services import request_run, work_until_finished
from tests.browser.chromium import PHONE, overflow, sign_in
from tests.people import administrator
from tests.platforms import Pair

pytestmark = [
    pytest.mark.browser,
    pytest.mark.xdist_group("browser"),
    pytest.mark.django_db(transaction=True),
]


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    check = CheckSpec(name="mail", kind=CheckKind.PATTERN, field="mail", pattern="n[1-8]@.*")
    pair = Pair(tmp_path, checks=[check])
    pair.add_customers(9)
    return pair


def test_the_source_page_tests_what_is_typed(page: Page, tmp_path: Path):
    administrator()
    sign_in(page)
    page.goto(reverse("admin:sources_source_add"))
    page.locator("[name=connector]").select_option("sqlite")
    page.locator("[name=setting_path]").fill(str(tmp_path / "nothing.db"))
    page.get_by_role("button", name="Test connection").click()
    steps = page.locator("#ls-test-result .ls-steps")
    expect(steps).to_contain_text("Resolve")
    expect(steps.locator(".ls-remedy").first).to_be_visible()


def test_the_mapping_shows_values_while_somebody_types(page: Page, pair: Pair):
    administrator()
    sign_in(page)
    page.goto(reverse("admin:mappings_mapping_change", args=(pair.mapping.pk,)))
    names = page.get_by_label("Expression for full_name")
    preview = page.locator(".ls-editor-row", has=names).locator(".ls-editor-preview")
    expect(preview).to_contain_text("Name 1", timeout=20_000)
    names.fill("upper(trim(name))")
    expect(preview).to_contain_text("NAME 1", timeout=20_000)
    names.fill("lowr(name)")
    expect(preview.locator(".ls-error")).to_be_visible(timeout=20_000)


def test_a_run_is_watched_to_its_end(page: Page, pair: Pair):
    administrator()
    sign_in(page)
    run = request_run(pair.rule, actor=None)
    page.goto(reverse("admin:runs_run_change", args=(run.pk,)))
    expect(page.get_by_text("Queued").first).to_be_visible()
    work_until_finished(run)
    expect(page.get_by_text("Done with rejections").first).to_be_visible(timeout=20_000)
    page.get_by_role("link", name="Rejected").click()
    expect(page.locator("#result_list, table").first).to_contain_text("does not match")


def test_a_dangerous_button_asks_first(page: Page, pair: Pair):
    administrator()
    sign_in(page)
    page.goto(reverse("admin:rules_rule_change", args=(pair.rule.pk,)))
    page.get_by_role("button", name="Run now").click()
    dialog = page.get_by_role("dialog", name="Run now")
    expect(dialog).to_be_visible()
    dialog.get_by_role("button", name="Cancel").click()
    assert not Run.objects.exists()
    page.get_by_role("button", name="Run now").click()
    page.get_by_role("dialog").get_by_role("button", name="Run now").click()
    expect(page).to_have_url(re.compile("/runs/run/"))
    assert Run.objects.count() == 1


def test_the_wizard_leads_to_a_dry_run(page: Page, pair: Pair):
    administrator()
    sign_in(page)
    left, right = pair.mapping.left, pair.mapping.right
    page.goto(reverse("admin:new_sync"))
    page.get_by_role("button", name="Begin").click()
    page.locator(f"[name=left_source][value='{left.source_id}']").check()
    page.locator(f"[name=right_source][value='{right.source_id}']").check()
    _go_on(page)
    page.locator(f"[name=left][value='{left.pk}']").check()
    page.locator(f"[name=right][value='{right.pk}']").check()
    _go_on(page)
    page.locator("[name=key-0-left]").select_option("id")
    page.locator("[name=key-0-right]").select_option("client_id")
    page.get_by_role("button", name="Check uniqueness").click()
    expect(page.locator("#ls-key-report .ls-banner-good")).to_have_count(3, timeout=20_000)
    _go_on(page)
    expect(page.locator("#ls-unmapped")).to_contain_text("full_name")
    page.get_by_label("Value for full_name").select_option("field:name")
    expect(page.locator("#ls-unmapped")).not_to_contain_text("full_name", timeout=20_000)
    page.get_by_label("Value for mail").select_option("field:email")
    expect(page.locator("#ls-preview-1")).to_contain_text("Name 1", timeout=20_000)
    expect(page.locator("#ls-preview-2")).to_contain_text("N1@Example", timeout=20_000)
    _go_on(page)
    page.locator("[name=name]").fill("Wizard's own")
    _go_on(page)
    page.get_by_role("button", name="Start the dry run").click()
    expect(page.get_by_text("Queued").first).to_be_visible()
    work_until_finished(Run.objects.get())
    expect(page.get_by_role("link", name="See every change")).to_be_visible(timeout=20_000)
    _go_on(page, "Schedule and enable")
    expect(page.locator("[name=every_minutes]")).to_be_hidden()
    page.locator("[name=schedule_kind]").select_option("every")
    expect(page.locator("[name=cron]")).to_be_hidden()
    page.locator("[name=every_minutes]").fill("15")
    expect(page.locator("#ls-due li")).to_have_count(5, timeout=20_000)
    _go_on(page, "Enable")
    expect(page.get_by_text("is set up").first).to_be_visible()
    assert Rule.objects.get(name="Wizard's own").enabled


def _go_on(page: Page, label: str = "Save and go on") -> None:
    page.get_by_role("button", name=label).click()
    page.wait_for_load_state("load")


def test_no_page_is_wider_than_a_phone(page: Page, pair: Pair):
    user = administrator()
    run = pair.run()
    draft = SyncDraft.objects.create(owner=user)
    sign_in(page)
    page.set_viewport_size(PHONE)
    pages = {
        "admin:index": (),
        "admin:new_sync": (),
        "admin:new_sync_step": (draft.pk, "sources"),
        "admin:sources_source_changelist": (),
        "admin:sources_source_change": (pair.mapping.left.source_id,),
        "admin:sources_dataset_change": (pair.mapping.left_id,),
        "admin:sources_field_changelist": (),
        "admin:mappings_mapping_change": (pair.mapping.pk,),
        "admin:rules_rule_change": (pair.rule.pk,),
        "admin:runs_run_changelist": (),
        "admin:runs_run_change": (run.pk,),
        "admin:runs_run_changes": (run.pk,),
        "admin:ledger_change_change": (Change.objects.first().pk,),
        "admin:ledger_change_find": (),
        "admin:ledger_rejection_change": (Rejection.objects.get().pk,),
        "admin:accounts_user_changelist": (),
    }
    wide = {}
    for name, args in pages.items():
        page.goto(reverse(name, args=args))
        wide[name] = overflow(page)
    assert {name: pixels for name, pixels in wide.items() if pixels > 0} == {}


def test_the_overview_is_used_by_keyboard_and_read_aloud(page: Page, pair: Pair):
    administrator()
    pair.run()
    sign_in(page)
    page.goto("/admin/")
    expect(page.get_by_role("main")).to_be_visible()
    expect(page.get_by_role("img", name="Runs per day over the last 14 days")).to_be_visible()
    account = page.get_by_role("button").filter(has_text="root").first
    account.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_text("Log out").first).to_be_visible()
    page.get_by_text("Show as table").click()
    expect(page.get_by_role("columnheader", name="Succeeded")).to_be_visible()
