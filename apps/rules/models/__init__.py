"""When and how a mapping is kept in step. Versions are immutable; runs are pinned to one."""

from apps.rules.models.check import Check
from apps.rules.models.draft import SyncDraft
from apps.rules.models.rule import Rule
from apps.rules.models.two_way import FieldPolicy, Policy, Winner
from apps.rules.models.version import RuleVersion

__all__ = [
    "Check",
    "FieldPolicy",
    "Policy",
    "Rule",
    "RuleVersion",
    "SyncDraft",
    "Winner",
]
