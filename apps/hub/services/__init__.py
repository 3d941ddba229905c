"""Writes about the hub.

`actor` is who asks; None is the system itself. All raise PermissionDenied where the actor may not
do this to this object.
"""

from __future__ import annotations

from apps.hub.services.datasets import (
    NewDataset,
    change_schema,
    host_dataset,
    hub_source,
    make_hosted,
    save_hosted,
    set_row_scope,
)
from apps.hub.services.deciding import decide, values_aside
from apps.hub.services.pushing import Outcome, push
from apps.hub.services.replicas import (
    name_replica,
    note_progress,
    replica_of,
    revoke_replica,
)
from apps.hub.services.tickets import issue_ticket, use_ticket

__all__ = [
    "NewDataset",
    "Outcome",
    "change_schema",
    "decide",
    "host_dataset",
    "hub_source",
    "issue_ticket",
    "make_hosted",
    "name_replica",
    "note_progress",
    "push",
    "replica_of",
    "revoke_replica",
    "save_hosted",
    "set_row_scope",
    "use_ticket",
    "values_aside",
]
