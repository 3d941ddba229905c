"""Django's sessions in the database, listed per person, found by a hash of their key.

A session ends at its `expire_date`, and earlier when nobody has used it for
`SESSION_IDLE_SECONDS`.
"""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.contrib.auth import SESSION_KEY
from django.contrib.sessions.backends.db import SessionStore as DatabaseStore

from apps.core.clock import now

ABOUT = "sign_in_place"  # key of the session: address, agent and start, in seconds
SEEN_EVERY = timedelta(minutes=1)


def digest_of(session_key: str | None) -> str:
    return hashlib.sha256((session_key or "").encode()).hexdigest()


class SessionStore(DatabaseStore):
    """The store behind `request.session`."""

    _last_seen: datetime | None = None

    @classmethod
    def get_model_class(cls) -> Any:
        from apps.accounts.models import Session

        return Session

    def touch(self) -> None:
        """Note that the session is in use; at most once a minute."""
        if self._last_seen is None or now() - self._last_seen < SEEN_EVERY:
            return
        self._last_seen = now()
        row = self.model.objects.filter(session_key=digest_of(self.session_key))
        row.update(last_seen_at=self._last_seen)

    def _alive(self) -> Any:
        return self.model.objects.filter(
            session_key=digest_of(self.session_key),
            expire_date__gt=now(),
            last_seen_at__gt=now() - timedelta(seconds=settings.SESSION_IDLE_SECONDS),
        )

    def _get_session_from_db(self) -> Any:
        return self._found(self._alive().first())

    async def _aget_session_from_db(self) -> Any:
        return self._found(await self._alive().afirst())

    def _found(self, row: Any) -> Any:
        if row is None:
            self._session_key = None
        else:
            self._last_seen = row.last_seen_at
        return row

    def exists(self, session_key: str) -> bool:
        return bool(super().exists(digest_of(session_key)))

    async def aexists(self, session_key: str) -> bool:
        return bool(await super().aexists(digest_of(session_key)))

    def create_model_instance(self, data: dict[str, Any]) -> Any:
        return self._row(data, self._get_or_create_session_key(), self.get_expiry_date())

    async def acreate_model_instance(self, data: dict[str, Any]) -> Any:
        key = await self._aget_or_create_session_key()
        return self._row(data, key, await self.aget_expiry_date())

    def _row(self, data: dict[str, Any], key: str, expires: datetime) -> Any:
        row = self.model(
            session_key=digest_of(key),
            session_data=self.encode(data),
            expire_date=expires,
            user_id=data.get(SESSION_KEY),
        )
        about = data.get(ABOUT)
        if about:
            row.address, row.agent = about["address"], about["agent"]
            row.started_at = datetime.fromisoformat(about["began"])
        return row

    def delete(self, session_key: str | None = None) -> None:
        key = session_key or self.session_key
        if key is not None:
            self.model.objects.filter(session_key=digest_of(key)).delete()

    async def adelete(self, session_key: str | None = None) -> None:
        key = session_key or self.session_key
        if key is not None:
            await self.model.objects.filter(session_key=digest_of(key)).adelete()
