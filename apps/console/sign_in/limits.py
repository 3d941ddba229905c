"""How often the doors may be knocked at, from one address or by one person."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from apps.core.rate_limits import RateLimit, place_of, take

View = Callable[..., HttpResponse]
WINDOW_SECONDS = 600.0


def by_person(request: HttpRequest) -> str:
    """The signed-in person, at the place that the request comes from."""
    return f"{request.user.pk} {place_of(request)}"


def limited(
    view: View,
    name: str,
    *,
    methods: tuple[str, ...] = ("POST",),
    by: Callable[[HttpRequest], str] = place_of,
) -> View:
    """Answer 429 where one asks too often; every answer to what counts says how much is left.

    The locks on wrong passwords are narrower, and stay; this bounds the work that a stranger can
    cause: hashing passwords, asking the identity provider, looking tokens up.
    """

    @wraps(view)
    def guarded(request: HttpRequest, *args: object, **kwargs: object) -> HttpResponse:
        if request.method not in methods:
            return view(request, *args, **kwargs)
        limit = RateLimit(name, settings.LOCKSTEP["SIGN_IN_REQUESTS"], WINDOW_SECONDS)
        allowance = take(limit, by(request))
        if allowance.allowed:
            return allowance.on(view(request, *args, **kwargs))
        return allowance.on(render(request, "lockstep/sign_in/too_often.html", status=429))

    return guarded
