"""The pages of the conflict inbox."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import redirect
from django.urls import URLPattern, path
from django.views.decorators.http import require_http_methods, require_POST

from apps.connectors.errors import LockstepError
from apps.core.admin import NextStep, ReadOnlyAdmin, explain
from apps.core.selectors import may, permits
from apps.core.templatetags.lockstep import record_key
from apps.ledger.admin.conflicts import bulk
from apps.ledger.admin.conflicts.choices import (
    BY_FIELD,
    again,
    candidates,
    choices,
    decided_words,
    posted,
)
from apps.ledger.admin.conflicts.inbox import (
    Facets,
    InboxFilter,
    InboxPage,
    chip_rows,
    facets,
    inbox_page,
    last_conflict_at,
    next_conflict,
)
from apps.ledger.admin.conflicts.three_way import (
    NOTHING,
    Proposal,
    earlier_values,
    three_way,
)
from apps.ledger.admin.revealing import begin_reveal, is_revealed, revealing
from apps.ledger.admin.sides import side_names
from apps.ledger.models import Conflict
from apps.ledger.selectors import conflicts, masked
from apps.ledger.services import ConflictMoved, decide
from apps.rules.models import Rule
from apps.rules.selectors import rules
from apps.runs.admin.writing_now import write_decisions

OPEN_STATES = (Conflict.State.OPEN, Conflict.State.DECIDED)


@admin.register(Conflict)
class ConflictAdmin(ReadOnlyAdmin):
    """Records that wait for a person: the list beside the one that is looked at."""

    nothing_yet = NextStep("All clear: no conflict was ever met.")

    def own_urls(self) -> list[URLPattern]:
        def own(route: str, view: Any, name: str) -> URLPattern:
            return path(route, self.admin_site.admin_view(view), name=self.url_name(name))

        return [
            own("<uuid:conflict_id>/decide/", require_POST(self.decide_view), "decide"),
            own("<uuid:conflict_id>/reveal/", require_POST(self.reveal_view), "reveal"),
            own("bulk/", require_http_methods(["GET", "POST"])(self.bulk_view), "bulk"),
            own("write/", require_POST(self.write_view), "write"),
        ]

    def may_decide(self, request: HttpRequest) -> bool:
        return permits(request.user, Conflict, "decide")

    # Looking

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        if not self.has_view_permission(request):
            raise PermissionDenied
        return self._inbox(request, None)

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        if request.method not in ("GET", "HEAD"):
            raise PermissionDenied
        return self._inbox(request, self.object_or_404(request, object_id))

    def _inbox(
        self,
        request: HttpRequest,
        selected: Conflict | None,
        proposal: Proposal = NOTHING,
        problem: str = "",
    ) -> HttpResponse:
        wanted = InboxFilter.of(request.GET)
        page = inbox_page(request.user, wanted, selected)
        counted = facets(request.user, wanted)
        known = {
            rule.pk: rule for rule in rules(request.user).filter(pk__in=self._rules(page, counted))
        }
        return self.render_page(
            request,
            "lockstep/ledger/conflict_inbox.html",
            page.selected,
            title="Conflict inbox" if selected is None else f"Conflict: {record_name(selected)}",
            wanted=wanted,
            query=wanted.query(),
            page=page,
            names_by_rule={pk: rule.name for pk, rule in known.items()},
            chip_rows=chip_rows(wanted, counted, {pk: r.name for pk, r in known.items()}),
            states=self._states(request, wanted),
            bulk_choices=bulk.offered(wanted, counted) if self.may_decide(request) else [],
            decided=self._decided(request, wanted),
            last_at=last_conflict_at(request.user) if not page.shown else None,
            problem=problem,
            **self._selected(request, page.selected, known, proposal),
        )

    @staticmethod
    def _rules(page: InboxPage, counted: Facets) -> set[UUID]:
        shown = {conflict.rule_id for conflict in page.shown}
        return shown | set(counted.rules) | ({page.selected.rule_id} if page.selected else set())

    def _states(self, request: HttpRequest, wanted: InboxFilter) -> list[tuple[str, str, bool]]:
        return [
            (str(label), wanted.query(state=value), wanted.state == value)
            for value, label in Conflict.State.choices
        ]

    def _decided(self, request: HttpRequest, wanted: InboxFilter) -> int:
        """How many decisions no run has written yet."""
        rows = conflicts(request.user).filter(state=Conflict.State.DECIDED)
        return rows.filter(rule_id=wanted.rule).count() if wanted.rule else rows.count()

    def _selected(
        self,
        request: HttpRequest,
        conflict: Conflict | None,
        known: dict[UUID, Rule],
        proposal: Proposal,
    ) -> dict[str, Any]:
        """What the three-way view of one conflict shows."""
        if conflict is None:
            return {}
        rule = known.get(conflict.rule_id)
        names = side_names(rule)
        masked([conflict], revealed=is_revealed(request))
        view = three_way(conflict, proposal)
        fields = [line.name for line in (*view.open, *view.others)]
        address = self.url("reveal", conflict.pk)
        decidable = conflict.state in OPEN_STATES and conflict.can_be_decided
        return {
            "conflict": conflict,
            "record": record_name(conflict),
            "rule": rule,
            "names": names,
            "view": view,
            "revealing": revealing(request, [conflict.rule_id], address, fields),
            "earlier": earlier_values(conflict),
            "by_field": conflict.kind in BY_FIELD and conflict.can_be_decided,
            "choices": choices(conflict, names),
            "candidates": candidates(conflict),
            "chosen_match": proposal.chosen.get("match", ""),
            "decided_words": decided_words(conflict, names),
            "may_decide": may(request.user, "decide", conflict) and decidable,
            "may_change_rule": rule is not None and may(request.user, "change", rule),
        }

    def reveal_view(self, request: HttpRequest, conflict_id: UUID) -> HttpResponse:
        """The conflict with its personal values, for a reason."""
        conflict = self.object_or_404(request, str(conflict_id))
        begin_reveal(request, {conflict.rule_id: conflict})
        return self._inbox(request, conflict)

    # Deciding one

    def decide_view(self, request: HttpRequest, conflict_id: UUID) -> HttpResponse:
        """Keep what was decided and go on to the next; what does not fit is shown again."""
        conflict = conflicts(request.user, "decide").filter(pk=conflict_id).first()
        if conflict is None:
            if not self.may_decide(request):
                raise PermissionDenied
            raise Http404("no conflict with this id")
        wanted = InboxFilter.of(request.GET)
        rule = Rule.objects.filter(pk=conflict.rule_id).select_related("mapping__right").first()
        types = {f.name: f.schema().type for f in rule.mapping.right.fields.all()} if rule else {}
        sent = posted(conflict, request.POST, types)
        if sent.decision is None:
            return self._again(request, conflict, sent.proposal, sent.problem)
        following = next_conflict(request.user, wanted, conflict)
        try:
            decide(
                conflict,
                sent.decision,
                seen=request.POST.get("seen", ""),
                actor=request.user,
                note=request.POST.get("note", "").strip(),
            )
        except ConflictMoved as error:
            moved = conflicts(request.user).get(pk=conflict.pk)
            return self._again(request, moved, again(sent.proposal), explain(error))
        except LockstepError as error:
            return self._again(request, conflict, again(sent.proposal), explain(error))
        messages.success(request, f"Decided: {record_name(conflict)}. The next run writes it.")
        return self._to(following, wanted)

    def _again(
        self, request: HttpRequest, conflict: Conflict, proposal: Proposal, problem: str
    ) -> HttpResponse:
        return self._inbox(request, conflict, proposal, problem)

    def _to(self, conflict: Conflict | None, wanted: InboxFilter) -> HttpResponseRedirect:
        address = self.url("change", conflict.pk) if conflict else self.url("changelist")
        query = wanted.query()
        return HttpResponseRedirect(f"{address}?{query}" if query else address)

    # Deciding many

    def bulk_view(self, request: HttpRequest) -> HttpResponse:
        """Everything that the filter shows: looked at first, then decided by number."""
        if not self.may_decide(request):
            raise PermissionDenied
        wanted = InboxFilter.of(request.GET)
        choice = bulk.choice_named(request.GET.get("choice", ""))
        if choice is None:
            raise Http404("there is no such choice")
        if request.method == "POST":
            return self._decide_many(request, wanted, choice)
        rows = wanted.rows(request.user)
        return self.render_page(
            request,
            "lockstep/ledger/conflict_bulk.html",
            title=choice.label,
            wanted=wanted,
            query=wanted.query(),
            choice=choice,
            **bulk.preview(rows, choice, request.user),
        )

    def _decide_many(
        self, request: HttpRequest, wanted: InboxFilter, choice: bulk.BulkChoice
    ) -> HttpResponse:
        done, failed = bulk.decide_seen(
            request.POST.get("seen", ""),
            choice,
            actor=request.user,
            note=request.POST.get("note", "").strip(),
        )
        if done:
            messages.success(request, f"Decided {done} conflicts. The next run writes them.")
        if failed:
            messages.warning(
                request,
                f"{failed} were left as they are: they moved meanwhile, or were decided already.",
            )
        return self._to(None, InboxFilter(rule=wanted.rule))

    # Writing now

    def write_view(self, request: HttpRequest) -> HttpResponse:
        """Start runs of just the records that were decided, instead of waiting for the next."""
        if not self.has_view_permission(request) or not permits(request.user, Rule, "run"):
            raise PermissionDenied
        wanted = InboxFilter.of(request.GET)
        rows = conflicts(request.user).filter(state=Conflict.State.DECIDED)
        if wanted.rule:
            rows = rows.filter(rule_id=wanted.rule)
        started, problems = write_decisions(rows, actor=request.user)
        for problem in problems:
            messages.error(request, problem)
        if len(started) == 1 and not problems:
            return redirect("admin:runs_run_change", started[0].pk)
        if started:
            messages.success(request, f"Started {len(started)} runs.")
        return self._to(None, wanted)


def record_name(conflict: Conflict) -> str:
    """A conflict's record as people call it: its key, or both where they differ."""
    keys = dict.fromkeys(record_key(key) for key in (conflict.left_key, conflict.right_key) if key)
    return " ↔ ".join(keys) or "a new record"
