"""The address that a request comes from."""

from __future__ import annotations

import ipaddress
from typing import cast

from django.conf import settings
from django.http import HttpRequest


def client_address(request: HttpRequest) -> str | None:
    """The client's address as text, None where there is none.

    `X-Forwarded-For` is what clients say they are, except for the entries that our own proxies
    have appended. With `TRUSTED_PROXIES` = n, the n-th entry from the right is the client's; with
    0 the header is not looked at.
    """
    proxies = cast("int", settings.LOCKSTEP["TRUSTED_PROXIES"])
    text = request.META.get("REMOTE_ADDR", "")
    if proxies:
        header = request.headers.get("X-Forwarded-For", "")
        chain = [part.strip() for part in header.split(",") if part.strip()]
        if len(chain) >= proxies:
            text = chain[-proxies]
    try:
        return str(ipaddress.ip_address(text.strip("[]")))
    except ValueError:
        return None
