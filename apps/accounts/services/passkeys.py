"""Passkeys: the two ceremonies of WebAuthn (W3C, level 3), checked by py_webauthn.

A ceremony has two halves: options with a fresh challenge, which the caller keeps in the session,
and the browser's signed answer. A challenge is used once. Passkeys follow the password here, they
do not replace it, so the device need not verify who holds it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

import webauthn
from django.conf import settings
from django.db import IntegrityError, transaction
from django.http import HttpRequest
from django.utils.crypto import salted_hmac
from webauthn.helpers import base64url_to_bytes, options_to_json_dict
from webauthn.helpers.exceptions import WebAuthnException
from webauthn.helpers.structs import (
    AuthenticatorSelectionCriteria,
    AuthenticatorTransport,
    PublicKeyCredentialDescriptor,
    ResidentKeyRequirement,
    UserVerificationRequirement,
)

from apps.accounts.models import Passkey, User
from apps.accounts.services.factors import enrolled
from apps.connectors.errors import ConfigurationError

NAME_OF_THE_PLATFORM = "Lockstep"


class PasskeyRefused(ConfigurationError):
    code = "sign_in.passkey_refused"
    default_remedy = "Try again, or use another second factor."


@dataclass(frozen=True, slots=True)
class Place:
    """Where a ceremony happens: `domain` such as lockstep.example, `origin` with its scheme."""

    domain: str
    origin: str


def place_of(request: HttpRequest) -> Place | None:
    """Where passkeys made at this address belong; None where browsers know none.

    Browsers want a name, not a number, and HTTPS or this machine itself.
    """
    host = request.get_host()
    name = urlsplit(f"//{host}").hostname or ""
    domain = settings.LOCKSTEP["PASSKEY_DOMAIN"] or name
    at_home = name == "localhost" or name.endswith(".localhost")
    if not (request.is_secure() or at_home) or not f".{name}".endswith(f".{domain}"):
        return None
    try:
        ip_address(name)
    except ValueError:
        return Place(domain, f"{request.scheme}://{host}")
    return None


def registration_options(user: User, place: Place) -> dict[str, Any]:
    """What `navigator.credentials.create` is asked, as JSON; `challenge` is to be kept."""
    options = webauthn.generate_registration_options(
        rp_id=place.domain,
        rp_name=NAME_OF_THE_PLATFORM,
        user_id=salted_hmac("accounts.passkey", str(user.pk), algorithm="sha256").digest(),
        user_name=user.get_username(),
        user_display_name=user.get_full_name() or user.get_username(),
        authenticator_selection=AuthenticatorSelectionCriteria(
            resident_key=ResidentKeyRequirement.PREFERRED,
            user_verification=UserVerificationRequirement.PREFERRED,
        ),
        exclude_credentials=_descriptors(user, place),
    )
    return options_to_json_dict(options)


def add_passkey(
    user: User, answer: Any, challenge: str, place: Place, *, name: str, verified: bool
) -> Passkey:
    """The passkey that the browser has made. Raises PasskeyRefused, EnrolmentClosed."""
    try:
        checked = webauthn.verify_registration_response(
            credential=answer,
            expected_challenge=base64url_to_bytes(challenge),
            expected_rp_id=place.domain,
            expected_origin=place.origin,
        )
    except (WebAuthnException, ValueError) as error:
        raise PasskeyRefused("the browser's answer does not prove a passkey") from error
    transports = answer["response"].get("transports") or []
    passkey = Passkey(
        user=user,
        name=name.strip()[:64] or "Passkey",
        credential_id=checked.credential_id,
        credential_digest=hashlib.sha256(checked.credential_id).hexdigest(),
        public_key=checked.credential_public_key,
        sign_count=checked.sign_count,
        transports=[t for t in transports if t in set(AuthenticatorTransport)],
        domain=place.domain,
    )
    try:
        with transaction.atomic():
            enrolled(user, verified=verified)
            passkey.save()
    except IntegrityError as error:
        raise PasskeyRefused("this passkey is enrolled already") from error
    return passkey


def request_options(user: User, place: Place) -> dict[str, Any]:
    """What `navigator.credentials.get` is asked, as JSON; `challenge` is to be kept."""
    options = webauthn.generate_authentication_options(
        rp_id=place.domain,
        allow_credentials=_descriptors(user, place),
        user_verification=UserVerificationRequirement.PREFERRED,
    )
    return options_to_json_dict(options)


def passkey_for(user: User, answer: Any, challenge: str, place: Place) -> Passkey:
    """The passkey of `user` that signed the challenge. Raises PasskeyRefused."""
    with transaction.atomic():
        passkey = _claimed(user, answer)
        try:
            checked = webauthn.verify_authentication_response(
                credential=answer,
                expected_challenge=base64url_to_bytes(challenge),
                expected_rp_id=passkey.domain,
                expected_origin=place.origin,
                credential_public_key=bytes(passkey.public_key),
                credential_current_sign_count=passkey.sign_count,
            )
        except (WebAuthnException, ValueError) as error:
            raise PasskeyRefused("the browser's answer does not fit this passkey") from error
        passkey.sign_count = checked.new_sign_count
        passkey.set_last_used_timestamp(commit=False)
        passkey.save(update_fields=["sign_count", "last_used_at"])
    return passkey


def _claimed(user: User, answer: Any) -> Passkey:
    """The passkey that the answer says it comes from, locked."""
    try:
        credential_id = base64url_to_bytes(answer["id"])
    except (TypeError, KeyError, ValueError) as error:
        raise PasskeyRefused("the browser's answer names no passkey") from error
    digest = hashlib.sha256(credential_id).hexdigest()
    passkeys = Passkey.objects.select_for_update()
    passkey = passkeys.filter(user=user, confirmed=True, credential_digest=digest).first()
    if passkey is None:
        raise PasskeyRefused("this passkey is not enrolled here")
    return passkey


def _descriptors(user: User, place: Place) -> list[PublicKeyCredentialDescriptor]:
    return [
        PublicKeyCredentialDescriptor(
            id=bytes(passkey.credential_id),
            transports=[AuthenticatorTransport(name) for name in passkey.transports],
        )
        for passkey in Passkey.objects.filter(user=user, confirmed=True, domain=place.domain)
    ]
