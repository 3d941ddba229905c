"""Who can see this: the page of a source, dataset or rule on which grants are given and taken."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.contrib import messages
from django.contrib.auth.models import Group
from django.core.exceptions import PermissionDenied
from django.db.models import Model
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import URLPattern, path
from django.views.decorators.http import require_GET, require_POST

from apps.accounts.models import Grant, Level, User
from apps.accounts.selectors import grants_on, may_give, who_reaches
from apps.accounts.services import give_grant, set_tags, take_grant
from apps.core.admin import ObjectLink
from apps.core.models import Tag
from apps.core.reauthentication import require_recent_sign_in
from apps.core.selectors import by_id, reaches

VIEW = "accounts.view_grant"


def may_look(request: HttpRequest) -> bool:
    """Whether this person may know who reaches what."""
    return may_give(request.user) or request.user.has_perm(VIEW)


def posted_level(request: HttpRequest) -> Level:
    """The level that a form names. Raises Http404."""
    text = request.POST.get("level", "")
    if text not in {str(level.value) for level in Level}:
        raise Http404("no such level")
    return Level(int(text))


class AccessPages:
    """For the admins of what grants name."""

    def access_roots(self, obj: Any) -> list[Model]:
        """What this object hangs on: grants on it reach the object as well."""
        return []

    def get_urls(self) -> list[URLPattern]:
        wrap = self.admin_site.admin_view  # type: ignore[attr-defined]
        name = self.url_name  # type: ignore[attr-defined]
        own = [
            path("<uuid:pk>/access/", wrap(require_GET(self.access_view)), name=name("access")),
            *(
                path(f"<uuid:pk>/access/{verb}/", wrap(require_POST(view)), name=name(verb))
                for verb, view in (
                    ("grant", self.grant_view),
                    ("ungrant", self.ungrant_view),
                    ("tag", self.tag_view),
                )
            ),
        ]
        return [*own, *super().get_urls()]  # type: ignore[misc]

    def object_links(self, request: HttpRequest, obj: Any) -> list[ObjectLink]:
        links: list[ObjectLink] = super().object_links(request, obj)  # type: ignore[misc]
        if not may_look(request):
            return links
        address = self.url("access", obj.pk)  # type: ignore[attr-defined]
        return [*links, ObjectLink("Who can see this", address, "visibility_lock")]

    # Looking

    def access_view(self, request: HttpRequest, pk: UUID) -> HttpResponse:
        """Grants, tags, and everybody who reaches this object."""
        obj = self._object(request, pk)
        gives = may_give(request.user)
        further = Grant.objects.none()
        for root in self.access_roots(obj):
            further = further | grants_on(root)
        page: HttpResponse = self.render_page(  # type: ignore[attr-defined]
            request,
            "lockstep/accounts/access.html",
            title=f"Who can see {obj}",
            crumbs=[
                (str(self.opts.verbose_name_plural).capitalize(), self.url("changelist")),  # type: ignore[attr-defined]
                (str(obj), self.url("change", obj.pk)),  # type: ignore[attr-defined]
                ("Who can see this", None),
            ],
            obj=obj,
            noun=self.opts.verbose_name,  # type: ignore[attr-defined]
            grants=grants_on(obj),
            further=[(root, grants_on(root)) for root in self.access_roots(obj)],
            tag_names=dict(obj.tags.values_list("pk", "name")),
            tags_text=", ".join(obj.tags.values_list("name", flat=True)),
            known_tags=Tag.objects.values_list("name", flat=True)[:200] if gives else [],
            people=who_reaches(obj, further),
            gives=gives,
            tags_too=gives and reaches(request.user, "change", obj),
            levels=Level.choices,
            every_person=User.objects.filter(is_active=True).order_by("username") if gives else [],
            every_role=Group.objects.order_by("name") if gives else [],
            addresses={verb: self.url(verb, obj.pk) for verb in ("grant", "ungrant", "tag")},  # type: ignore[attr-defined]
        )
        return page

    def _object(self, request: HttpRequest, pk: UUID) -> Any:
        if not may_look(request) or not self.has_view_permission(request):  # type: ignore[attr-defined]
            raise PermissionDenied
        return self.object_or_404(request, str(pk))  # type: ignore[attr-defined]

    # Giving and taking

    def grant_view(self, request: HttpRequest, pk: UUID) -> HttpResponse:
        obj = self._object_to_give(request, pk)
        kind, _, holder_id = request.POST.get("holder", "").partition(":")
        rows: Any = {"person": User.objects, "role": Group.objects}.get(kind)
        holder = by_id(rows.all(), holder_id) if rows is not None else None
        if holder is None:
            raise Http404("no such person or role")
        level = posted_level(request)
        give_grant(holder, obj, level, actor=request.user, reason=_reason(request))  # type: ignore[arg-type]
        messages.success(request, f"{holder} may now {level.label.lower()} {obj}.")
        return self._back(obj)

    def ungrant_view(self, request: HttpRequest, pk: UUID) -> HttpResponse:
        obj = self._object_to_give(request, pk)
        named = grants_on(obj).exclude(kind=Grant.Kind.TAG)
        grant = by_id(named, request.POST.get("grant"))
        if grant is None:
            raise Http404("no such grant on this object")
        take_grant(grant, obj, actor=request.user)  # type: ignore[arg-type]
        messages.success(request, f"Taken from {grant.role or grant.person}.")
        return self._back(obj)

    def tag_view(self, request: HttpRequest, pk: UUID) -> HttpResponse:
        obj = self._object_to_give(request, pk)
        set_tags(obj, request.POST.get("tags", "").split(","), actor=request.user)  # type: ignore[arg-type]
        messages.success(request, f"The tags of {obj} are kept.")
        return self._back(obj)

    def _object_to_give(self, request: HttpRequest, pk: UUID) -> Any:
        if not may_give(request.user):
            raise PermissionDenied
        require_recent_sign_in(request)
        return self._object(request, pk)

    def _back(self, obj: Any) -> HttpResponse:
        return redirect(self.url("access", obj.pk))  # type: ignore[attr-defined]


def _reason(request: HttpRequest) -> str:
    return request.POST.get("reason", "").strip()[:500]
