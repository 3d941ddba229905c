"""Each person's own tokens."""

from __future__ import annotations

from functools import partial
from typing import Any, cast

from django.contrib import messages
from django.contrib.admin import AdminSite
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_POST

from apps.accounts.admin.token_pages import TokenDesk, TokenForm
from apps.accounts.models import User
from apps.api.models import OAuthClient
from apps.api.oauth.consents import consents_of, withdraw_consent
from apps.core.selectors import by_id


def urlpatterns(site: AdminSite) -> list[URLPattern]:
    def page(route: str, view: Any, name: str) -> URLPattern:
        guarded = never_cache(sensitive_post_parameters()(view))
        return path(route, site.admin_view(guarded), name=name)

    return [
        page("tokens/", partial(overview, site), "tokens"),
        page("tokens/replace/", require_POST(partial(replace, site)), "token_replace"),
        page("tokens/revoke/", require_POST(revoke), "token_revoke"),
        page("tokens/withdraw/", require_POST(withdraw), "token_withdraw"),
    ]


def overview(site: AdminSite, request: HttpRequest) -> HttpResponse:
    """The person's tokens, and the form that makes one."""
    desk = _desk(request)
    form = TokenForm(request.POST) if request.method == "POST" else None
    made = desk.make(request, form) if form else None
    if made:
        return _page(site, request, "token_made", token=made[0], text=made[1], desk=desk)
    consents = consents_of(desk.owner)
    return _page(site, request, "tokens", consents=consents, **desk.context(request, form))


def replace(site: AdminSite, request: HttpRequest) -> HttpResponse:
    """A new token in the place of another one, which goes on for a while."""
    desk = _desk(request)
    made = desk.replaced(request)
    if made is None:
        return redirect(desk.page)
    return _page(site, request, "token_made", token=made[0], text=made[1], desk=desk)


def revoke(request: HttpRequest) -> HttpResponse:
    desk = _desk(request)
    desk.revoked(request)
    return redirect(desk.page)


def withdraw(request: HttpRequest) -> HttpResponse:
    """What an OAuth client holds of this person opens nothing any more."""
    desk = _desk(request)
    client = by_id(OAuthClient.objects, request.POST.get("client"))
    if client is None or not withdraw_consent(desk.owner, client):
        raise Http404("no such client, or it holds nothing of yours")
    messages.success(request, f"{client} is out.")
    return redirect(desk.page)


def _desk(request: HttpRequest) -> TokenDesk:
    names = ("tokens", "token_replace", "token_revoke")
    user = cast("User", request.user)
    return TokenDesk(user, *(reverse(f"admin:{name}") for name in names))


def _page(site: AdminSite, request: HttpRequest, name: str, **context: Any) -> TemplateResponse:
    request.current_app = site.name
    common = {**site.each_context(request), "title": "Your tokens"}
    common["crumbs"] = [("Your tokens", None)]
    return TemplateResponse(request, f"lockstep/accounts/{name}.html", {**common, **context})
