"""The rule's form: its sections by concern, and where errors of services belong."""

from __future__ import annotations

from apps.core.admin import ServiceForm
from apps.rules.models import Rule

ONLY_TWO_WAY = "ls-only-two-way"  # sections that the page's script hides for other directions

LABELS = {  # as those of the other guards
    "max_rejections": "Most rejections",
    "max_rejections_percent": "Most rejections (%)",
}

FIELDSETS = (
    (None, {"fields": ("name", "mapping", "direction", "description")}),
    (
        "When it runs",
        {
            "fields": (
                "schedule_kind",
                ("every_minutes", "daily_at"),
                ("cron", "time_zone"),
                ("verify_hours", "depends_on"),
            )
        },
    ),
    ("What takes part", {"fields": ("filter", "on_leave")}),
    (
        "How differences are found",
        {
            "fields": (
                "delta",
                ("cursor_field", "cursor_lag_seconds"),
                ("sweep_minutes", "right_cursor_field"),
            )
        },
    ),
    ("Deletes", {"fields": ("on_delete", ("mark_field", "mark_value"))}),
    (
        "Deletes on the right",
        {
            "classes": (ONLY_TWO_WAY,),
            "fields": ("on_right_delete", ("left_mark_field", "left_mark_value")),
        },
    ),
    (
        "Conflicts: who wins where both sides changed",
        {
            "classes": (ONLY_TWO_WAY,),
            "fields": (
                ("policy", "first_contact"),
                "edit_delete",
                ("left_modified", "right_modified"),
                ("minimum_gap_seconds", "tie"),
            ),
        },
    ),
    (
        "Guards: judged on the whole plan, before anything is written",
        {
            "fields": (
                ("max_deletes", "max_deletes_percent"),
                ("max_changes", "max_changes_percent"),
                ("max_rejections", "max_rejections_percent"),
                "refuse_empty_source",
            )
        },
    ),
    (
        "Approval: when a plan waits for a person",
        {"fields": (("approval", "approval_hours"), "four_eyes")},
    ),
)


class RuleForm(ServiceForm):
    """What services refuse is shown beside the field that it is about."""

    error_fields = {
        "left mark": "left_mark_field",
        "left modification": "left_modified",
        "right modification": "right_modified",
        "right cursor": "right_cursor_field",
        "when a right record": "on_right_delete",
        "when a left record": "on_delete",
        "direction": "direction",
        "cursor": "cursor_field",
        "schedule": "schedule_kind",
        "time zone": "time_zone",
        "filter": "filter",
        "mark": "mark_field",
    }

    class Meta:
        model = Rule
        fields = "__all__"
        labels = LABELS
