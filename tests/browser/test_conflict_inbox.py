"""The conflict inbox in a real Chromium, worked through by keyboard alone."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from django.urls import reverse
from playwright.sync_api import Page, expect

from apps.ledger.models import Conflict
from tests.browser.chromium import PHONE, overflow, sign_in
from tests.people import administrator
from tests.two_way import TwoWay

pytestmark = [
    pytest.mark.browser,
    pytest.mark.xdist_group("browser"),
    pytest.mark.django_db(transaction=True),
]
NAME, MAIL, PHONE_FIELD = "display_name", "email_address", "phone"


@pytest.fixture
def pair(tmp_path: Path) -> TwoWay:
    return TwoWay(tmp_path)


def inbox(page: Page) -> None:
    administrator()
    sign_in(page)
    page.goto(reverse("admin:ledger_conflict_changelist"))


def press(page: Page, *keys: str) -> None:
    for one in keys:
        page.keyboard.press(one)


def decided(conflict: Conflict) -> dict:
    conflict.refresh_from_db()
    return conflict.decision


def taken(conflict: Conflict) -> dict:
    return {name: choice["take"] for name, choice in decided(conflict)["fields"].items()}


def test_the_inbox_is_worked_through_by_keyboard_alone(page: Page, pair: TwoWay):
    both, phone, credit = pair.meet(
        pair.disagreement(3, {"credit": "130"}, {"credit": "99"}),
        pair.disagreement(2, {PHONE_FIELD: "+34 1"}, {PHONE_FIELD: "+34 2"}),
        pair.disagreement(1, {NAME: "L", MAIL: "l@x.org"}, {NAME: "R", MAIL: "r@x.org"}),
    )
    inbox(page)
    for _ in range(3):
        conflict = Conflict.objects.filter(state="open").order_by("-pk").first()
        expect(page.locator("#ls-conflict-title")).to_have_text(str(conflict).split('"')[1])
        expect(page.locator("[data-ls-field]").first.locator("input").first).to_be_focused()
        if conflict == both:
            press(page, "1", "ArrowDown", "2", "Enter")
        elif conflict == phone:
            press(page, "e")
            page.keyboard.type("+34 3")
            press(page, "Enter")
        else:
            press(page, "Shift+2", "Enter")
        expect(page.get_by_text("Decided:").first).to_be_visible()
    expect(page.get_by_text("All clear, last conflict")).to_be_visible()
    assert taken(both) == {NAME: "left", MAIL: "right"}
    assert decided(phone)["fields"] == {PHONE_FIELD: {"take": "value", "value": "+34 3"}}
    assert taken(credit) == {"credit": "right"}


def test_the_other_kinds_are_decided_by_keyboard_too(page: Page, pair: TwoWay):
    conflicts = {c.kind: c for c in pair.of_every_kind()}
    inbox(page)
    for kind in ("match", "edit_delete", "delete", "in_doubt"):
        page.goto(reverse("admin:ledger_conflict_changelist") + f"?kind={kind}")
        press(page, "2", "Enter")
        expect(page.get_by_text("Decided:").first).to_be_visible()
    assert decided(conflicts["match"])["match"] == '["702"]'
    assert {decided(conflicts[kind])["record"] for kind in ("edit_delete", "delete")} == {"right"}


def test_j_and_k_walk_and_the_question_mark_explains(page: Page, pair: TwoWay):
    pair.of_every_kind()
    in_order = list(Conflict.objects.order_by("-pk"))
    inbox(page)
    press(page, "j")
    expect(page).to_have_url(re.compile(str(in_order[1].pk)))
    press(page, "j")
    expect(page).to_have_url(re.compile(str(in_order[2].pk)))
    press(page, "k")
    expect(page).to_have_url(re.compile(str(in_order[1].pk)))
    press(page, "?")
    expect(page.get_by_role("dialog", name="Keys")).to_be_visible()
    press(page, "Escape")
    expect(page.get_by_role("dialog", name="Keys")).to_be_hidden()


def test_enter_leads_to_the_field_that_is_not_decided(page: Page, pair: TwoWay):
    pair.meet(pair.disagreement(1, {NAME: "L", MAIL: "l@x"}, {NAME: "R", MAIL: "r@x"}))
    inbox(page)
    press(page, "1", "Enter")
    second = page.get_by_role("radiogroup", name=MAIL).locator("input").first
    expect(second).to_be_focused()
    assert Conflict.objects.filter(state="open").count() == 1


def test_letters_typed_into_a_value_are_no_commands(page: Page, pair: TwoWay):
    pair.meet(pair.disagreement(1, {NAME: "L"}, {NAME: "R"}))
    inbox(page)
    press(page, "e")
    page.keyboard.type("jk12e?")
    press(page, "Escape")
    expect(page.get_by_label(f"Own value for {NAME}")).to_have_value("jk12e?")
    press(page, "Enter")
    expect(page.get_by_text("Decided:").first).to_be_visible()
    assert Conflict.objects.get().decision["fields"][NAME]["value"] == "jk12e?"


def test_a_value_that_moved_is_shown_beside_the_choice(page: Page, pair: TwoWay):
    pair.meet(pair.disagreement(1, {NAME: "L"}, {NAME: "R"}))
    inbox(page)
    pair.meet(pair.disagreement(1, {NAME: "L"}, {NAME: "Renewed"}))
    press(page, "1", "Enter")
    expect(page.get_by_role("alert")).to_contain_text("changed since you looked")
    expect(page.get_by_text("Renewed")).to_be_visible()
    expect(page.get_by_label(f"{NAME} from CRM")).to_be_checked()


def test_the_inbox_fits_a_phone(page: Page, pair: TwoWay):
    pair.of_every_kind()
    inbox(page)
    page.set_viewport_size(PHONE)
    wide = {}
    for conflict in Conflict.objects.all():
        page.goto(reverse("admin:ledger_conflict_change", args=(conflict.pk,)))
        wide[conflict.kind] = overflow(page)
    page.goto(reverse("admin:ledger_conflict_bulk") + "?choice=left")
    wide["bulk"] = overflow(page)
    assert {name: pixels for name, pixels in wide.items() if pixels > 0} == {}
