"""What a person proves to hold beside the password: an authenticator app, passkeys, codes.

Each is a django-otp device, so `request.user.is_verified()` says whether one was used. The
library's own devices keep seeds and codes in clear; these keep a sealed seed and hashes.
"""

from __future__ import annotations

import re
import secrets
from typing import Any

from django.contrib.auth.hashers import check_password
from django.db import models
from django_otp.models import Device, ThrottlingMixin, TimestampMixin
from django_otp.oath import TOTP

from apps.core import protected
from apps.core.clock import new_id, now
from apps.core.fields import SealedField

SEED_BYTES = 20  # what authenticator apps expect of HMAC-SHA-1 (RFC 4226, section 4)
STEPS_OF_TOLERANCE = 1  # of 30 seconds each, for clocks that differ
SIX_DIGITS = re.compile(r"[0-9]{6}")
SELECTOR_LENGTH = 4


class Factor(TimestampMixin, Device):  # type: ignore[misc]
    """One thing that proves a person beside the password."""

    class Meta:
        abstract = True

    def __str__(self) -> str:
        return str(self.name)


class GuessedFactor(ThrottlingMixin, Factor):  # type: ignore[misc]
    """A factor that can be guessed: after each wrong code, twice as long a wait."""

    class Meta:
        abstract = True

    def get_throttle_factor(self) -> int:
        return 1

    def verify_token(self, token: str) -> bool:
        """Whether `token` is right, now and for the first time. Call it inside a transaction."""
        if not self.verify_is_allowed()[0]:
            return False
        if not self.takes(token):
            self.throttle_increment()
            return False
        self.throttle_reset(commit=False)
        self.set_last_used_timestamp(commit=False)
        self.save()
        return True

    def takes(self, token: str) -> bool:
        raise NotImplementedError


class AuthenticatorApp(GuessedFactor):
    """Six digits that change every thirty seconds (RFC 6238). Each is taken once."""

    reference = models.UUIDField(default=new_id, unique=True, editable=False)
    sealed_seed = SealedField(place="authenticator|{reference}|seed")
    drift = models.SmallIntegerField(default=0, editable=False)  # steps that its clock is off
    last_step = models.BigIntegerField(default=-1, editable=False)

    class Meta:
        verbose_name = "authenticator app"

    @classmethod
    def with_new_seed(cls, **fields: Any) -> AuthenticatorApp:
        """An unsaved one."""
        app = cls(**fields)
        app.sealed_seed = protected.seal(secrets.token_bytes(SEED_BYTES), app._place)
        return app

    @property
    def _place(self) -> str:
        return f"authenticator|{self.reference}|seed"

    @property
    def seed(self) -> bytes:
        """Raises ProtectedValueError when its encryption key is not there."""
        return protected.unseal(self.sealed_seed, self._place)

    def takes(self, token: str) -> bool:
        if not SIX_DIGITS.fullmatch(token):
            return False
        clock = TOTP(self.seed, drift=self.drift)
        clock.time = now().timestamp()
        if not clock.verify(int(token), STEPS_OF_TOLERANCE, self.last_step + 1):
            return False
        self.last_step, self.drift = clock.t(), clock.drift
        return True


class Passkey(Factor):
    """A WebAuthn credential: a key pair whose private half never leaves its owner's device."""

    credential_id = models.BinaryField(editable=False)
    credential_digest = models.CharField(max_length=64, unique=True, editable=False)  # SHA-256
    public_key = models.BinaryField(editable=False)  # COSE
    sign_count = models.PositiveBigIntegerField(default=0, editable=False)
    transports = models.JSONField(default=list, editable=False)
    domain = models.CharField(max_length=253, editable=False)  # works there and nowhere else

    class Meta:
        verbose_name = "passkey"


class ExternalIdentity(Factor):
    """Who the person is at the organisation's identity provider (OpenID Connect).

    Found by issuer and subject alone: addresses of mail change hands, and another issuer may give
    the same ones. It counts as a second factor where the provider said that it asked for one.
    """

    issuer = models.CharField(max_length=255, editable=False)
    subject = models.CharField(max_length=255, editable=False)
    strong = models.BooleanField(default=False, editable=False)  # so it was the last time

    class Meta:
        verbose_name = "single sign-on"
        verbose_name_plural = "single sign-ons"
        constraints = [
            models.UniqueConstraint(fields=["issuer", "subject"], name="one_person_per_identity")
        ]


class RecoveryCodes(GuessedFactor):
    """A sheet of codes for the day when the other factors are gone; each is taken once."""

    class Meta:
        verbose_name = "sheet of recovery codes"
        verbose_name_plural = "sheets of recovery codes"
        constraints = [models.UniqueConstraint(fields=["user"], name="one_sheet_per_person")]

    def takes(self, token: str) -> bool:
        selector, rest = token[:SELECTOR_LENGTH], token[SELECTOR_LENGTH:]
        for code in self.codes.filter(selector=selector, used_at=None):
            if check_password(rest, code.digest):
                unused = self.codes.filter(pk=code.pk, used_at=None)
                return bool(unused.update(used_at=now()) == 1)
        return False


class RecoveryCode(models.Model):
    """One code: its first letters to find it by, and a salted hash of the others."""

    sheet = models.ForeignKey(RecoveryCodes, on_delete=models.CASCADE, related_name="codes")
    selector = models.CharField(max_length=SELECTOR_LENGTH)
    digest = models.CharField(max_length=128)
    used_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["sheet", "selector"], name="one_code_per_selector")
        ]

    def __str__(self) -> str:
        return f"recovery code {self.pk}"
