"""What every test in Chromium needs: signing in, the size of a phone, width."""

from __future__ import annotations

from playwright.sync_api import Page

from tests.people import PASSWORD

PHONE = {"width": 390, "height": 844}


def sign_in(page: Page, name: str = "root", password: str = PASSWORD) -> None:
    page.goto("/admin/login/")
    page.get_by_label("Username").fill(name)
    page.locator("[name=password]").fill(password)
    page.get_by_role("button", name="Log in").click()


def overflow(page: Page) -> int:
    return int(page.evaluate("document.documentElement.scrollWidth - window.innerWidth"))
