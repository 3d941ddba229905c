"""The sidebar: groups and entries, each shown to those who may open it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.http import HttpRequest
from django.urls import reverse_lazy


def _may(permission: str) -> Callable[[HttpRequest], bool]:
    return lambda request: request.user.has_perm(permission)


def _entry(title: str, icon: str, url: str, permission: str, badge: str = "") -> dict[str, Any]:
    entry: dict[str, Any] = {
        "title": title,
        "icon": icon,
        "link": reverse_lazy(f"admin:{url}"),
        "permission": _may(permission),
    }
    if badge:
        entry["badge"] = badge
    return entry


def _is_change_page(request: HttpRequest) -> bool:
    """Changes, but not the time machine, whose pages hang below them."""
    place = request.path.partition("/ledger/change/")
    return bool(place[1]) and not place[2].startswith("records/")


ACCOUNT_LINKS = [
    {"title": "Sign-in security", "link": reverse_lazy("admin:security")},
    {"title": "Your tokens", "link": reverse_lazy("admin:tokens")},
    {"title": "Change password", "link": reverse_lazy("admin:password_change")},
]

SIDEBAR = [
    {
        "title": "",
        "items": [
            {"title": "Overview", "icon": "space_dashboard", "link": reverse_lazy("admin:index")},
            _entry("New sync", "add_circle", "new_sync", "rules.add_rule"),
        ],
    },
    {
        "title": "Operate",
        "separator": True,
        "items": [
            _entry(
                "Runs",
                "play_circle",
                "runs_run_changelist",
                "runs.view_run",
                "apps.console.navigation.waiting_runs",
            ),
            _entry(
                "Conflict inbox",
                "call_split",
                "ledger_conflict_changelist",
                "ledger.view_conflict",
                "apps.console.navigation.open_conflicts",
            ),
            _entry(
                "Incidents",
                "notifications_active",
                "alerts_incident_changelist",
                "alerts.view_incident",
                "apps.console.navigation.loud_incidents",
            ),
            _entry(
                "Rejections",
                "rule",
                "ledger_rejection_changelist",
                "ledger.view_rejection",
                "apps.console.navigation.open_rejections",
            ),
            _entry("Edits set aside", "edit_off", "hub_mutation_changelist", "hub.view_mutation"),
            _entry("Replicas", "devices", "hub_replica_changelist", "hub.view_replica"),
            _entry(
                "Restore requests",
                "settings_backup_restore",
                "runs_restorerequest_changelist",
                "runs.view_restorerequest",
                "apps.console.navigation.open_restore_requests",
            ),
            {
                **_entry("Changes", "difference", "ledger_change_changelist", "ledger.view_change"),
                "active": _is_change_page,
            },
        ],
    },
    {
        "title": "Configure",
        "separator": True,
        "items": [
            _entry("Sources", "database", "sources_source_changelist", "sources.view_source"),
            _entry("Datasets", "table", "sources_dataset_changelist", "sources.view_dataset"),
            _entry("Hub datasets", "hub", "hub_hosteddataset_changelist", "hub.view_hosteddataset"),
            _entry(
                "Mappings",
                "conversion_path",
                "mappings_mapping_changelist",
                "mappings.view_mapping",
            ),
            _entry("Rules", "sync_alt", "rules_rule_changelist", "rules.view_rule"),
            _entry(
                "Escalation",
                "campaign",
                "alerts_escalationpolicy_changelist",
                "alerts.view_escalationpolicy",
            ),
            _entry("Channels", "send", "alerts_channel_changelist", "alerts.view_channel"),
            _entry(
                "Lookup tables",
                "menu_book",
                "mappings_lookuptable_changelist",
                "mappings.view_lookuptable",
            ),
        ],
    },
    {
        "title": "Investigate",
        "separator": True,
        "items": [
            _entry("Record time machine", "history", "ledger_change_find", "ledger.view_change"),
            _entry("Schema drift", "schema", "sources_drift_changelist", "sources.view_drift"),
            _entry(
                "Data inventory", "inventory_2", "sources_field_changelist", "sources.view_field"
            ),
            _entry(
                "Audit log",
                "policy",
                "audit_auditevent_changelist",
                "audit.view_auditevent",
                "apps.console.navigation.audit_alarm",
            ),
        ],
    },
    {
        "title": "Administer",
        "separator": True,
        "items": [
            _entry("Users", "person", "accounts_user_changelist", "accounts.view_user"),
            _entry(
                "Service accounts",
                "smart_toy",
                "accounts_serviceaccount_changelist",
                "accounts.view_serviceaccount",
            ),
            _entry("Accounts' records", "groups", "hub_rowscope_changelist", "hub.view_rowscope"),
            _entry("OAuth clients", "apps", "api_oauthclient_changelist", "api.view_oauthclient"),
            _entry("Roles", "badge", "auth_group_changelist", "auth.view_group"),
            _entry("Encryption", "lock", "core_datakey_changelist", "core.view_datakey"),
        ],
    },
]
