"""A clock that tests of sign-in can put forward."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

import pytest
from django.utils import timezone


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Put the clock forward, such as by `minutes=20`; each call adds."""
    real, passed = timezone.now, timedelta()

    def now() -> datetime:
        return real() + passed

    def put_forward(**units: float) -> None:
        nonlocal passed
        passed += timedelta(**units)

    monkeypatch.setattr(timezone, "now", now)
    for name in ("axes.handlers.proxy.now", "axes.attempts.now"):
        monkeypatch.setattr(name, now)
    return put_forward
