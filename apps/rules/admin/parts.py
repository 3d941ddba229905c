"""What is a part of a rule and has no rights of its own: checks and field policies."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest

from apps.core.selectors import may, permits
from apps.rules.models import Rule


class RulePartMixin:
    """The page stores a rule and its parts as one version.

    A table that is not shown to whoever may change the rule would come back empty, and every line
    of it would be gone.
    """

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        if obj is None:
            return permits(request.user, Rule, "view") or self._may_edit(request, obj)
        return may(request.user, "view", obj) or self._may_edit(request, obj)

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self._may_edit(request, obj)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self._may_edit(request, obj)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self._may_edit(request, obj)

    @staticmethod
    def _may_edit(request: HttpRequest, rule: Any) -> bool:
        if rule is None:
            return permits(request.user, Rule, "add")
        return may(request.user, "change", rule)
