"""No page needs what the Content-Security-Policy forbids, and no text of anybody runs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.sync_api import Dialog, Page, expect

from apps.accounts.models import User
from apps.sources.models import Source
from apps.sources.services import discover
from tests.browser import hostile
from tests.browser.chromium import sign_in
from tests.identity_provider import ISSUER, installed
from tests.people import administrator, signed_in
from tests.walk.routes import every_route, path_of
from tests.walk.world import World

pytestmark = [
    pytest.mark.browser,
    pytest.mark.xdist_group("browser"),
    pytest.mark.django_db(transaction=True),
]


# Django's and the theme's own pages, the same for each model: one of each is enough.
ALIKE = re.compile(r"(?!admin:rules_rule_|.*simple_).*_(history|delete|add)")


def pages(world: World) -> Iterator[tuple[str, str]]:
    """One of each kind of page, by its label, with its address; what a GET shows to people."""
    client = signed_in(User.objects.get(username="root"))
    for route in every_route():
        is_page = route.name.startswith("admin:") and not route.variant
        if not is_page or route.name == "admin:logout" or ALIKE.fullmatch(route.name):
            continue
        path = path_of(route, world, world.mine)
        answer = client.get(path)
        if answer.status_code == 200 and answer.headers["Content-Type"].startswith("text/html"):
            yield route.label, path


def test_no_text_of_anybody_becomes_part_of_a_page(page: Page, tmp_path: Path) -> None:
    """Payloads stand in every text that pages show. The page fixture fails on any violation."""
    world = hostile.build(tmp_path)
    discover(Source.objects.earliest("created_at"), actor=None)
    page.route("**/favicon.ico", lambda route: route.fulfill(status=204))  # of parts of pages
    dialogs: list[Dialog] = []
    page.on("dialog", lambda dialog: (dialogs.append(dialog), dialog.dismiss()))
    sign_in(page)
    seen, injected = 0, []
    for label, path in list(pages(world)):
        page.goto(path, wait_until="domcontentloaded")
        seen += hostile.MARK in page.content()
        found = page.locator(", ".join(hostile.INJECTED)).count()
        if found or page.evaluate(f"typeof {hostile.MARK} !== 'undefined'"):
            injected.append(label)
    assert injected == []
    assert dialogs == []
    assert seen > 40, "the payloads were hardly shown"


def test_what_is_injected_all_the_same_does_not_run(browser: Any, live_server: Any) -> None:
    """The last line: a script that has become part of a page is stopped by the browser."""
    administrator()
    page = browser.new_context(base_url=live_server.url).new_page()
    sign_in(page)
    page.goto("/admin/")
    stopped = page.evaluate(
        """() => new Promise((resolve) => {
            const violated = [];
            document.addEventListener("securitypolicyviolation", (event) => {
                violated.push(event.effectiveDirective);
                if (violated.length === 3) resolve(violated.sort());
            });
            document.body.insertAdjacentHTML("beforeend", "<a onclick='pwned = 1'></a>");
            document.body.lastChild.click();
            const script = document.createElement("script");
            script.textContent = "pwned = 1";
            document.body.append(script);
            const foreign = document.createElement("script");
            foreign.src = "https://foreign.example/a.js";
            document.body.append(foreign);
        })"""
    )
    assert stopped == ["script-src-attr", "script-src-elem", "script-src-elem"]
    assert page.evaluate("typeof pwned") == "undefined"
    page.context.close()


def test_single_sign_on_is_reached_from_a_form(page: Page, monkeypatch: Any, settings: Any) -> None:
    """Forms may lead to ourselves only, and a redirect would count as where the form leads."""
    provider = installed(monkeypatch, settings)
    page.route(f"{ISSUER}/**", lambda route: route.fulfill(body="Who are you?"))
    page.goto("/admin/login/")
    page.get_by_role("button", name="Example ID").click()
    expect(page.get_by_text("Who are you?")).to_be_visible()
    assert "state" in parse_qs(urlsplit(page.url).query)
    assert provider.approve(page.url)["code"]
