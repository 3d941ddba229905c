"""What a person or a role reaches: the page on which grants are given and taken from their side."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.db.models import Model
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import URLPattern, path, reverse
from django.views.decorators.http import require_GET, require_POST

from apps.accounts.admin.access import may_look, posted_level
from apps.accounts.models import Grant, Level
from apps.accounts.selectors import grants_of, may_give
from apps.accounts.services import give_grant, take_grant
from apps.core.admin import ObjectLink
from apps.core.models import Tag
from apps.core.reauthentication import require_recent_sign_in
from apps.core.selectors import by_id, reaches_all, scoped
from apps.rules.models import Rule
from apps.sources.models import Dataset, Source

MOST_CHOICES = 500
_MODELS: dict[str, type[Model]] = {
    Grant.Kind.SOURCE: Source,
    Grant.Kind.DATASET: Dataset,
    Grant.Kind.RULE: Rule,
    Grant.Kind.TAG: Tag,
}


@dataclass(frozen=True, slots=True)
class Line:
    """A grant as the page shows it; `name` is empty where this person may not know it."""

    grant: Grant
    name: str
    url: str
    is_gone: bool


class HoldingPages:
    """For the admins of people and roles."""

    def get_urls(self) -> list[URLPattern]:
        wrap = self.admin_site.admin_view  # type: ignore[attr-defined]
        name = self.url_name  # type: ignore[attr-defined]
        own = [
            path("<int:pk>/grants/", wrap(require_GET(self.grants_view)), name=name("grants")),
            path("<int:pk>/grants/give/", wrap(require_POST(self.give_view)), name=name("give")),
            path("<int:pk>/grants/take/", wrap(require_POST(self.take_view)), name=name("take")),
        ]
        return [*own, *super().get_urls()]  # type: ignore[misc]

    def object_links(self, request: HttpRequest, obj: Any) -> list[ObjectLink]:
        links: list[ObjectLink] = super().object_links(request, obj)  # type: ignore[misc]
        if not may_look(request):
            return links
        address = self.url("grants", obj.pk)  # type: ignore[attr-defined]
        return [*links, ObjectLink("What is granted", address, "key")]

    def grants_view(self, request: HttpRequest, pk: int) -> HttpResponse:
        """Each grant with its object, and what may be granted further."""
        holder = self._holder(request, pk)
        gives = may_give(request.user)
        roles = holder.groups.all() if hasattr(holder, "groups") else []
        page: HttpResponse = self.render_page(  # type: ignore[attr-defined]
            request,
            "lockstep/accounts/grants.html",
            title=f"What is granted to {holder}",
            crumbs=[
                (str(self.opts.verbose_name_plural).capitalize(), self.url("changelist")),  # type: ignore[attr-defined]
                (str(holder), self.url("change", holder.pk)),  # type: ignore[attr-defined]
                ("What is granted", None),
            ],
            holder=holder,
            everything=hasattr(holder, "has_perm") and reaches_all(holder),
            lines=_lines(grants_of(holder), request),
            by_role=[(role, _lines(grants_of(role), request)) for role in roles],
            gives=gives,
            choices=_choices(request) if gives else [],
            levels=Level.choices,
            addresses={verb: self.url(verb, holder.pk) for verb in ("give", "take")},  # type: ignore[attr-defined]
        )
        return page

    def give_view(self, request: HttpRequest, pk: int) -> HttpResponse:
        holder = self._holder_to_give(request, pk)
        kind, _, object_id = request.POST.get("object", "").partition(":")
        model = _MODELS.get(kind)
        obj = by_id(_visible(model, request), object_id) if model else None
        if obj is None:
            raise Http404("no such object, or not for you")
        level = posted_level(request)
        reason = request.POST.get("reason", "").strip()[:500]
        give_grant(holder, obj, level, actor=request.user, reason=reason)  # type: ignore[arg-type]
        messages.success(request, f"{holder} may now {level.label.lower()} {obj}.")
        return redirect(self.url("grants", holder.pk))  # type: ignore[attr-defined]

    def take_view(self, request: HttpRequest, pk: int) -> HttpResponse:
        holder = self._holder_to_give(request, pk)
        grant = by_id(grants_of(holder), request.POST.get("grant"))
        if grant is None:
            raise Http404("no such grant of this holder")
        obj = by_id(_MODELS[grant.kind]._default_manager.all(), str(grant.object_id))
        take_grant(grant, obj, actor=request.user)  # type: ignore[arg-type]
        messages.success(request, f"Taken from {holder}.")
        return redirect(self.url("grants", holder.pk))  # type: ignore[attr-defined]

    def _holder(self, request: HttpRequest, pk: int) -> Any:
        if not may_look(request) or not self.has_view_permission(request):  # type: ignore[attr-defined]
            raise PermissionDenied
        return self.object_or_404(request, str(pk))  # type: ignore[attr-defined]

    def _holder_to_give(self, request: HttpRequest, pk: int) -> Any:
        if not may_give(request.user):
            raise PermissionDenied
        require_recent_sign_in(request)
        return self._holder(request, pk)


def _visible(model: type[Model], request: HttpRequest) -> Any:
    """Tags have no permission of their own: their names are known to whoever gives grants."""
    rows = model._default_manager.all()
    return rows if model is Tag else scoped(rows, request.user)


def _lines(grants: Any, request: HttpRequest) -> list[Line]:
    """The grants with the names of their objects; a query for each kind."""
    found = list(grants)
    named: dict[tuple[str, Any], str] = {}
    there: set[tuple[str, Any]] = set()
    for kind, model in _MODELS.items():
        ids = [grant.object_id for grant in found if grant.kind == kind]
        if ids:
            rows = _visible(model, request).in_bulk(ids)
            named.update({(kind, pk): str(row) for pk, row in rows.items()})
            every = model._default_manager.filter(pk__in=ids).values_list("pk", flat=True)
            there.update((kind, pk) for pk in every)
    return [
        Line(
            grant,
            named.get(place, ""),
            _address(grant) if place in named else "",
            place not in there,
        )
        for grant in found
        for place in [(grant.kind, grant.object_id)]
    ]


def _address(grant: Grant) -> str:
    model = _MODELS[grant.kind]
    if model is Tag:
        return ""
    room = model._meta.app_label
    return reverse(f"admin:{room}_{model._meta.model_name}_change", args=(grant.object_id,))


def _choices(request: HttpRequest) -> list[tuple[str, list[tuple[str, str]]]]:
    """What may be granted, by kind: the value of the choice, and its name."""
    return [
        (
            str(Grant.Kind(kind).label),
            [(f"{kind}:{row.pk}", str(row)) for row in _visible(model, request)[:MOST_CHOICES]],
        )
        for kind, model in _MODELS.items()
    ]
