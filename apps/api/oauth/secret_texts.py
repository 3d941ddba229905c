"""Texts that OAuth hands out: of the same shape as tokens, each kind with its own prefix."""

from __future__ import annotations

from typing import Any

from oauth2_provider.generators import BaseHashGenerator

from apps.accounts.token_text import new_text

ACCESS, REFRESH, SECRET = "lka_", "lkr_", "lkc_"


def access_token(request: Any) -> str:
    return new_text(ACCESS)


def refresh_token(request: Any) -> str:
    return new_text(REFRESH)


class ClientSecrets(BaseHashGenerator):  # type: ignore[misc]
    def hash(self) -> str:
        return new_text(SECRET)
