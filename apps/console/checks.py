"""System checks of the console: nothing may have opened the door that two steps guard."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.contrib import admin
from django.core.checks import CheckMessage, Error, register
from django.http import HttpRequest
from oauth2_provider.settings import DEFAULTS

from apps.accounts.models import User
from apps.accounts.selectors import may_be_acted_for
from apps.console.site import LockstepAdminSite


@register("security")
def admin_site_is_ours(**kwargs: Any) -> list[CheckMessage]:
    site = admin.site._wrapped if hasattr(admin.site, "_wrapped") else admin.site
    if admin.site.__class__ is LockstepAdminSite or isinstance(site, LockstepAdminSite):
        return []
    return [
        Error(
            "The admin site is not LockstepAdminSite.",
            hint="INSTALLED_APPS must name unfold.apps.BasicAppConfig, not plain unfold.",
            id="lockstep.E001",
        )
    ]


GUARDS = (
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django_otp.middleware.OTPMiddleware",
    "apps.accounts.middleware.SignInMiddleware",
)
FIRST_BACKEND = "axes.backends.AxesStandaloneBackend"


@register("security")
def a_password_alone_opens_nothing(**kwargs: Any) -> list[CheckMessage]:
    """The site refuses an unverified session, and the middleware that holds one is there."""
    errors: list[CheckMessage] = []
    request = HttpRequest()
    request.user = _UnverifiedAdministrator()  # type: ignore[assignment]
    if admin.site.has_permission(request):
        errors.append(
            Error(
                "The admin site lets people in with a password alone.",
                hint="LockstepAdminSite.has_permission must ask for a verified session.",
                id="lockstep.E002",
            )
        )
    places = [settings.MIDDLEWARE.index(g) for g in GUARDS if g in settings.MIDDLEWARE]
    if len(places) < len(GUARDS) or places != sorted(places):
        errors.append(
            Error(
                "The middleware that asks for a second factor is missing or out of order.",
                hint=f"MIDDLEWARE must name, in this order: {', '.join(GUARDS)}.",
                id="lockstep.E003",
            )
        )
    if settings.AUTHENTICATION_BACKENDS[:1] != [FIRST_BACKEND]:
        errors.append(
            Error(
                "Nothing stops who guesses passwords.",
                hint=f"AUTHENTICATION_BACKENDS must begin with {FIRST_BACKEND}.",
                id="lockstep.E004",
            )
        )
    if settings.SESSION_ENGINE != "apps.accounts.sessions":
        errors.append(
            Error(
                "Sessions are kept where nobody can list or end them.",
                hint='SESSION_ENGINE must be "apps.accounts.sessions".',
                id="lockstep.E005",
            )
        )
    return errors


@register("security")
def no_token_goes_around_the_second_factor(**kwargs: Any) -> list[CheckMessage]:
    """A program cannot act as a person who has no second factor, whatever else may be."""
    administrator = User(is_staff=True, is_superuser=True)
    if not may_be_acted_for(administrator, has_factor=False):
        return []
    return [
        Error(
            "Tokens act as people who have no second factor.",
            hint="accounts.selectors.may_be_acted_for must ask for one.",
            id="lockstep.E006",
        )
    ]


AUTHENTICATION = ["apps.api.authentication.BearerAuthentication"]
PERMISSION = ["apps.api.authorization.ScopeAndPermission"]


@register("security")
def the_api_is_opened_by_tokens_alone(**kwargs: Any) -> list[CheckMessage]:
    """No session, no password; and an operation that says nothing is closed."""
    found = settings.REST_FRAMEWORK
    if (
        found.get("DEFAULT_AUTHENTICATION_CLASSES") == AUTHENTICATION
        and found.get("DEFAULT_PERMISSION_CLASSES") == PERMISSION
    ):
        return []
    return [
        Error(
            "Something else than tokens opens the API, or it asks for no scope.",
            hint=f"REST_FRAMEWORK must name {AUTHENTICATION[0]} and {PERMISSION[0]}, alone.",
            id="lockstep.E007",
        )
    ]


@register("security")
def oauth_keeps_to_best_practice(**kwargs: Any) -> list[CheckMessage]:
    """RFC 9700: what the library would only warn of is on, and no scope comes by itself."""
    found = settings.OAUTH2_PROVIDER
    practices = [name for name in DEFAULTS if name.startswith("COMPLIANT_BCP_RFC9700_")]
    is_strict = (
        all(found.get(name) is True for name in practices)
        and found.get("DEFAULT_SCOPES") == []
        and found.get("REFRESH_TOKEN_REUSE_PROTECTION") is True
    )
    if is_strict:
        return []
    return [
        Error(
            "OAuth 2.0 is looser than its best current practice.",
            hint="OAUTH2_PROVIDER must set every COMPLIANT_BCP_RFC9700_… of the library, "
            "REFRESH_TOKEN_REUSE_PROTECTION, and no DEFAULT_SCOPES.",
            id="lockstep.E008",
        )
    ]


class _UnverifiedAdministrator:
    """Somebody who has given the right password, and nothing else."""

    is_active = is_staff = is_superuser = is_authenticated = True

    def is_verified(self) -> bool:
        return False
