"""System checks of the console: the theme must not have replaced our admin site."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.core.checks import CheckMessage, Error, register

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
