"""The system checks notice when the door that two steps guard stands open."""

from __future__ import annotations

import pytest
from django.contrib import admin
from django.core.checks import run_checks
from unfold.sites import UnfoldAdminSite

from apps.console import checks
from apps.console.site import LockstepAdminSite


def found() -> set[str]:
    return {m.id for m in run_checks(tags=["security"]) if m.id.startswith("lockstep.")}


def test_all_is_well():
    assert found() == set()


def test_the_site_is_ours():
    """The theme's default configuration would have put its own in this place, silently."""
    assert isinstance(admin.site._wrapped, LockstepAdminSite)


def test_a_theme_that_takes_the_place_of_our_site_is_noticed(monkeypatch):
    monkeypatch.setattr(admin, "site", UnfoldAdminSite())

    assert found() == {"lockstep.E001", "lockstep.E002"}


def test_a_site_that_asks_for_less_is_noticed(monkeypatch):
    monkeypatch.setattr(LockstepAdminSite, "has_permission", lambda site, request: True)

    assert "lockstep.E002" in found()


@pytest.mark.parametrize(
    "left_out", ["django_otp.middleware.OTPMiddleware", "apps.accounts.middleware.SignInMiddleware"]
)
def test_middleware_that_is_missing_is_noticed(settings, left_out):
    settings.MIDDLEWARE = [name for name in settings.MIDDLEWARE if name != left_out]

    assert found() == {"lockstep.E003"}


def test_middleware_in_the_wrong_order_is_noticed(settings):
    settings.MIDDLEWARE = settings.MIDDLEWARE[::-1]

    assert "lockstep.E003" in found()


def test_guessing_that_nobody_stops_is_noticed(settings):
    settings.AUTHENTICATION_BACKENDS = ["django.contrib.auth.backends.ModelBackend"]

    assert "lockstep.E004" in found()


def test_sessions_that_nobody_can_end_are_noticed(settings):
    settings.SESSION_ENGINE = "django.contrib.sessions.backends.signed_cookies"

    assert "lockstep.E005" in found()


def test_tokens_of_people_without_a_second_factor_are_noticed(monkeypatch):
    monkeypatch.setattr(checks, "may_be_acted_for", lambda account, has_factor: True)

    assert found() == {"lockstep.E006"}


@pytest.mark.parametrize(
    "changes",
    [
        {"DEFAULT_AUTHENTICATION_CLASSES": ["rest_framework.authentication.BasicAuthentication"]},
        {"DEFAULT_PERMISSION_CLASSES": []},
    ],
)
def test_another_way_into_the_api_is_noticed(settings, changes):
    settings.REST_FRAMEWORK = {**settings.REST_FRAMEWORK, **changes}

    assert found() == {"lockstep.E007"}


@pytest.mark.parametrize(
    "changes",
    [
        {"COMPLIANT_BCP_RFC9700_TOKEN_STORAGE": False},
        {"DEFAULT_SCOPES": ["__all__"]},
        {"REFRESH_TOKEN_REUSE_PROTECTION": False},
    ],
)
def test_looser_oauth_is_noticed(settings, changes):
    settings.OAUTH2_PROVIDER = {**settings.OAUTH2_PROVIDER, **changes}

    assert "lockstep.E008" in found()
