"""What a program may be allowed to do: each scope stands for some permissions.

Whoever acts by a token holds at most the permissions of its scopes, and of these only what the
account behind it holds at that moment. No scope reveals personal values, gives rights, or opens
what protects the platform itself (people, keys, the audit log's exports).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from apps.core.selectors import REACH_ALL


@dataclass(frozen=True, slots=True)
class Scope:
    """name: as clients ask for it; says: what it allows, for people."""

    name: str
    says: str
    permissions: frozenset[str]


def _scope(name: str, says: str, *permissions: str) -> Scope:
    return Scope(name, says, frozenset(permissions))


SCOPES = {
    scope.name: scope
    for scope in (
        _scope(
            "sources:read",
            "See sources, their datasets and fields",
            "sources.view_source",
            "sources.view_dataset",
            "sources.view_field",
        ),
        _scope(
            "sources:write",
            "Add and change sources, test, discover and pause them, keep the data inventory",
            "sources.add_source",
            "sources.change_source",
            "sources.check_source",
            "sources.discover_source",
            "sources.pause_source",
            "sources.change_dataset",
            "sources.change_field",
        ),
        _scope(
            "mappings:read",
            "See mappings",
            "mappings.view_mapping",
            "mappings.view_mappingversion",
        ),
        _scope(
            "mappings:write",
            "Add and change mappings, expressions among them",
            "mappings.add_mapping",
            "mappings.change_mapping",
            "mappings.author_expressions",
        ),
        _scope("rules:read", "See rules", "rules.view_rule", "rules.view_ruleversion"),
        _scope(
            "rules:write",
            "Add and change rules, enable and pause them",
            "rules.add_rule",
            "rules.change_rule",
            "rules.pause_rule",
            "mappings.author_expressions",
        ),
        _scope(
            "runs:read",
            "See runs, their progress, counters and log",
            "runs.view_run",
            "runs.view_partition",
        ),
        _scope("runs:start", "Start and cancel runs", "rules.run_rule", "runs.cancel_run"),
        _scope("runs:approve", "Approve and reject plans", "runs.approve_run"),
        _scope("runs:undo", "Undo runs", "runs.undo_run", "rules.view_rule"),
        _scope(
            "records:read",
            "See changes and the history of records, personal values masked",
            "ledger.view_change",
        ),
        _scope("conflicts:read", "See conflicts, personal values masked", "ledger.view_conflict"),
        _scope("conflicts:decide", "Decide conflicts", "ledger.decide_conflict"),
        _scope(
            "rejections:read",
            "See rejections, personal values masked",
            "ledger.view_rejection",
        ),
        _scope("rejections:replay", "Replay and dismiss rejections", "ledger.replay_rejection"),
        _scope(
            "metrics:read",
            "Read figures of rules, runs and incidents, as Prometheus does",
            "rules.view_rule",
            "runs.view_run",
            "runs.view_partition",
            "ledger.view_rejection",
            "ledger.view_conflict",
            "alerts.view_incident",
        ),
        _scope(
            "hub:read",
            "Pull the records of hub datasets, and see the replicas of them",
            "hub.pull_hosteddataset",
            "hub.view_replica",
        ),
        _scope("hub:write", "Push edits to hub datasets", "hub.push_hosteddataset"),
        _scope("audit:read", "Read the audit log", "audit.view_auditevent"),
    )
}

CHOICES = [(scope.name, f"{scope.name} – {scope.says}") for scope in SCOPES.values()]


def permissions_of(names: Iterable[str]) -> frozenset[str]:
    """What somebody may hold at most who acts with these scopes.

    Which objects are reached is not said by scopes; names that no scope has allow nothing.
    """
    held = (SCOPES[name].permissions for name in names if name in SCOPES)
    return frozenset({REACH_ALL}).union(*held)
