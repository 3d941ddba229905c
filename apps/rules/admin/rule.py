"""Rules: the form by concern, buttons that start and stop, health, history, versions."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import OuterRef, Subquery
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.utils.html import format_html
from unfold.decorators import display

from apps.accounts.admin import AccessPages
from apps.core.admin import (
    Chip,
    HistoryAdmin,
    NextStep,
    ObjectAction,
    RelatedFilter,
    ServiceErrorsMixin,
    unseen_kept,
)
from apps.core.clock import now
from apps.core.templatetags.lockstep import ago, status
from apps.ledger.services import forget_rule
from apps.rules import services
from apps.rules.admin.checks import CheckInline, check_specs
from apps.rules.admin.form import FIELDSETS, ONLY_TWO_WAY, RuleForm
from apps.rules.admin.policies import (
    FieldPolicyInline,
    chosen_mapping,
    field_policy_specs,
    mapped_types,
    policy_help,
    policy_words,
    proposed_policy,
)
from apps.rules.models import Check, FieldPolicy, Rule
from apps.rules.schedule import next_due
from apps.rules.selectors import rule_notes
from apps.runs.models import ACTIVE_STATUSES, Run
from apps.runs.selectors import runs
from apps.runs.services import request_run


@admin.register(Rule)
class RuleAdmin(AccessPages, ServiceErrorsMixin, HistoryAdmin):
    """When and how mappings are kept in step."""

    audited_as = "rule"
    saved_by_service = True
    form = RuleForm
    inlines = (FieldPolicyInline, CheckInline)
    list_display = ("name", "state", "last_run", "mapping", "schedule_text", "due")
    columns_need = {"last_run": Run}
    list_filter = (
        "enabled",
        "paused",
        "direction",
        "delta",
        "schedule_kind",
        ("mapping", RelatedFilter),
    )
    list_select_related = ("mapping",)
    search_fields = ("name", "description", "mapping__name")
    autocomplete_fields = ("depends_on",)
    change_form_after_template = "lockstep/rules/check_help.html"
    change_form_outer_after_template = "lockstep/rules/panels.html"
    nothing_yet = NextStep(
        "No rules yet. A rule keeps a mapping in step: when it runs, what it compares, what it "
        "may write.",
        "New sync",
        "admin:new_sync",
        "sync_alt",
        "rules.add_rule",
    )
    fieldsets = FIELDSETS

    class Media:
        js = ("lockstep/rules.js",)

    object_actions = (
        ObjectAction("dry-run", "Dry run", "visibility", "run", "do_dry_run", variant="primary"),
        ObjectAction(
            "run",
            "Run now",
            "play_arrow",
            "run",
            "do_run",
            confirm="Run “{obj}” now? It plans, and then writes what it planned.",
        ),
        ObjectAction("verify", "Verify", "fact_check", "run", "do_verify"),
        ObjectAction(
            "enable",
            "Enable schedule",
            "toggle_on",
            "change",
            "do_enable",
            confirm="Enable “{obj}”? From now on its schedule starts runs that write.",
            shown=lambda rule: not rule.enabled and rule.schedule_kind != "manual",
        ),
        ObjectAction(
            "disable",
            "Disable schedule",
            "toggle_off",
            "change",
            "do_disable",
            confirm="Disable “{obj}”? Its schedule starts no more runs.",
            shown=lambda rule: rule.enabled,
        ),
        ObjectAction(
            "pause",
            "Pause",
            "pause",
            "pause",
            "do_pause",
            confirm="Pause “{obj}”? No run of it starts, by hand or by schedule.",
            shown=lambda rule: not rule.paused,
        ),
        ObjectAction(
            "resume", "Resume", "resume", "pause", "do_resume", shown=lambda rule: rule.paused
        ),
    )

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        """Whoever can only look sees no section that says nothing for this rule."""
        fieldsets = super().get_fieldsets(request, obj)
        if self._shows_two_way(request, obj):
            return fieldsets
        return [entry for entry in fieldsets if ONLY_TWO_WAY not in entry[1].get("classes", ())]

    def get_inline_instances(self, request: HttpRequest, obj: Any = None) -> Any:
        found = super().get_inline_instances(request, obj)
        if self._shows_two_way(request, obj):
            return found
        return [inline for inline in found if ONLY_TWO_WAY not in (inline.classes or ())]

    def _shows_two_way(self, request: HttpRequest, rule: Rule | None) -> bool:
        if rule is None or rule.direction == Rule.Direction.TWO_WAY:
            return True
        return self.has_change_permission(request, rule)

    # List

    def get_queryset(self, request: HttpRequest) -> Any:
        latest = Run.objects.filter(rule=OuterRef("pk"), mode=Run.Mode.APPLY).order_by(
            "-created_at"
        )
        return (
            super()
            .get_queryset(request)
            .annotate(
                last_run_id=Subquery(latest.values("pk")[:1]),
                last_status=Subquery(latest.values("status")[:1]),
                last_at=Subquery(latest.values("created_at")[:1]),
            )
        )

    def chips(self, request: HttpRequest) -> list[Chip]:
        enabled = request.GET.get("enabled__exact")
        paused = request.GET.get("paused__exact")
        return [
            Chip("All", "", not (enabled or paused)),
            Chip("Enabled", "enabled__exact=1", enabled == "1"),
            Chip("Not enabled", "enabled__exact=0", enabled == "0"),
            Chip("Paused", "paused__exact=1", paused == "1"),
        ]

    @display(description="State")
    def state(self, rule: Rule) -> str:
        if rule.paused:
            return status("paused")
        return status("enabled") if rule.enabled else status("disabled", "Not enabled")

    @display(description="Last run")
    def last_run(self, rule: Any) -> str:
        if rule.last_run_id is None:
            return "never"
        label = dict(Run._meta.get_field("status").choices)[rule.last_status]
        url = reverse("admin:runs_run_change", args=(rule.last_run_id,))
        return format_html(
            '<a href="{}">{}</a> {}', url, status(rule.last_status, label), ago(rule.last_at)
        )

    @display(description="Schedule", ordering="schedule_kind")
    def schedule_text(self, rule: Rule) -> str:
        return schedule_words(rule)

    @display(description="Next due")
    def due(self, rule: Rule) -> str:
        times = next_due(rule, now(), 1) if rule.enabled and not rule.paused else []
        return ago(times[0]) if times else "–"

    # Form

    def save_model(self, request: HttpRequest, obj: Rule, form: Any, change: bool) -> None:
        """`save_related` stores rule and checks in one go, so that one version holds both."""

    def save_related(self, request: HttpRequest, form: Any, formsets: Any, change: bool) -> None:
        by_model = {formset.model: formset.forms for formset in formsets}
        checks = check_specs(by_model.get(Check, ()))
        policies = field_policy_specs(by_model.get(FieldPolicy, ()))
        rule = form.instance
        version = services.save_rule(rule, checks, policies, actor=request.user)
        with unseen_kept(form, request):
            form.save_m2m()
        services.validate_rule(rule)
        for formset in formsets:
            formset.new_objects = formset.changed_objects = formset.deleted_objects = []
        messages.info(request, f"Saved as version {version.number}. Saving starts no run.")

    def get_formset_kwargs(self, request: HttpRequest, obj: Any, inline: Any, prefix: str) -> Any:
        kwargs = super().get_formset_kwargs(request, obj, inline, prefix)
        proposed = proposed_policy(request, obj) if isinstance(inline, FieldPolicyInline) else None
        if proposed is not None and not proposed.is_known:
            kwargs["initial"] = [proposed.line]
        return kwargs

    def page_context(self, request: HttpRequest, obj: Rule | None) -> dict[str, Any]:
        types = mapped_types(chosen_mapping(request, obj))
        about_policies = {"policy_help": policy_help(types), "policy_words": policy_words()}
        if obj is None:
            return about_policies
        proposed = proposed_policy(request, obj)
        if proposed is not None:
            messages.warning(request, proposed.sentence)
        recent = list(runs(request.user).filter(rule=obj)[:10])
        return {
            **about_policies,
            "rule": obj,
            "rule_notes": rule_notes(obj),
            "recent_runs": recent,
            "last_real_run": next((run for run in recent if not run.is_dry), None),
            "due_times": next_due(obj, now(), 5),
            "schedule_words": schedule_words(obj),
            "versions": obj.versions.select_related("created_by", "mapping_version")[:10],
            "checkpoint": getattr(obj, "checkpoint", None),
        }

    # Deleting: the history of a rule goes with it

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Any:
        rules = list(objs)
        runs = Run.objects.filter(rule__in=rules)
        counts = {"rules": len(rules), "runs, with their changes and rejections": runs.count()}
        active = [str(run) for run in runs.filter(status__in=ACTIVE_STATUSES)]
        lacking = set() if self.has_delete_permission(request) else {"rule"}
        return [str(rule) for rule in rules], counts, lacking, active

    def delete_model(self, request: HttpRequest, obj: Rule) -> None:
        """The ledger names rules by id only: what it holds is forgotten first."""
        forget_rule(obj.pk)
        super().delete_model(request, obj)

    def delete_queryset(self, request: HttpRequest, queryset: Any) -> None:
        for rule in queryset:
            if not self.has_delete_permission(request, rule):
                raise PermissionDenied
            self.delete_model(request, rule)

    # Buttons

    def do_dry_run(self, request: HttpRequest, rule: Rule) -> HttpResponse:
        run = request_run(rule, actor=request.user, mode=Run.Mode.DRY_RUN)
        return redirect("admin:runs_run_change", run.pk)

    def do_run(self, request: HttpRequest, rule: Rule) -> HttpResponse:
        run = request_run(rule, actor=request.user)
        return redirect("admin:runs_run_change", run.pk)

    def do_verify(self, request: HttpRequest, rule: Rule) -> HttpResponse:
        """Compare whole datasets without writing."""
        run = request_run(rule, actor=request.user, mode=Run.Mode.VERIFY)
        return redirect("admin:runs_run_change", run.pk)

    def do_enable(self, request: HttpRequest, rule: Rule) -> None:
        services.set_enabled(rule, True, actor=request.user)
        messages.success(request, f"{rule} is enabled: its schedule starts runs.")

    def do_disable(self, request: HttpRequest, rule: Rule) -> None:
        services.set_enabled(rule, False, actor=request.user)
        messages.success(request, f"{rule} is disabled: its schedule starts no runs.")

    def do_pause(self, request: HttpRequest, rule: Rule) -> None:
        services.set_rule_paused(rule, True, actor=request.user)
        messages.success(request, f"{rule} is paused.")

    def do_resume(self, request: HttpRequest, rule: Rule) -> None:
        services.set_rule_paused(rule, False, actor=request.user)
        messages.success(request, f"{rule} takes part again.")


def schedule_words(rule: Rule) -> str:
    """The schedule as one phrase."""
    match rule.schedule_kind:
        case Rule.ScheduleKind.EVERY:
            return f"every {rule.every_minutes} minutes"
        case Rule.ScheduleKind.DAILY:
            return f"daily at {rule.daily_at:%H:%M} ({rule.time_zone})"
        case Rule.ScheduleKind.CRON:
            return f"cron {rule.cron} ({rule.time_zone})"
    return "only when started"
