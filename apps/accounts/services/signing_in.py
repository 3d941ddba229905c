"""Signing in: the password first, then a second factor; only then is there a session.

Between the two steps the browser's session holds who has given the right password and when, and
opens nothing. A person without a factor who may enrol gets a session that opens the enrolment only
(`apps.accounts.middleware`).
"""

from __future__ import annotations

from datetime import timedelta

import django_otp
from axes.handlers.proxy import AxesProxyHandler
from axes.utils import reset
from django.conf import settings
from django.contrib.auth import login
from django.contrib.auth.signals import user_login_failed
from django.http import HttpRequest
from django.utils.crypto import constant_time_compare
from django_otp.models import Device

from apps.accounts.models import User
from apps.accounts.sessions import ABOUT
from apps.audit.services import name_digest
from apps.core.addresses import client_address
from apps.core.clock import now
from apps.core.reauthentication import CONFIRMED_AT

PENDING = "sign_in_pending"
SECONDS_BETWEEN_STEPS = 600
BACKEND = "django.contrib.auth.backends.ModelBackend"


def begin_sign_in(request: HttpRequest, user: User) -> None:
    """The password was right: remember for whom, until the second step."""
    request.session.cycle_key()
    request.session[PENDING] = {
        "user": user.pk,
        "password": user.get_session_auth_hash(),
        "at": now().timestamp(),
    }


def pending_person(request: HttpRequest) -> User | None:
    """Who has given the right password a moment ago and still has it."""
    pending = request.session.get(PENDING)
    if not pending or now().timestamp() - pending["at"] > SECONDS_BETWEEN_STEPS:
        return None
    user = User.objects.filter(pk=pending["user"], is_active=True, is_staff=True).first()
    if user is None or not constant_time_compare(pending["password"], user.get_session_auth_hash()):
        return None
    return user


def complete_sign_in(request: HttpRequest, user: User, factor: Device) -> None:
    """Both steps are done: a session with a new key, verified by `factor`."""
    start_session(request, user)
    django_otp.login(request, factor)
    confirm_again(request)


def start_session(request: HttpRequest, user: User) -> None:
    """Sign in without a second factor, which opens the pages that enrol one."""
    login(request, user, backend=BACKEND)  # first: it empties another person's session
    request.session.pop(PENDING, None)
    request.session[ABOUT] = {
        "address": client_address(request) or "",
        "agent": request.headers.get("User-Agent", "")[:300],
        "began": now().isoformat(),
    }
    request.session.set_expiry(now() + timedelta(seconds=settings.SESSION_COOKIE_AGE))


def verify_session(request: HttpRequest, factor: Device) -> None:
    """The person behind this session has just proved `factor`: it gets a new key."""
    request.session.cycle_key()
    if not request.user.is_verified():  # type: ignore[union-attr]
        django_otp.login(request, factor)
    confirm_again(request)


def confirm_again(request: HttpRequest) -> None:
    """Note that the person was there just now; `core.reauthentication` asks for it."""
    request.session[CONFIRMED_AT] = now().timestamp()


def remember_failure(request: HttpRequest, user: User) -> None:
    """Count a wrong second factor like a wrong password, and tell whoever listens."""
    credentials = {"username": user.get_username()}
    user_login_failed.send(sender=__name__, credentials=credentials, request=request)


def is_locked(request: HttpRequest, user: User) -> bool:
    """Whether too many failures have locked this person's sign-in from this address."""
    return not AxesProxyHandler.is_allowed(request, {"username": user.get_username()})


def lift_locks(user: User) -> int:
    """Let the person try again at once; how many locks and counts there were."""
    return int(reset(username=name_digest(user.get_username())))
