"""Unsafe calls are done once for each idempotency key."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta

from django.db import IntegrityError, transaction

from apps.accounts.models import User
from apps.api.errors import (
    IdempotencyInFlight,
    IdempotencyKeyMissing,
    IdempotencyKeyReused,
)
from apps.api.models import IdempotentCall
from apps.core import protected
from apps.core.clock import now

KEPT = timedelta(hours=24)
LAPSE = timedelta(minutes=5)  # longer than any call takes
KEY = re.compile(r"[\x21-\x7e]{1,255}")


@dataclass(frozen=True, slots=True)
class Answer:
    """What a call was answered with."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    is_replay: bool = False


@dataclass(frozen=True, slots=True)
class Caller:
    """Whose keys these are: an account, by one credential."""

    owner: User
    credential: str


def do_once(
    caller: Caller,
    key: str,
    request_digest: str,
    act: Callable[[], Answer],
    *,
    atomic: bool = True,
) -> Answer:
    """Do `act` for a key that is new, else give the answer of the first time.

    atomic: the act and its answer are one transaction. Without, for acts that reach out to
    platforms, whoever dies in between leaves the key in flight until it lapses; then the act is
    done again, so such acts must bear that. What `act` raises leaves no trace: the same key may be
    tried again. Raises IdempotencyKeyMissing, …InFlight, …KeyReused.
    """
    if not KEY.fullmatch(key):
        raise IdempotencyKeyMissing(
            "Idempotency-Key is missing, or is not 1 to 255 printable ASCII characters"
        )
    call = _begun(caller, key, request_digest)
    if call.status is not None:
        return Answer(call.status, _body_of(call), call.headers, is_replay=True)
    try:
        if not atomic:
            return _answered(call, act())
        with transaction.atomic():
            return _answered(call, act())
    except BaseException:
        IdempotentCall.objects.filter(pk=call.pk, status=None).delete()
        raise


def forget_calls() -> int:
    """Remove the calls whose answers need not be given again; how many there were."""
    return IdempotentCall.objects.filter(expires_at__lte=now()).delete()[0]


def _begun(caller: Caller, key: str, request_digest: str) -> IdempotentCall:
    """The call of this key: a new one, or one that was answered."""
    moment = now()
    place = {"owner": caller.owner, "credential": caller.credential, "key": key}
    known = IdempotentCall.objects.filter(**place)
    known.filter(expires_at__lte=moment).delete()
    known.filter(status=None, lapses_at__lte=moment).delete()
    try:
        with transaction.atomic():
            return IdempotentCall.objects.create(
                **place,
                request_digest=request_digest,
                lapses_at=moment + LAPSE,
                expires_at=moment + KEPT,
            )
    except IntegrityError:
        call = known.first()
    if call is None:
        raise IdempotencyInFlight("a request with this key has just ended")
    if call.request_digest != request_digest:
        raise IdempotencyKeyReused("this key was sent with another request before")
    if call.status is None:
        raise IdempotencyInFlight("a request with this key is being done")
    return call


def _answered(call: IdempotentCall, answer: Answer) -> Answer:
    """Keep the answer. Raises IdempotencyInFlight where the call had lapsed meanwhile."""
    kept = IdempotentCall.objects.filter(pk=call.pk, status=None).update(
        status=answer.status,
        headers=dict(answer.headers),
        sealed_body=protected.seal(answer.body, call.place),
    )
    if kept != 1:
        raise IdempotencyInFlight("this request took too long; its key was used again")
    return answer


def _body_of(call: IdempotentCall) -> bytes:
    return protected.unseal(call.sealed_body, call.place) if call.sealed_body else b""
