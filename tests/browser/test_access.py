"""Grants and masks in a real Chromium: given on either page, revealed once, on phones as well."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from django.contrib.auth.models import Group
from django.urls import reverse
from playwright.sync_api import Page, expect

from apps.accounts.models import Grant, Level
from apps.accounts.services import give_grant, set_tags
from apps.core.models import Tag
from apps.ledger.models import Change, Rejection
from apps.mappings.masking import MASKED
from apps.rules.models import Rule
from tests.browser.chromium import PHONE, overflow, sign_in
from tests.people import administrator, person
from tests.walk.world import SECRET, Realm

pytestmark = [
    pytest.mark.browser,
    pytest.mark.xdist_group("browser"),
    pytest.mark.django_db(transaction=True),
]
PICTURES = os.environ.get("LOCKSTEP_TEST_PICTURES", "")


def picture(page: Page, name: str) -> None:
    """Keep a picture in light and dark, where somebody wants to look."""
    if not PICTURES:
        return
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        page.evaluate(
            "scheme => document.documentElement.classList.toggle('dark', scheme == 'dark')", scheme
        )
        page.screenshot(path=f"{PICTURES}/{name}-{scheme}.png", full_page=True)
    page.emulate_media(color_scheme="light")
    page.evaluate("document.documentElement.classList.remove('dark')")


@pytest.fixture
def realm(tmp_path: Path) -> Realm:
    administrator()
    return Realm.build(tmp_path, "Customers")


def test_a_grant_is_given_and_taken_on_the_page_of_a_rule(page: Page, realm):
    guest = person("guest", reaches_all=False)
    night = Group.objects.create(name="Night shift")
    give_grant(night, Tag.objects.create(name="crm"), Level.RUN, actor=None)
    set_tags(realm.rows[Rule], ["crm"], actor=None)
    sign_in(page)
    page.goto(reverse("admin:rules_rule_change", args=(realm.rows[Rule].pk,)))
    picture(page, "rule")
    page.get_by_role("link", name="Who can see this").click()
    expect(page.get_by_text("Night shift").first).to_be_visible()
    page.get_by_label("Person or role").select_option(f"person:{guest.pk}")
    page.get_by_label("Up to").select_option("2")
    page.get_by_label("Why").fill("ticket 12")
    page.get_by_role("button", name="Grant", exact=True).click()
    expect(page.get_by_role("cell", name="guest").first).to_be_visible()
    picture(page, "access")
    assert Grant.objects.get(person=guest).level == Level.RUN

    page.set_viewport_size(PHONE)
    assert overflow(page) == 0
    picture(page, "access-phone")
    page.set_viewport_size({"width": 1280, "height": 800})
    page.get_by_role("button", name="Take").click()
    page.get_by_role("dialog").get_by_role("button", name="Take").click()
    expect(page.get_by_text("Taken from guest")).to_be_visible()
    assert not Grant.objects.filter(person=guest).exists()


def test_a_grant_is_given_on_the_page_of_a_person(page: Page, realm):
    guest = person("guest", reaches_all=False)
    sign_in(page)
    page.goto(reverse("admin:accounts_user_change", args=(guest.pk,)))
    page.get_by_role("link", name="What is granted").click()
    page.get_by_label("What", exact=True).select_option(label="Customers")
    page.get_by_role("button", name="Grant", exact=True).click()
    expect(page.get_by_role("link", name="Customers", exact=True)).to_be_visible()
    picture(page, "holding")
    assert Grant.objects.get(person=guest).object_id == realm.rows[Rule].pk
    page.set_viewport_size(PHONE)
    assert overflow(page) == 0


def test_personal_values_are_masked_and_revealed_once(page: Page, realm):
    sign_in(page)
    for kind in (Change, Rejection):
        name = kind._meta.model_name
        address = reverse(f"admin:ledger_{name}_change", args=(realm.rows[kind].pk,))
        page.goto(address)
        content = page.content()
        assert MASKED in content
        assert SECRET not in content
        picture(page, f"{name}-masked")
        page.get_by_label("Why you need to see them").fill("ticket 12")
        page.get_by_role("button", name="Reveal").click()
        expect(page.get_by_text("shown this one time")).to_be_visible()
        assert SECRET in page.content()
        picture(page, f"{name}-revealed")
        page.goto(address)
        assert SECRET not in page.content()
    page.set_viewport_size(PHONE)
    assert overflow(page) == 0
    picture(page, "rejection-phone")
