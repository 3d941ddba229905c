"""Puts our admin site in the place of Django's."""

from django.contrib.admin.apps import AdminConfig


class LockstepAdminConfig(AdminConfig):
    default_site = "apps.console.site.LockstepAdminSite"
