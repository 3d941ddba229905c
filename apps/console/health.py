"""`/livez` says that the process answers, `/readyz` that it can serve.

Anybody may ask, so asking has to cost next to nothing: which migrations there are is read once, the
database is asked by one query for which were applied, and an answer is good for a second.
"""

from __future__ import annotations

import time
from functools import cache

from django.db import DatabaseError, connection
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.recorder import MigrationRecorder
from django.http import HttpRequest, HttpResponse

SECONDS = 1.0

_last: tuple[float, bool] | None = None  # when it was found, and what


def livez(request: HttpRequest) -> HttpResponse:
    return HttpResponse("ok\n", content_type="text/plain")


def readyz(request: HttpRequest) -> HttpResponse:
    """200 when the database answers and is migrated, else 503; no details for strangers."""
    global _last
    moment = time.monotonic()
    if _last is None or moment - _last[0] > SECONDS:
        _last = (moment, _is_ready())
    ready = _last[1]
    return HttpResponse(
        "ok\n" if ready else "not ready\n", status=200 if ready else 503, content_type="text/plain"
    )


def _is_ready() -> bool:
    try:
        return newest_migrations() <= MigrationRecorder(connection).applied_migrations().keys()
    except DatabaseError:
        return False


@cache
def newest_migrations() -> frozenset[tuple[str, str]]:
    """The last migration of each app, as the code has it; nothing is asked of the database."""
    loader = MigrationLoader(None, ignore_no_migrations=True)
    return frozenset(loader.graph.leaf_nodes())
