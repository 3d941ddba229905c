"""Signing in as people see it: the first start, a passkey, a phone, a dangerous act."""

from __future__ import annotations

import re

import pytest
from django.urls import reverse
from playwright.sync_api import Page, expect

from apps.accounts.models import AuthenticatorApp, Passkey, User
from apps.accounts.services import create_administrator, invite
from tests.browser.chromium import PHONE, overflow, sign_in
from tests.people import administrator, code_of, enrolled, person

pytestmark = [
    pytest.mark.browser,
    pytest.mark.xdist_group("browser"),
    pytest.mark.django_db(transaction=True),
]
OWN = "a much better phrase"
KEY_OF_THIS_COMPUTER = {
    "protocol": "ctap2",
    "transport": "internal",
    "hasResidentKey": True,
    "hasUserVerification": True,
    "isUserVerified": True,
    "automaticPresenceSimulation": True,
}


@pytest.fixture
def key(page: Page) -> None:
    """A passkey authenticator that says yes."""
    developer = page.context.new_cdp_session(page)
    developer.send("WebAuthn.enable")
    developer.send("WebAuthn.addVirtualAuthenticator", {"options": KEY_OF_THIS_COMPUTER})


def first_password(page: Page, one_time: str) -> None:
    sign_in(page, "admin", one_time)
    expect(page).to_have_url(re.compile("/admin/password_change/$"))
    page.get_by_label("One-time password").fill(one_time)
    page.get_by_label("New password", exact=True).fill(OWN)
    page.get_by_label("New password again").fill(OWN)
    page.get_by_role("button", name="Change password").click()
    expect(page).to_have_url(re.compile("/admin/enrol/$"))


def test_the_first_start_leads_step_by_step(page: Page):
    _, one_time = create_administrator()
    first_password(page, str(one_time))
    page.goto("/admin/runs/run/")
    expect(page.get_by_role("img", name="QR code")).to_be_visible()
    app = AuthenticatorApp.objects.get(confirmed=False)
    page.get_by_label("Code", exact=True).fill(code_of(app))
    page.get_by_role("button", name="Confirm").click()
    expect(page.locator(".ls-codes li")).to_have_count(10)
    page.get_by_role("link", name="I have kept them").click()
    expect(page.get_by_role("heading", name="To your first sync")).to_be_visible()


def test_a_passkey_is_enrolled_and_lets_in(page: Page, key: None):
    _, one_time = create_administrator()
    first_password(page, str(one_time))
    page.get_by_role("link", name="Use a passkey instead").click()
    page.get_by_label("Name").fill("Laptop")
    page.get_by_role("button", name="Make a passkey").click()
    expect(page.locator(".ls-codes li")).to_have_count(10)
    assert Passkey.objects.get().name == "Laptop"
    page.context.clear_cookies()
    page.goto("/admin/login/")
    page.get_by_label("Username").fill("admin")
    page.get_by_label("Password").fill(OWN)
    page.get_by_role("button", name="Log in").click()
    page.get_by_role("button", name="Use a passkey").click()
    expect(page.get_by_role("heading", name="To your first sync")).to_be_visible()


def test_an_invitation_leads_to_the_enrolment(page: Page):
    token = invite(person("grace"), actor=None)
    page.goto(reverse("admin:invitation", args=(token,)))
    page.get_by_label("Password", exact=True).fill(OWN)
    page.get_by_label("Password again").fill(OWN)
    page.get_by_role("button", name="Go on").click()
    expect(page.get_by_role("img", name="QR code")).to_be_visible()


def test_removing_a_factor_asks_first(page: Page):
    root = administrator()
    sign_in(page)
    AuthenticatorApp.with_new_seed(user=root, name="Old phone").save()
    page.goto(reverse("admin:security"))
    page.get_by_role("row", name="Old phone").get_by_role("button", name="Remove").click()
    page.get_by_role("dialog").get_by_role("button", name="Remove").click()
    expect(page.get_by_text("Old phone is removed")).to_be_visible()
    assert [app.name for app in AuthenticatorApp.objects.all()] == ["Phone"]


def test_no_page_of_the_door_is_wider_than_a_phone(page: Page, key: None):
    root = administrator()
    page.set_viewport_size(PHONE)
    wide = {}

    def look(name: str, *args: str) -> None:
        page.goto(reverse(f"admin:{name}", args=args))
        wide[name] = overflow(page)

    look("login")
    look("invitation", invite(person("grace"), actor=None))
    look("invitation", "unknown")
    sign_in(page)
    for name in ("enrol", "enrol_passkey", "security", "confirm", "accounts_user_add"):
        look(name)
    User.objects.filter(pk=root.pk).update(must_change_password=True)
    look("password_change")
    assert enrolled(root).confirmed
    assert {name: pixels for name, pixels in wide.items() if pixels > 0} == {}
