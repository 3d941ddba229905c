"""The base of every admin page. The theme is imported here and in `apps.console.site` only."""

from __future__ import annotations

from typing import Any

from django.contrib.admin import AdminSite
from django.db import models
from django.http import HttpRequest
from unfold.admin import ModelAdmin, StackedInline, TabularInline

from apps.core.selectors import scoped


class BaseAdmin(ModelAdmin):  # type: ignore[misc]
    """Scoped querysets, no full counts, no unasked deletion."""

    list_per_page = 50
    show_full_result_count = False
    compressed_fields = True
    warn_unsaved_form = True
    list_filter_submit = False

    def get_queryset(self, request: HttpRequest) -> models.QuerySet[Any]:
        return scoped(super().get_queryset(request), request.user, "view")


class ReadOnlyAdmin(BaseAdmin):
    """For rows that only services write."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


class BaseTabularInline(TabularInline):  # type: ignore[misc]
    extra = 0
    show_change_link = False


class BaseStackedInline(StackedInline):  # type: ignore[misc]
    extra = 0


__all__ = ["AdminSite", "BaseAdmin", "BaseStackedInline", "BaseTabularInline", "ReadOnlyAdmin"]
