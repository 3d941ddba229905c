"""Which scopes a client may ask for: those that an administrator gave it, and none by default."""

from __future__ import annotations

from typing import Any

from oauth2_provider.scopes import BaseScopes

from apps.accounts.scopes import SCOPES


class ClientScopes(BaseScopes):  # type: ignore[misc]
    def get_all_scopes(self) -> dict[str, str]:
        return {scope.name: scope.says for scope in SCOPES.values()}

    def get_available_scopes(
        self, application: Any = None, request: Any = None, *args: Any, **kwargs: Any
    ) -> list[str]:
        return list(SCOPES) if application is None else list(application.allowed_scopes)

    def get_default_scopes(self, *args: Any, **kwargs: Any) -> list[str]:
        return []
