"""Pages about rules."""

from apps.rules.admin.rule import RuleAdmin

__all__ = ["RuleAdmin"]
