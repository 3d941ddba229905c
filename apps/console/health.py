"""`/livez` says that the process answers, `/readyz` that it can serve."""

from __future__ import annotations

from django.db import DatabaseError, connection
from django.db.migrations.executor import MigrationExecutor
from django.http import HttpRequest, HttpResponse


def livez(request: HttpRequest) -> HttpResponse:
    return HttpResponse("ok\n", content_type="text/plain")


def readyz(request: HttpRequest) -> HttpResponse:
    """200 when the database answers and is migrated, else 503; no details for strangers."""
    try:
        executor = MigrationExecutor(connection)
        pending = executor.migration_plan(executor.loader.graph.leaf_nodes())
    except DatabaseError:
        pending = [("database", True)]
    status = 503 if pending else 200
    return HttpResponse(
        "not ready\n" if pending else "ok\n", status=status, content_type="text/plain"
    )
