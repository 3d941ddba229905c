"""The pages of the record time machine; they hang at the admin of changes."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import URLPattern, path, reverse
from django.utils.http import urlencode
from django.views.decorators.http import require_GET, require_POST

from apps.connectors.errors import LockstepError
from apps.core.admin import explain
from apps.core.selectors import by_id
from apps.core.templatetags.lockstep import record_key
from apps.ledger.admin.records.finding import (
    Sighting,
    families,
    hit,
    known_datasets,
    places_to_ask,
    record_url,
    search_everywhere,
    search_field,
    searchable,
)
from apps.ledger.admin.records.timeline import (
    Known,
    Version,
    as_of,
    both_sides,
    compared,
    states,
    versions,
)
from apps.ledger.admin.revealing import begin_reveal, is_revealed, revealing
from apps.ledger.models import Change
from apps.ledger.selectors import masked
from apps.ledger.selectors.record_family import (
    Address,
    Family,
    Membership,
    address_of,
    find_addresses,
    open_conflicts,
    parse_keys,
    record_family,
    record_life,
)
from apps.rules.models import Rule
from apps.rules.selectors import rules
from apps.runs.admin.undo import moment_of, undo_rights
from apps.runs.models import Run
from apps.runs.selectors import runs
from apps.runs.services import explain_record, record_now, request_run


class RecordPages:
    """For the admin of changes."""

    def record_urls(self) -> list[URLPattern]:
        wrap = self.admin_site.admin_view  # type: ignore[attr-defined]
        name = self.url_name  # type: ignore[attr-defined]
        return [
            path("records/", wrap(require_GET(self.find_view)), name=name("find")),
            path("records/live/", wrap(require_POST(self.live_view)), name=name("live")),
            path("records/sync/", wrap(require_POST(self.sync_view)), name=name("sync")),
            path(
                "records/<uuid:dataset_id>/<str:digest>/",
                wrap(require_GET(self.record_view)),
                name=name("record"),
            ),
            path(
                "records/<uuid:dataset_id>/<str:digest>/reveal/",
                wrap(require_POST(self.reveal_record_view)),
                name=name("reveal_record"),
            ),
        ]

    def _rules(self, request: HttpRequest) -> list[Rule]:
        """The rules whose records this person may look at."""
        if not self.has_view_permission(request):  # type: ignore[attr-defined]
            raise PermissionDenied
        return list(rules(request.user))

    # Finding

    def find_view(self, request: HttpRequest) -> HttpResponse:
        """Search by key; one hit opens at once."""
        every = self._rules(request)
        chosen = [rule for rule in every if str(rule.pk) == request.GET.get("rule")]
        text = request.GET.get("key", "").strip()
        found = find_addresses(chosen or every, text) if text else []
        hits = families(every, found)
        if len(hits) == 1:
            return redirect(record_url(hits[0].addresses[0]))
        return self._find_page(request, every, hits, text, chosen)

    def _find_page(
        self,
        request: HttpRequest,
        every: list[Rule],
        found: list[Family],
        text: str,
        chosen: Sequence[Rule] = (),
        searched_in: str = "",
        sightings: Sequence[Sighting] = (),
    ) -> HttpResponse:
        known = known_datasets(found)
        page: HttpResponse = self.render_page(  # type: ignore[attr-defined]
            request,
            "lockstep/ledger/record_find.html",
            title="Record time machine",
            crumbs=[("Record time machine", None)],
            searched=text,
            rules=every,
            chosen_rule=request.GET.get("rule", ""),
            hits=[hit(family, known, sightings) for family in found],
            unknown=places_to_ask(chosen or every, text) if text and not found else [],
            searchable=searchable(every, request.user),
            searched_in=searched_in,
        )
        return page

    def live_view(self, request: HttpRequest) -> HttpResponse:
        """Search by a value: what records had before, and the sources themselves as they are."""
        every = self._rules(request)
        where = request.POST.get("where", "")
        text = request.POST.get("value", "").strip()
        found: list[Sighting] = []
        if where and text:
            found = search_field(request, every, where, text)
        elif text:
            found = search_everywhere(request, every, text)
            if not found:
                messages.warning(
                    request, "No record has or had this value in a field that is searchable."
                )
        records = families(every, (sighting.address for sighting in found))
        return self._find_page(request, every, records, "", searched_in=where, sightings=found)

    # One record

    def record_view(self, request: HttpRequest, dataset_id: UUID, digest: str) -> HttpResponse:
        """All versions of a record across all systems; what it was, compared, and the way back."""
        every = self._rules(request)
        start = self._address(request, every, dataset_id, digest)
        family = record_family(every, start)
        life = masked(record_life(family), revealed=is_revealed(request))
        known = runs(request.user).in_bulk({change.run_id for change in life})
        line = versions(family, life, known)
        may_undo, may_ask = undo_rights(request.user)
        kept_key = request.GET.get("key", "")
        kept = f"?{urlencode({'key': kept_key})}" if kept_key else ""
        page: HttpResponse = self.render_page(  # type: ignore[attr-defined]
            request,
            "lockstep/ledger/record_page.html",
            title=f"Record {record_key(start.key)}",
            crumbs=[
                ("Record time machine", reverse("admin:ledger_change_find")),
                (record_key(start.key), None),
            ],
            start=start,
            permalink=request.build_absolute_uri(record_url(start) + kept),
            kept=kept,
            kept_key=kept_key,
            places=[hit(Family([a], []), known_datasets([family])) for a in family.addresses],
            versions=line,
            members=[self._member(request, m, life) for m in family.memberships],
            conflicts=open_conflicts(family) if _sees_conflicts(request) else [],
            moment=moment_of(request.GET),
            moment_text=request.GET.get("as_of", ""),
            comparison=_comparison(request, line, life),
            revealing=revealing(
                request,
                [member.rule.pk for member in family.memberships],
                reverse("admin:ledger_change_reveal_record", args=(dataset_id, digest)),
            ),
            may_undo=may_undo,
            may_restore=may_undo or may_ask,
            **self._asked(request, family),
        )
        return page

    def reveal_record_view(
        self, request: HttpRequest, dataset_id: UUID, digest: str
    ) -> HttpResponse:
        """The page with its personal values, for a reason."""
        every = self._rules(request)
        family = record_family(every, self._address(request, every, dataset_id, digest))
        by_rule = {member.rule.pk: member.rule for member in family.memberships}
        begin_reveal(request, by_rule, about=digest)
        return self.record_view(request, dataset_id, digest)

    @staticmethod
    def _address(request: HttpRequest, every: list[Rule], dataset_id: UUID, digest: str) -> Address:
        """The record's address; `key` helps where only segments still know it."""
        for key in parse_keys(request.GET.get("key", "")):
            if Address(dataset_id, key).digest == digest:
                return Address(dataset_id, key)
        address = address_of(every, dataset_id, digest)
        if address is None:
            raise Http404("this record is not known, or no longer kept; search for it by its key")
        return address

    def _member(
        self, request: HttpRequest, member: Membership, life: list[Change]
    ) -> dict[str, Any]:
        """What the page shows of one rule: how both sides are known to have been."""
        own = [change for change in life if change.rule_id == member.rule.pk]
        moment = moment_of(request.GET)
        if moment is not None:
            last, known = as_of(own, moment)
        else:
            found = states(own)
            last = next((change for change in own if change.pk in found), None)
            known = found[last.pk] if last else Known()
        return {
            "member": member,
            "rule": member.rule,
            "last": last,
            "rows": both_sides(known),
            "left_gone": known.knows_left and known.left is None,
            "right_gone": known.knows_right and known.right is None,
            "is_two_way": member.rule.direction == Rule.Direction.TWO_WAY,
            "may_run": rules(request.user, "run").filter(pk=member.rule.pk).exists(),
        }

    def _asked(self, request: HttpRequest, family: Family) -> dict[str, Any]:
        """What was asked of one rule: why the record did not sync, or how it is this moment."""
        for name in ("why", "now"):
            wanted = request.GET.get(name)
            member = next((m for m in family.memberships if str(m.rule.pk) == wanted), None)
            if member is None:
                continue
            key = (member.left_key, member.right_key)
            try:
                if name == "why":
                    findings = explain_record(
                        member.rule, key, actor=request.user, revealed=is_revealed(request)
                    )
                    return {"why_rule": member.rule, "findings": findings}
                found = record_now(
                    member.rule, key, actor=request.user, revealed=is_revealed(request)
                )
                known = Known(found.left_view, found.right, True, True)
                return {"now_rule": member.rule, "now": found, "now_rows": both_sides(known)}
            except LockstepError as error:
                messages.error(request, explain(error))
        return {}

    # Writing

    def sync_view(self, request: HttpRequest) -> HttpResponse:
        """Start a run of just this record."""
        rule = by_id(rules(request.user), request.POST.get("rule"))
        if rule is None:
            raise Http404("no rule with this id")
        keys = (request.POST.get("left_key", ""), request.POST.get("right_key", ""))
        if not any(keys):
            raise Http404("no record was named")
        try:
            run = request_run(rule, actor=request.user, trigger=Run.Trigger.RECORDS, keys=[keys])
        except LockstepError as error:
            messages.error(request, explain(error))
            return redirect("admin:ledger_change_find")
        return redirect("admin:runs_run_change", run.pk)


def _sees_conflicts(request: HttpRequest) -> bool:
    return bool(request.user.has_perm("ledger.view_conflict"))


def _comparison(
    request: HttpRequest, line: list[Version], life: list[Change]
) -> dict[str, Any] | None:
    """Two versions beside each other, where two of one rule were picked."""
    by_id_text = {str(version.change.pk): version for version in line}
    picked = [by_id_text.get(request.GET.get(name, "")) for name in ("a", "b")]
    if None in picked or picked[0] is picked[1]:
        return None
    first, second = sorted((v for v in picked if v), key=_when)
    if first.rule.pk != second.rule.pk:
        return {"problem": "Pick two versions of the same rule."}
    found = states([change for change in life if change.rule_id == first.rule.pk])
    if first.change.pk not in found or second.change.pk not in found:
        return {"problem": "Pick two versions that were applied."}
    return {
        "first": first,
        "second": second,
        "sides": [
            (first.names.of(side), rows)
            for side in ("left", "right")
            if (rows := compared(found[first.change.pk], found[second.change.pk], side))
        ],
    }


def _when(version: Version) -> tuple[datetime, int]:
    return version.at, int(version.change.pk)
