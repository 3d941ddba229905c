"""Putting an act on record, in the transaction that does it."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django.contrib.auth.models import AnonymousUser
from django.db import models, transaction
from django.http import HttpRequest

from apps.audit.actions import Act
from apps.audit.canonical import event_form, keyed_hash, sealing_key_id
from apps.audit.models import ActorKind, AuditEvent, AuditPending, Outcome
from apps.audit.origin import Channel, Origin, current_origin
from apps.core.clock import id_at, now
from apps.core.protected import derived_keys

if TYPE_CHECKING:
    from django.contrib.auth.models import AbstractUser

TEXT_LIMIT = 200
LIST_LIMIT = 100
NAME_DIGEST_PURPOSE = "lockstep audit names 1"
Details = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Subject:
    """What an act was done to: type such as `rules.rule`, id, and the label that it has now."""

    type: str
    id: str = ""
    label: str = ""

    @classmethod
    def of(cls, obj: models.Model, label: str | None = None) -> Subject:
        """label: instead of the object's own words, where these hold a value of a record."""
        words = str(obj) if label is None else label
        return cls(obj._meta.label_lower, "" if obj.pk is None else str(obj.pk), words)


class Stranger:
    """The actor of what somebody does who is not signed in."""


STRANGER = Stranger()


def record(
    action: Act | str,
    subject: models.Model | Subject | None = None,
    *,
    actor: AbstractUser | AnonymousUser | Stranger | None,
    outcome: Outcome = Outcome.SUCCESS,
    reason: str = "",
    details: Details | None = None,
) -> AuditEvent:
    """Add an event to the stream; call it inside the transaction of the act.

    actor: None is the system itself, STRANGER somebody who is not signed in. details: names and
    numbers that say more, by plain words: texts, whole numbers, truth values, None, lists and
    dicts of these. Never a secret, never a value of somebody's record. Raises ValueError for an
    action that is not on the list, TypeError for details of another kind.
    """
    origin = current_origin()
    moment = now()
    target = Subject.of(subject) if isinstance(subject, models.Model) else subject or Subject("")
    kind, actor_id, actor_label = _actor(actor, origin)
    if origin.credential:
        details = {**(details or {}), "credential": origin.credential}
    event = AuditEvent(
        id=id_at(moment),
        at=moment,
        action=Act(action).value,
        outcome=Outcome(outcome).value,
        actor_kind=kind.value,
        actor_id=_clean(actor_id, 40),
        actor_label=_clean(actor_label, 150),
        object_type=_clean(target.type, 60),
        object_id=_clean(target.id, 60),
        object_label=_clean(target.label, TEXT_LIMIT),
        channel=origin.channel.value,
        address=origin.address,
        request_id=origin.request_id,
        user_agent=_clean(origin.user_agent, TEXT_LIMIT),
        reason=_clean(reason, 500),
        details={_clean(name, 60): _plain(value) for name, value in (details or {}).items()},
        key_id=sealing_key_id(),
    )
    event.mac = keyed_hash(event_form(event), event.key_id)
    with transaction.atomic(savepoint=False):
        event.save()
        AuditPending.objects.create(event_id=event.id)
    return event


def record_refusal(request: HttpRequest, error: Exception) -> None:
    """Put on record that somebody who is signed in may not do what a request asks for.

    Call it after the transaction of the attempt has been rolled back.
    """
    user = getattr(request, "user", None)
    if user is not None and user.is_authenticated:
        record(
            Act.ACCESS_REFUSED,
            actor=user,
            outcome=Outcome.REFUSED,
            reason=str(error),
            details={"method": request.method or "", "path": request.path},
        )


def name_digest(name: str) -> str:
    """A keyed hash that stands for a name somebody typed: people type passwords there, too.

    The same name gives the same digest, so that attempts belong together.
    """
    key = next(iter(derived_keys(NAME_DIGEST_PURPOSE).values()))
    return hmac.digest(key, name.strip().casefold().encode(), hashlib.sha256).hex()[:16]


def _actor(
    actor: AbstractUser | AnonymousUser | Stranger | None, origin: Origin
) -> tuple[ActorKind, str, str]:
    if isinstance(actor, Stranger | AnonymousUser):
        return ActorKind.STRANGER, "", "nobody"
    if actor is not None:
        is_program = getattr(actor, "is_service", False)
        kind = ActorKind.SERVICE if is_program else ActorKind.PERSON
        return kind, str(actor.pk), actor.get_username()
    if origin.channel is Channel.COMMAND:
        return ActorKind.SYSTEM, "", f"command line ({origin.operator or 'unknown'})"
    return ActorKind.SYSTEM, "", "the system"


def _plain(value: Any) -> Any:
    """The value as it is stored and hashed: what a database gives back is the same."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int) and -(2**53) < value < 2**53:
        return int(value)
    if isinstance(value, str):
        return _clean(str(value), TEXT_LIMIT)
    if isinstance(value, Mapping):
        return {_clean(str(k), 60): _plain(v) for k, v in list(value.items())[:LIST_LIMIT]}
    if isinstance(value, Sequence) and not isinstance(value, bytes):
        kept = [_plain(item) for item in value[:LIST_LIMIT]]
        more = len(value) - len(kept)
        return [*kept, f"… and {more} more"] if more else kept
    raise TypeError(f"details of an audit event hold no {type(value).__name__}")


def _clean(text: str, limit: int) -> str:
    """Without control characters and halves of characters, which databases refuse or alter."""
    whole = text.encode("utf-8", "replace").decode()
    return "".join(c if c.isprintable() else " " for c in whole)[:limit]
