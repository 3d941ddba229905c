"""What browsers are told not to do with our pages, in headers of every answer.

Scripts and styles come from our own files only, so that a value that somehow became part of a page
runs nothing. The theme's Alpine makes functions of the attributes in its templates, and sets one
width as an attribute: under the admin's path, and nowhere else, that is allowed. No inline script
is allowed anywhere.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable
from functools import cache

from django.http import HttpRequest, HttpResponse
from django.template.loader import get_template
from django.urls import reverse

ERROR_PAGE = "error_page.html"  # has to stand without files, so it carries its style
# Everything that a page of ours does not use. Passkeys are what is left.
UNUSED = (
    "accelerometer",
    "autoplay",
    "bluetooth",
    "browsing-topics",
    "camera",
    "display-capture",
    "encrypted-media",
    "fullscreen",
    "geolocation",
    "gyroscope",
    "hid",
    "identity-credentials-get",
    "idle-detection",
    "local-fonts",
    "magnetometer",
    "microphone",
    "midi",
    "payment",
    "picture-in-picture",
    "screen-wake-lock",
    "serial",
    "storage-access",
    "usb",
    "web-share",
    "xr-spatial-tracking",
)
PERMISSIONS = ", ".join(
    [
        *(f"{feature}=()" for feature in UNUSED),
        "publickey-credentials-create=(self)",
        "publickey-credentials-get=(self)",
    ]
)


class SecurityHeadersMiddleware:
    """Adds what Django's own middleware does not; a view that has set a header keeps its own."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self.get_response(request)
        is_admin = request.path.startswith(reverse("admin:index"))
        response.headers.setdefault("Content-Security-Policy", content_policy(is_admin=is_admin))
        response.headers.setdefault("Permissions-Policy", PERMISSIONS)
        response.headers.setdefault("Cross-Origin-Resource-Policy", "same-origin")
        return response


@cache
def content_policy(*, is_admin: bool = False, changed: tuple[tuple[str, str], ...] = ()) -> str:
    """The Content-Security-Policy of the admin's pages, or of all others.

    changed: directives that one page needs otherwise, with their sources.
    """
    directives = {
        "default-src": "'none'",
        "script-src": "'self' 'unsafe-eval'" if is_admin else "'self'",
        "script-src-attr": "'none'",
        "style-src": f"'self' '{_style_of_errors()}'",
        "style-src-attr": "'unsafe-inline'" if is_admin else "'none'",
        "img-src": "'self' data:",
        "font-src": "'self'",
        "connect-src": "'self'",
        "form-action": "'self'",
        "frame-ancestors": "'none'",
        "base-uri": "'none'",
    }
    directives |= dict(changed)
    return "; ".join(f"{name} {sources}" for name, sources in directives.items())


def _style_of_errors() -> str:
    """The hash of the one style that stands in a page."""
    source = get_template(ERROR_PAGE).template.source  # type: ignore[attr-defined]
    style = re.search(r"<style>(.*?)</style>", source, re.DOTALL)
    digest = hashlib.sha256(style[1].encode() if style else b"").digest()
    return f"sha256-{base64.b64encode(digest).decode()}"
