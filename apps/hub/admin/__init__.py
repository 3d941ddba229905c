"""The face for people: hub datasets, replicas, edits set aside, whose records are whose."""

from __future__ import annotations

from apps.hub.admin.datasets import HostedDatasetAdmin, RowScopeAdmin
from apps.hub.admin.edits import MutationAdmin
from apps.hub.admin.replicas import ReplicaAdmin

__all__ = ["HostedDatasetAdmin", "MutationAdmin", "ReplicaAdmin", "RowScopeAdmin"]
