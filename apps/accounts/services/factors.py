"""Enrolling, using and removing second factors."""

from __future__ import annotations

import math
import re
import secrets
from datetime import timedelta

import django_otp
from django.contrib.auth.hashers import make_password
from django.db import transaction
from django_otp.models import Device

from apps.accounts.models import AuthenticatorApp, RecoveryCode, RecoveryCodes, User
from apps.accounts.models.factors import SELECTOR_LENGTH, SIX_DIGITS
from apps.accounts.selectors import identities, may_enrol, own_factors
from apps.accounts.services.sessions import end_sessions
from apps.audit.actions import Act
from apps.audit.services import record
from apps.connectors.errors import Action, ConfigurationError, LockstepError
from apps.core.clock import now

CODES = 10
# 31 letters that nobody mistakes for one another; 12 of them behind the selector are 59 bits.
LETTERS = "abcdefghjkmnpqrstuvwxyz23456789"
CODE_LENGTH = 16


class LastFactor(ConfigurationError):
    code = "sign_in.last_factor"
    default_remedy = "Add another authenticator app or passkey first."


class WaitFirst(LockstepError):
    """After wrong codes no code is looked at for a while, not even the right one."""

    code = "sign_in.wait"
    action = Action.RETRY
    default_remedy = "Wait, then take a fresh code."


class EnrolmentClosed(ConfigurationError):
    code = "sign_in.enrolment_closed"
    default_remedy = "Ask an administrator for an invitation or a one-time password."


def begin_authenticator(user: User) -> AuthenticatorApp:
    """The app that the person is about to confirm: the same one for an hour."""
    unconfirmed = AuthenticatorApp.objects.filter(user=user, confirmed=False)
    unconfirmed.filter(created_at__lt=now() - timedelta(hours=1)).delete()
    app = unconfirmed.first()
    if app is None:
        app = AuthenticatorApp.with_new_seed(user=user, name="Authenticator app", confirmed=False)
        app.save()
    return app


def confirm_authenticator(
    user: User, code: str, *, verified: bool, name: str = ""
) -> AuthenticatorApp | None:
    """The app, confirmed by its first code; None when the code is wrong.

    verified: whether the person has proved a factor in this session. Raises EnrolmentClosed
    where not and this is not the time to enrol a first one, WaitFirst after wrong codes.
    """
    app = begin_authenticator(user)
    _refuse_while_waiting(app)
    if not django_otp.verify_token(user, app.persistent_id, squeezed(code)):
        return None
    with transaction.atomic():
        enrolled(user, verified=verified)
        named = {"name": name.strip()} if name.strip() else {}
        AuthenticatorApp.objects.filter(pk=app.pk).update(confirmed=True, **named)
    app.refresh_from_db()
    return app


def enrolled(user: User, *, verified: bool) -> None:
    """Refuse a factor that nobody may add now; close the time for a first one."""
    person = User.objects.select_for_update().get(pk=user.pk)
    if not verified and not may_enrol(person):
        raise EnrolmentClosed("the time to enrol a second factor has passed", where=str(user))
    if person.enrolment_ends_at is not None:
        person.enrolment_ends_at = None
        person.save(update_fields=["enrolment_ends_at"])
    record(Act.FACTOR_ADDED, user, actor=user)


def new_recovery_codes(user: User) -> list[str]:
    """Ten new codes such as `abcd-efgh-jkmn-pqrs`; the old ones are void from now on.

    They are kept as salted hashes, so this is the only time that they can be shown.
    """
    codes: dict[str, str] = {}
    while len(codes) < CODES:
        code = "".join(secrets.choice(LETTERS) for _ in range(CODE_LENGTH))
        codes[code[:SELECTOR_LENGTH]] = code
    rows = [
        RecoveryCode(selector=selector, digest=make_password(code[SELECTOR_LENGTH:]))
        for selector, code in codes.items()
    ]
    with transaction.atomic():
        sheet, _ = RecoveryCodes.objects.get_or_create(
            user=user, defaults={"name": "Recovery code"}
        )
        sheet.throttle_reset()
        sheet.codes.all().delete()
        for row in rows:
            row.sheet = sheet
        RecoveryCode.objects.bulk_create(rows)
    return ["-".join(re.findall("....", code)) for code in codes.values()]


def factor_for(user: User, code: str) -> Device | None:
    """The factor of `user` that `code` proves: six digits of an app, else a recovery code.

    Raises WaitFirst after wrong ones.
    """
    squeezed_code = squeezed(code)
    kind = AuthenticatorApp if SIX_DIGITS.fullmatch(squeezed_code) else RecoveryCodes
    devices = kind.objects.filter(user=user, confirmed=True)
    for device in devices:
        _refuse_while_waiting(device)
        if django_otp.verify_token(user, device.persistent_id, squeezed_code):
            # What was typed was no guess at the person's other apps.
            devices.exclude(pk=device.pk).update(throttling_failure_count=0)
            return device
    return None


def _refuse_while_waiting(device: Device) -> None:
    allowed, why = device.verify_is_allowed()
    if not allowed:
        seconds = math.ceil((why["locked_until"] - now()).total_seconds())
        raise WaitFirst(f"too many wrong codes: the next one counts in {max(seconds, 1)} s")


def squeezed(code: str) -> str:
    """The code without the blanks and dashes that people type for their eyes."""
    return re.sub(r"[\s-]", "", code).lower()


def remove_factor(user: User, persistent_id: str, *, kept_session: str | None = None) -> str:
    """Remove one of the person's factors and end all sessions but `kept_session`.

    Gives the factor's name. Raises LastFactor when none would be left that lets the person in.
    """
    with transaction.atomic():
        User.objects.select_for_update().get(pk=user.pk)
        factors = [*own_factors(user), *identities(user)]
        factor = next((f for f in factors if f.persistent_id == persistent_id), None)
        if factor is None:
            return ""
        if not any(f != factor and getattr(f, "strong", True) for f in factors):
            raise LastFactor("this is the only second factor", where=factor.name)
        factor.delete()
        end_sessions(user, but=kept_session)
        record(Act.FACTOR_REMOVED, user, actor=user)
    return str(factor.name)


def remove_all_factors(user: User) -> None:
    """Forget every factor and recovery code, end all sessions: the person enrols anew."""
    with transaction.atomic():
        for device in django_otp.devices_for_user(user, confirmed=None):
            device.delete()
        end_sessions(user)
