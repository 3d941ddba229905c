"""The roles that Lockstep brings, and what each may do.

Patterns name permissions as `room.verb_model`, with the wildcards of shells, so that the views of a
later model reach those who look at everything. They are handed out once (`services.hand_out`):
what an administrator takes away or adds afterwards stays so.
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase

from apps.core.selectors import REACH_ALL

_LOOK = (
    "sources.view_*",
    "mappings.view_*",
    "rules.view_*",
    "runs.view_*",
    "ledger.view_*",
    "alerts.view_incident",
    "hub.view_*",
)
_OPERATE = (
    *_LOOK,
    "sources.check_source",
    "sources.discover_source",
    "sources.pause_source",
    "sources.change_drift",
    "sources.reveal_field",
    "rules.run_rule",
    "rules.pause_rule",
    "runs.cancel_run",
    "runs.add_restorerequest",
    "ledger.decide_conflict",
    "ledger.replay_rejection",
    "alerts.handle_incident",
    "hub.decide_mutation",
    "hub.revoke_replica",
)


@dataclass(frozen=True, slots=True)
class Role:
    """A role as it comes: `key` stays when an administrator renames the group."""

    key: str
    name: str
    purpose: str
    patterns: tuple[str, ...]

    def wants(self, permission: str) -> bool:
        """Whether the role comes with this permission (`room.codename`)."""
        return any(fnmatchcase(permission, pattern) for pattern in self.patterns)


ROLES = (
    Role(
        "administrator",
        "Administrator",
        "Configures everything, and says who may do what.",
        ("*",),
    ),
    Role(
        "operator",
        "Operator",
        "Keeps the granted rules running: starts, pauses, decides conflicts, replays rejections.",
        _OPERATE,
    ),
    Role(
        "approver",
        "Approver",
        "An operator who also approves plans and restores, and undoes what was written.",
        (*_OPERATE, "runs.approve_run", "runs.undo_run", "runs.decide_restorerequest"),
    ),
    Role(
        "support",
        "Support",
        "Looks records of the granted rules up, personal values masked, and asks for restores.",
        (*_LOOK, "runs.add_restorerequest"),
    ),
    Role(
        "auditor",
        "Auditor",
        "Sees everything, personal values masked, and changes nothing; reads, exports and "
        "verifies the audit log.",
        ("*.view_*", "audit.export_auditevent", "audit.verify_auditevent", REACH_ALL),
    ),
    Role(
        "api_client",
        "API client",
        "A program that starts the granted rules and watches their runs; sees no record.",
        (
            "sources.view_source",
            "sources.view_dataset",
            "sources.view_field",
            "mappings.view_mapping",
            "mappings.view_mappingversion",
            "rules.view_rule",
            "rules.view_ruleversion",
            "rules.run_rule",
            "runs.view_run",
            "runs.view_partition",
            "runs.cancel_run",
        ),
    ),
    Role(
        "client_app",
        "Client app",
        "A program that keeps a copy of the granted hub datasets: pulls from and pushes to them.",
        ("hub.pull_hosteddataset", "hub.push_hosteddataset", "hub.view_replica"),
    ),
)
