"""Replicas: known since they first came, seen when they come, sent away when somebody says so."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

from django.db import transaction

from apps.accounts.models import User
from apps.audit.actions import Act
from apps.audit.services import record
from apps.core.clock import now
from apps.core.selectors import require
from apps.hub.errors import ReplicaRevoked
from apps.hub.models import HostedDataset, Replica, ReplicaProgress
from apps.hub.selectors import replicas

NOTED_EVERY = timedelta(seconds=10)  # a replica that asks all the time costs no more writes


def replica_of(account: User, client_id: UUID) -> Replica:
    """The replica of an account's app; known from now on. Raises ReplicaRevoked."""
    replica, _ = Replica.objects.get_or_create(account=account, client_id=client_id)
    if replica.revoked_at is not None:
        raise ReplicaRevoked("the access of this replica was taken back")
    return replica


def name_replica(account: User, client_id: UUID, name: str, app_version: str) -> Replica:
    """What an app says of itself. Raises ReplicaRevoked."""
    replica = replica_of(account, client_id)
    replica.name, replica.app_version = name[:100], app_version[:60]
    replica.last_seen_at = now()
    replica.save(update_fields=["name", "app_version", "last_seen_at", "updated_at"])
    return replica


def note_progress(
    replica: Replica, hosted: HostedDataset, *, pulled: int | None, schema: int | None
) -> None:
    """Note that a replica was here, and how far it is; not each time it asks."""
    moment = now()
    row, _ = ReplicaProgress.objects.get_or_create(replica=replica, hosted=hosted)
    is_known = pulled is None or row.pulled == pulled
    if is_known and row.seen_at is not None and moment - row.seen_at < NOTED_EVERY:
        return
    seen = {"seen_at": moment}
    if pulled is not None:
        seen["pulled"] = pulled
    if schema is not None:
        seen["schema_number"] = schema
    ReplicaProgress.objects.filter(pk=row.pk).update(**seen)
    Replica.objects.filter(pk=replica.pk).update(last_seen_at=moment)


@transaction.atomic
def revoke_replica(replica: Replica, *, actor: User | None, reason: str = "") -> None:
    """Take the access of a replica back; what it has not pushed yet stays with it."""
    require(actor, replicas, "revoke", replica)
    if replica.revoked_at is None:
        replica.revoked_at = now()
        replica.save(update_fields=["revoked_at", "updated_at"])
        record(Act.REPLICA_REVOKED, replica, actor=actor, reason=reason)
