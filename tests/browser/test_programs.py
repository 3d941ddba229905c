"""Tokens, the interactive page of the API and consent, in a real Chromium."""

from __future__ import annotations

from urllib.parse import urlencode

import pytest
from django.urls import reverse
from playwright.sync_api import Page, expect

from apps.accounts.models import Token
from apps.rules.models import Rule
from tests.api.test_oauth import BACK, challenge, client_of
from tests.browser.chromium import PHONE, overflow, sign_in
from tests.people import administrator
from tests.platforms import Pair

pytestmark = [
    pytest.mark.browser,
    pytest.mark.xdist_group("browser"),
    pytest.mark.django_db(transaction=True),
]


def test_a_token_is_made_tried_and_revoked(page: Page, tmp_path):
    Pair(tmp_path)
    administrator()
    sign_in(page)
    page.goto(reverse("admin:tokens"))
    page.get_by_label("Name").fill("backup")
    page.get_by_label("rules:read").check()
    page.get_by_role("button", name="Make the token").click()
    expect(page.get_by_role("button", name="Copy the token")).to_be_visible()
    text = page.locator(".ls-mono.ls-strong").inner_text()

    page.goto(reverse("api:docs"))
    page.get_by_role("button", name="Authorize").click()
    page.get_by_label("auth-bearer-value").fill(text)
    page.get_by_role("button", name="Apply credentials").first.click()
    page.get_by_role("button", name="Close").first.click()
    page.get_by_text("List rules").click()
    page.get_by_role("button", name="Try it out").click()
    page.get_by_role("button", name="Execute").click()
    expect(page.locator(".live-responses-table")).to_contain_text(str(Rule.objects.get().pk))

    page.goto(reverse("admin:tokens"))
    page.set_viewport_size(PHONE)
    assert overflow(page) <= 0
    page.get_by_role("button", name="Revoke").click()
    page.locator("dialog").get_by_role("button", name="Revoke").click()
    expect(page.get_by_text("backup is revoked.")).to_be_visible()
    assert Token.objects.get().state == Token.State.REVOKED


def test_a_client_is_let_in_by_consent(page: Page):
    administrator()
    client, _ = client_of()
    sign_in(page)
    page.route(f"{BACK}*", lambda route: route.fulfill(body="back"))
    asked = {
        "response_type": "code",
        "client_id": client.client_id,
        "redirect_uri": BACK,
        "scope": "rules:read",
        "state": "s",
        "code_challenge": challenge(),
        "code_challenge_method": "S256",
    }
    page.set_viewport_size(PHONE)
    page.goto(f"{reverse('oauth2_provider:authorize')}?{urlencode(asked)}")
    expect(page.get_by_text("Reports wants to act as root")).to_be_visible()
    assert overflow(page) <= 0
    page.get_by_role("button", name="Let it in").click()
    page.wait_for_url(lambda address: address.startswith(BACK) and "code=" in address)
