"""The pages on which people sign in, enrol second factors and look after them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, wraps

from django.contrib.admin import AdminSite
from django.contrib.auth.views import redirect_to_login
from django.http import HttpRequest, HttpResponse
from django.urls import URLPattern, path, reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters

View = Callable[..., HttpResponse]


def _for_everybody(view: View) -> View:
    """Never kept by a browser or a proxy, nothing typed in error reports."""
    return never_cache(sensitive_post_parameters()(view))


def _for_the_signed_in(view: View) -> View:
    """Also for sessions that still lack a second factor: the middleware says which pages open."""

    @wraps(view)
    def guarded(request: HttpRequest, *args: object, **kwargs: object) -> HttpResponse:
        if not request.user.is_authenticated:
            return redirect_to_login(request.get_full_path(), reverse("admin:login"))
        return view(request, *args, **kwargs)

    return _for_everybody(guarded)


def urlpatterns(site: AdminSite) -> list[URLPattern]:
    from apps.console.sign_in import confirming, door, enrolling, invitation, security, sso
    from apps.console.sign_in.limits import by_person, limited

    def everybody(
        route: str, view: View, name: str, limit: str, methods: tuple[str, ...] = ("POST",)
    ) -> URLPattern:
        bounded = limited(partial(view, site), limit, methods=methods)
        return path(route, _for_everybody(bounded), name=name)

    def signed_in(route: str, view: View, name: str) -> URLPattern:
        return path(route, _for_the_signed_in(partial(view, site)), name=name)

    def verified(route: str, view: View, name: str, limit: str = "") -> URLPattern:
        bound: View = partial(view, site)
        if limit:
            bound = limited(bound, limit, by=by_person)
        return path(route, site.admin_view(_for_everybody(bound)), name=name)

    return [
        path("logout/", _for_the_signed_in(site.logout), name="logout"),
        everybody("login/", door.password, "login", "sign-in"),
        everybody("login/single-sign-on/", sso.begin, "sso", "single-sign-on"),
        everybody(
            "login/single-sign-on/return/",
            sso.come_back,
            "sso_return",
            "single-sign-on-return",
            methods=("GET",),
        ),
        everybody("login/code/", door.code, "login_code", "sign-in-code"),
        everybody(
            "invitation/<str:token>/",
            invitation.accept,
            "invitation",
            "invitation",
            methods=("GET", "POST"),
        ),
        path(
            "password_change/",
            _for_the_signed_in(limited(site.password_change, "password-change", by=by_person)),
            name="password_change",
        ),
        signed_in("enrol/", enrolling.app, "enrol"),
        signed_in("enrol/passkey/", enrolling.passkey, "enrol_passkey"),
        verified("confirm/", confirming.confirm, "confirm", "confirm"),
        verified("security/", security.overview, "security"),
        verified("security/recovery-codes/", security.recovery_codes, "recovery_codes"),
        verified("security/remove/", security.remove, "security_remove"),
        verified("security/end/", security.end, "security_end"),
    ]
