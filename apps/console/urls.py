"""Own pages under /admin/, beside those of the model admins."""

from __future__ import annotations

from django.contrib.admin import AdminSite
from django.urls import URLPattern


def urlpatterns(site: AdminSite) -> list[URLPattern]:
    return []
