"""Tickets: a browser's stream cannot send a header, so it brings one of these in its address."""

from __future__ import annotations

import hashlib
import secrets
from datetime import timedelta
from uuid import UUID

from django.db import transaction

from apps.accounts.models import User
from apps.core.clock import now
from apps.hub.errors import TicketRefused
from apps.hub.models import HostedDataset, Ticket
from apps.hub.selectors import hosted_as, hosted_datasets

SECONDS = 30


def issue_ticket(hosted: HostedDataset, account: User) -> str:
    """A text that opens one stream of this dataset, within `SECONDS`."""
    text = secrets.token_urlsafe(32)
    Ticket.objects.filter(expires_at__lt=now()).delete()
    Ticket.objects.create(
        digest=_digest(text),
        hosted=hosted,
        account=account,
        expires_at=now() + timedelta(seconds=SECONDS),
    )
    return text


@transaction.atomic
def use_ticket(text: str, dataset_id: UUID) -> HostedDataset:
    """The dataset whose stream it opens; nobody opens it twice. Raises TicketRefused."""
    rows = Ticket.objects.select_for_update(of=("self",)).select_related("account")
    ticket = rows.filter(digest=_digest(text), expires_at__gt=now()).first()
    if ticket is None:
        raise TicketRefused("there is no such ticket, or it was used")
    ticket.delete()
    hosted = hosted_as(hosted_datasets(ticket.account, "pull"), dataset_id)
    if hosted is None or hosted.pk != ticket.hosted_id:
        raise TicketRefused("this ticket is for another dataset")
    return hosted


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
