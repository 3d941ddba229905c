"""Escalation policies: when something is a problem, and who is told of it."""

from __future__ import annotations

from typing import Any
from zoneinfo import available_timezones

from django import forms
from django.contrib import admin
from django.http import HttpRequest
from unfold.decorators import display

from apps.alerts.models import EscalationPolicy, EscalationStep
from apps.core.admin import BaseAdmin, BaseStackedInline, HistoryAdmin, NextStep


class PolicyForm(forms.ModelForm):  # type: ignore[type-arg]
    """Working hours have to be some."""

    def clean_time_zone(self) -> str:
        name: str = self.cleaned_data["time_zone"]
        if name not in available_timezones():
            raise forms.ValidationError("There is no such time zone: give one like Europe/Berlin.")
        return name

    def clean(self) -> dict[str, Any]:
        given: dict[str, Any] = super().clean() or self.cleaned_data
        begin, end = given.get("work_from"), given.get("work_until")
        if begin is not None and begin == end:
            self.add_error("work_until", "Working hours end when they begin: leave both empty.")
        return given


class StepInline(BaseStackedInline):
    model = EscalationStep
    extra = 0
    autocomplete_fields = ("people", "groups")
    fields = ("after_minutes", "channel", "people", "groups")


@admin.register(EscalationPolicy)
class EscalationPolicyAdmin(HistoryAdmin, BaseAdmin):
    audited_as = "escalation"
    form = PolicyForm
    inlines = (StepInline,)
    parts = frozenset({"escalation step"})
    list_display = ("name", "is_default", "steps_told", "fresh_minutes", "most_rejections")
    search_fields = ("name",)
    filter_horizontal = ("rules", "tags")
    nothing_yet = NextStep(
        "Nobody is told of incidents yet. A policy says who is, and when.",
        "Add an escalation policy",
        "admin:alerts_escalationpolicy_add",
        "campaign",
        "alerts.add_escalationpolicy",
    )
    fieldsets = (
        (None, {"fields": ("name", "is_default", "rules", "tags")}),
        (
            "What is a problem",
            {
                "fields": (
                    "fresh_minutes",
                    "most_rejections",
                    "most_conflicts",
                    "conflict_hours",
                )
            },
        ),
        (
            "When people are told",
            {
                "fields": (
                    "least_severity",
                    "repeat_minutes",
                    "time_zone",
                    "work_days",
                    "work_from",
                    "work_until",
                )
            },
        ),
    )

    @display(description="Steps")
    def steps_told(self, policy: EscalationPolicy) -> str:
        return ", ".join(str(step) for step in policy.steps.select_related("channel")) or "nobody"

    def get_queryset(self, request: HttpRequest) -> Any:
        return super().get_queryset(request).prefetch_related("steps__channel")
