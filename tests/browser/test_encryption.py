"""The page of the keys in a real Chromium: proving, rotating, phones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from django.urls import reverse
from playwright.sync_api import Page, expect

from apps.core.models import DataKey
from apps.encryption import tasks
from apps.encryption.models import Rotation
from tests.browser.chromium import PHONE, overflow, sign_in
from tests.people import administrator
from tests.platforms import PLAIN_FIELDS, Pair

pytestmark = [
    pytest.mark.browser,
    pytest.mark.xdist_group("browser"),
    pytest.mark.django_db(transaction=True),
]


def test_everything_is_proved_and_a_rotation_is_asked_for(
    page: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    told: list[Any] = []
    monkeypatch.setattr(tasks.prove, "delay", lambda user_id: told.append(tasks.prove(user_id)))
    monkeypatch.setattr(tasks.rotate, "delay", lambda: told.append("rotate"))
    pair = Pair(tmp_path, fields=PLAIN_FIELDS)
    pair.add_customers(3)
    pair.run()
    administrator()
    sign_in(page)
    page.goto(reverse("admin:core_datakey_changelist"))
    expect(page.get_by_text("Not proved yet")).to_be_visible()

    page.get_by_role("button", name="Prove now").click()
    expect(page.get_by_text("Everything stored is encrypted")).to_be_visible()
    expect(page.get_by_role("cell", name="ledger.change.sealed_images")).to_be_visible()

    page.get_by_role("button", name="Rotate").click()
    page.get_by_role("dialog").get_by_role("button", name="Rotate").click()
    expect(page.get_by_text("Everything is encrypted anew with")).to_be_visible()
    assert Rotation.objects.get().key == DataKey.objects.get(purpose="values", state="active")
    assert told == [None, "rotate"]

    page.set_viewport_size(PHONE)
    assert overflow(page) <= 0
