"""Dangerous acts ask for a person who has proved to be there just now.

Any face calls `require_recent_sign_in`; the middleware of the room that knows sign-in pages turns
the exception into the page that asks, and leads back.
"""

from __future__ import annotations

from django.http import HttpRequest

from apps.core.clock import now

CONFIRMED_AT = "confirmed_at"  # key of the session: seconds
RECENT_SECONDS = 15 * 60
# Who opened a form in time may take so long to fill it in.
RECENT_SECONDS_OF_FORMS = 45 * 60


class RecentSignInNeeded(Exception):
    """The person signed in too long ago for this act."""


def require_recent_sign_in(request: HttpRequest, *, form: bool = False) -> None:
    """Raise RecentSignInNeeded unless the person has proved a factor a short while ago.

    form: this is a page whose form does something dangerous when it is sent.
    """
    sending = form and request.method == "POST"
    allowed = RECENT_SECONDS_OF_FORMS if sending else RECENT_SECONDS
    if now().timestamp() - request.session.get(CONFIRMED_AT, 0) > allowed:
        raise RecentSignInNeeded
