"""Lookup tables: values that expressions translate."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import Count
from django.http import HttpRequest
from unfold.decorators import display

from apps.core.admin import BaseTabularInline, HistoryAdmin, NextStep
from apps.core.templatetags.lockstep import ago
from apps.mappings.models import LookupEntry, LookupTable


class LookupEntryInline(BaseTabularInline):
    model = LookupEntry
    fields = ("key", "value")
    extra = 1
    hide_title = True


@admin.register(LookupTable)
class LookupTableAdmin(HistoryAdmin):
    """Tables that expressions use as lookup('name', value)."""

    audited_as = "lookup"
    list_display = ("name", "description", "entry_count", "changed")
    search_fields = ("name", "description")
    inlines = (LookupEntryInline,)
    nothing_yet = NextStep(
        "No lookup tables yet. One translates values, such as country names to codes; an "
        "expression uses it as lookup('name', value).",
        "Add a lookup table",
        "admin:mappings_lookuptable_add",
        "menu_book",
        "mappings.add_lookuptable",
    )

    def get_queryset(self, request: HttpRequest) -> Any:
        return super().get_queryset(request).annotate(entry_total=Count("entries"))

    @display(description="Entries", ordering="entry_total")
    def entry_count(self, table: Any) -> int:
        return table.entry_total

    @display(description="Changed", ordering="updated_at")
    def changed(self, table: LookupTable) -> str:
        return ago(table.updated_at)
