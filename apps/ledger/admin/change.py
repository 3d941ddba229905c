"""Changes: what was planned and written, record by record."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import URLPattern, path
from django.views.decorators.http import require_POST
from unfold.decorators import display

from apps.core.admin import Chip, InfinitePaginator, NextStep, ReadOnlyAdmin
from apps.core.templatetags.lockstep import ago, record_key, status
from apps.engine.types_sql import key_text
from apps.ledger.admin.records import RecordPages
from apps.ledger.admin.records.pages import record_url
from apps.ledger.admin.revealing import begin_reveal, is_revealed, revealing
from apps.ledger.admin.rule_names import RuleFilter, with_rule_names
from apps.ledger.models import Change
from apps.ledger.selectors import change_by_id, change_id, key_hash, masked, record_changes
from apps.ledger.selectors.record_family import Address
from apps.rules.selectors import reaches_rule
from apps.runs.admin.changes import field_diffs
from apps.runs.models import Run

EARLIER = 21  # with the change itself


@admin.register(Change)
class ChangeAdmin(RecordPages, ReadOnlyAdmin):
    """One record's planned or applied difference."""

    list_display = ("record", "what", "why", "result", "rule", "planned", "settled")
    list_filter = (RuleFilter, "operation", "outcome", "cause")
    search_fields = ("right_key",)
    search_help_text = "The whole key of a record"
    ordering = ("-id",)
    paginator = InfinitePaginator
    nothing_yet = NextStep(
        "No changes yet: they are kept for every run, dry or real, one row per record.",
        "Go to the rules",
        "admin:rules_rule_changelist",
        "difference",
        "rules.view_rule",
    )

    def own_urls(self) -> list[URLPattern]:
        reveal = self.admin_site.admin_view(require_POST(self.reveal_view))
        return [
            *self.record_urls(),
            path("<str:object_id>/reveal/", reveal, name=self.url_name("reveal")),
        ]

    def get_queryset(self, request: HttpRequest) -> Any:
        return with_rule_names(super().get_queryset(request))

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        """By the whole key, through its hash: a part of a key would read the whole table."""
        if search_term:
            texts = (search_term.strip(), key_text([search_term.strip()]))
            queryset = queryset.filter(right_hash__in=[key_hash(text) for text in texts])
        return queryset, False

    def chips(self, request: HttpRequest) -> list[Chip]:
        return Chip.for_choices(request, "outcome", Change.Outcome.choices)

    def get_object(
        self, request: HttpRequest, object_id: str, from_field: str | None = None
    ) -> Change | None:
        """From either shelf: a change has one id, wherever it lies."""
        number = change_id(object_id)
        if number is None or not self.has_view_permission(request):
            return None
        change = change_by_id(number)
        return change if change and reaches_rule(request.user, change.rule_id) else None

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """By its rule: on the segment shelf it has no row that could be asked for."""
        allowed: bool = super().has_view_permission(request)
        return allowed and (obj is None or reaches_rule(request.user, obj.rule_id))

    @display(description="Record")
    def record(self, change: Change) -> str:
        return record_key(change.right_key)

    @display(description="Change", ordering="operation")
    def what(self, change: Change) -> str:
        return status(change.operation, change.get_operation_display())

    @display(description="Cause", ordering="cause")
    def why(self, change: Change) -> str:
        return change.get_cause_display()

    @display(description="Outcome", ordering="outcome")
    def result(self, change: Change) -> str:
        return status(change.outcome, change.get_outcome_display())

    @display(description="Rule")
    def rule(self, change: Any) -> str:
        return change.rule_name or "removed rule"

    @display(description="Planned")
    def planned(self, change: Change) -> str:
        return ago(change.planned_at)

    @display(description="Settled")
    def settled(self, change: Change) -> str:
        return ago(change.settled_at, "not yet")

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        change = self.object_or_404(request, object_id)
        masked([change], revealed=is_revealed(request))
        run = Run.objects.filter(pk=change.run_id).select_related("rule__mapping__right").first()
        known = record_changes(
            [change.rule_id], left_key=change.left_key, right_key=change.right_key, limit=EARLIER
        )
        earlier = [other for other in known if other.planned_at < change.planned_at]
        return self.render_page(
            request,
            "lockstep/ledger/change_page.html",
            change,
            title=f"{change.get_operation_display()} {record_key(change.right_key)}",
            change=change,
            run=run,
            fields=field_diffs(change),
            revealing=revealing(
                request, [change.rule_id], self.url("reveal", change.pk), change.field_names
            ),
            earlier=earlier,
            record_page=_record_page(change, run),
        )

    def reveal_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """The page with its personal values, for a reason."""
        change = self.object_or_404(request, object_id)
        begin_reveal(request, {change.rule_id: change})
        return self.change_view(request, object_id)


def _record_page(change: Change, run: Run | None) -> str:
    """Where the whole life of a change's record is shown; empty without its rule."""
    if run is None:
        return ""
    mapping = run.rule.mapping
    if change.right_key:
        return record_url(Address(mapping.right_id, change.right_key))
    return record_url(Address(mapping.left_id, change.left_key)) if change.left_key else ""
