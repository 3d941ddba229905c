"""What every test in Chromium needs: signing in, the size of a phone, width."""

from __future__ import annotations

from playwright.sync_api import Page

from apps.accounts.models import User
from tests.people import PASSWORD, code_of, enrolled

PHONE = {"width": 390, "height": 844}


def sign_in(page: Page, name: str = "root", password: str = PASSWORD) -> None:
    """Both steps; the first one only for who has a one-time password."""
    user = User.objects.get(username=name)
    app = None if user.must_change_password else enrolled(user)
    page.goto("/admin/login/")
    page.get_by_label("Username").fill(name)
    page.locator("[name=password]").fill(password)
    page.get_by_role("button", name="Log in").click()
    if app is not None:
        page.locator("[name=code]").fill(code_of(app))
        page.get_by_role("button", name="Sign in").click()
        page.wait_for_url(lambda address: "/login/" not in address)


def overflow(page: Page) -> int:
    return int(page.evaluate("document.documentElement.scrollWidth - window.innerWidth"))
