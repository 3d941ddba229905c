"""What each operation needs: a scope of the token, and a permission of the account.

An operation that says neither is closed. Which objects are reached is asked where they are looked
up, by the scoped querysets of the rooms.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from django.db.models import Model
from rest_framework.permissions import BasePermission
from rest_framework.request import Request

from apps.accounts.roles import ROLES
from apps.api.errors import Forbidden, InsufficientScope
from apps.core.selectors import permits


@dataclass(frozen=True, slots=True)
class Needs:
    """scope: of the token; model and action: the permission, such as `run` on a rule."""

    scope: str
    model: type[Model]
    action: str

    @property
    def permission(self) -> str:
        options = self.model._meta
        return f"{options.app_label}.{self.action}_{options.model_name}"

    @property
    def roles(self) -> list[str]:
        """The standard roles that come with the permission."""
        return [role.name for role in ROLES if role.wants(self.permission)]


def needs_of(view: Any) -> Needs | None:
    """What the operation that is asked for needs; None where it does not say."""
    handler: Callable[..., Any] | None = getattr(view, view.action or "", None)
    needs: Needs | None = getattr(handler, "needs", None)
    return needs


class ScopeAndPermission(BasePermission):
    """The only permission class there is."""

    def has_permission(self, request: Request, view: Any) -> bool:
        if request.auth is None or not request.user.is_authenticated:
            return False
        if view.action in (None, "metadata"):  # by a method that is not there, which is said next
            return True
        needs = needs_of(view)
        if needs is None:
            return False
        if needs.scope not in request.auth.scopes:
            raise InsufficientScope(f"this needs a token with the scope {needs.scope}")
        if not permits(request.user, needs.model, needs.action):
            raise Forbidden(f"this needs the permission {needs.permission}")
        return True
