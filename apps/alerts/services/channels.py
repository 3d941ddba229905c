"""The ways out: mail by the platform's server, webhooks signed as Standard Webhooks has it."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from django.conf import settings
from django.core.mail import EmailMessage
from django.db import transaction
from requests import RequestException

from apps.alerts.models import Channel, Delivery
from apps.alerts.selectors import channels
from apps.alerts.services.errors import ChannelInvalid, NotDelivered
from apps.connectors.errors import LockstepError
from apps.connectors.outbound.http import checked_session
from apps.core.clock import now
from apps.core.protected import seal, unseal
from apps.core.selectors import require

if TYPE_CHECKING:
    from apps.accounts.models import User

SECRET_BYTES = 32
SECRET_PREFIX = "whsec_"  # noqa: S105  # nosec B105  # how such secrets begin
SECONDS = 15.0


def save_channel(channel: Channel, *, actor: User | None) -> str | None:
    """Store a channel; gives the secret of a new webhook, shown once. Raises ChannelInvalid."""
    require(actor, channels, "save", channel)
    if channel.kind == Channel.Kind.WEBHOOK:
        parts = urlsplit(channel.url)
        if parts.scheme not in ("https", "http") or not parts.hostname:
            raise ChannelInvalid(
                "a webhook needs an address",
                where="url",
                remedy="Give one that begins with https://.",
            )
    secret = None
    if channel.kind == Channel.Kind.WEBHOOK and channel.sealed_secret is None:
        secret = _give_secret(channel)
    channel.save()
    return secret


@transaction.atomic
def renew_secret(channel: Channel, *, actor: User | None) -> str:
    """Give the webhook another secret; the old one signs nothing from now on."""
    require(actor, channels, "change", channel)
    secret = _give_secret(channel)
    channel.save()
    return secret


def _give_secret(channel: Channel) -> str:
    raw = os.urandom(SECRET_BYTES)
    channel.sealed_secret = seal(raw, channel.place)
    return SECRET_PREFIX + base64.b64encode(raw).decode()


@transaction.atomic
def test_channel(channel: Channel, *, actor: User | None) -> Delivery:
    """Send a test message: mail to whoever asks for it, else to the address.

    Raises ChannelInvalid.
    """
    require(actor, channels, "test", channel)
    recipient = actor.email if actor is not None and channel.kind == Channel.Kind.MAIL else ""
    if channel.kind == Channel.Kind.MAIL and not recipient:
        raise ChannelInvalid(
            "your account has no mail address", remedy="Enter one on the page of your account."
        )
    return Delivery.objects.create(
        channel=channel,
        recipient=recipient,
        occasion=f"test {now().timestamp():.3f}",
        next_attempt_at=now(),
    )


def send_mail(recipient: str, subject: str, text: str) -> None:
    """Raises NotDelivered, ChannelInvalid."""
    if not settings.LOCKSTEP["MAIL_CONFIGURED"]:
        raise ChannelInvalid(
            "no mail server is configured", remedy="Set LOCKSTEP_MAIL_URL and LOCKSTEP_MAIL_FROM."
        )
    message = EmailMessage(subject=" ".join(subject.split())[:200], body=text, to=[recipient])
    try:
        message.send()
    except OSError as error:  # of sockets, TLS and SMTP
        raise NotDelivered(f"the mail server took no message ({type(error).__name__})") from error


def signature(secret: bytes, message_id: str, timestamp: int, body: bytes) -> str:
    """`webhook-signature` of the Standard Webhooks specification, version 1."""
    signed = f"{message_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(secret, signed, hashlib.sha256).digest()).decode()


def send_webhook(channel: Channel, message_id: str, body: bytes) -> None:
    """Raises NotDelivered, ChannelInvalid; what the address may be, the outbound guard says."""
    if channel.sealed_secret is None:
        raise ChannelInvalid("the webhook has no secret", remedy="Renew its secret.")
    timestamp = int(now().timestamp())
    secret = unseal(channel.sealed_secret, channel.place)
    headers = {
        "content-type": "application/json",
        "user-agent": "Lockstep",
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": signature(secret, message_id, timestamp, body),
    }
    try:
        with (
            checked_session() as session,
            session.post(
                channel.url,
                data=body,
                headers=headers,
                timeout=SECONDS,
                allow_redirects=False,
                stream=True,  # what it says beside its status is not read: it may never end
            ) as answer,
        ):
            status = answer.status_code
    except LockstepError:
        raise
    except (RequestException, OSError) as error:
        raise NotDelivered(f"the address did not answer ({type(error).__name__})") from error
    if not 200 <= status < 300:
        raise NotDelivered(f"the address answered {status}")
