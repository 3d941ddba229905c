"""How often one client may ask."""

from __future__ import annotations

import math

from django.conf import settings
from rest_framework.request import Request

from apps.accounts.services import TokenRefused
from apps.api.errors import Throttled
from apps.core.rate_limits import Allowance, RateLimit, place_of, take

WINDOW_SECONDS = 60.0


def count(request: Request) -> Allowance:
    """Count a request for the client that it comes from; without a valid one, for its address.

    Raises TokenRefused as authentication does, once it has counted.
    """
    refused = None
    try:
        client = request.auth.name if request.auth else ""
    except TokenRefused as error:
        client, refused = "", error
    limit = RateLimit("api", settings.LOCKSTEP["API_REQUESTS"], WINDOW_SECONDS)
    allowance = take(limit, client or f"from {place_of(request._request)}")
    if refused is not None and allowance.allowed:
        raise refused
    return allowance


def require(allowance: Allowance) -> None:
    """Raise Throttled where there was nothing left."""
    if not allowance.allowed:
        wait = max(math.ceil(allowance.wait), 1)
        raise Throttled(f"more than {allowance.limit.most} requests in a minute: wait {wait} s")
