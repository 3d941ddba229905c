"""The audit log as a file: CSV for people, JSON Lines for machines, both with their filter."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from datetime import UTC, datetime
from itertools import islice
from typing import Any

import orjson
from asgiref.sync import sync_to_async
from django.core.handlers.asgi import ASGIRequest
from django.http import HttpRequest, StreamingHttpResponse

from apps.audit.models import AuditEvent, AuditVerification
from apps.audit.selectors import EventFilter, exported_events, last_verification
from apps.audit.services import begin_export
from apps.core.spreadsheets import csv_line

COLUMNS = (
    "id",
    "at",
    "action",
    "outcome",
    "actor_kind",
    "actor_id",
    "actor_label",
    "object_type",
    "object_id",
    "object_label",
    "channel",
    "address",
    "request_id",
    "user_agent",
    "reason",
    "details",
)
LINES_AT_ONCE = 500
Header = list[tuple[str, str]]


def export_response(
    request: HttpRequest, wanted: EventFilter, format_name: str
) -> StreamingHttpResponse:
    """What the filter shows now, newest first, as it is read. Raises PermissionDenied."""
    started = begin_export(wanted, format_name, actor=request.user)  # type: ignore[arg-type]
    write, content_type = FORMATS[format_name]
    rows = exported_events(wanted, request.user, before=started.id)
    chunks = _chunks(write(_header(wanted, started), rows))
    body = _relayed(chunks) if isinstance(request, ASGIRequest) else chunks
    response = StreamingHttpResponse(body, content_type=content_type)
    name = f"lockstep-audit-{started.at.astimezone(UTC):%Y%m%dT%H%M%SZ}.{format_name}"
    response["Content-Disposition"] = f'attachment; filename="{name}"'
    return response


def _header(wanted: EventFilter, started: AuditEvent) -> Header:
    """What the file is, who made it, and which filter it went through."""
    words = "; ".join(f"{label}: {value}" for label, value in wanted.words())
    return [
        ("Exported", _utc(started.at)),
        ("By", started.actor_label),
        ("Event of this export", str(started.id)),
        ("Filter", words or "everything"),
        ("Last verified", verification_words(last_verification())),
    ]


def verification_words(last: AuditVerification | None) -> str:
    if last is None:
        return "never"
    found = "sound" if last.is_sound else f"not sound: {last.findings[0]['text']}"
    return f"{_utc(last.finished_at)}, {found}"


def _csv(header: Header, rows: Iterable[AuditEvent]) -> Iterator[str]:
    yield "\ufeff"  # spreadsheet programs take it for UTF-8 then
    yield csv_line(["Lockstep audit log"])
    for label, value in header:
        yield csv_line([label, value])
    yield csv_line([])
    yield csv_line(COLUMNS)
    for event in rows:
        facts = event_facts(event)
        facts["details"] = orjson.dumps(facts["details"]).decode() if facts["details"] else ""
        yield csv_line(facts.values())


def _json_lines(header: Header, rows: Iterable[AuditEvent]) -> Iterator[str]:
    yield f"{orjson.dumps({'export': dict(header)}).decode()}\n"
    for event in rows:
        yield f"{orjson.dumps(event_facts(event)).decode()}\n"


def event_facts(event: AuditEvent) -> dict[str, Any]:
    """All columns that mean something to people and machines."""
    facts = {name: getattr(event, name) for name in COLUMNS}
    return {**facts, "id": str(event.id), "at": _utc(event.at, "microseconds")}


def _utc(moment: datetime, timespec: str = "seconds") -> str:
    return moment.astimezone(UTC).isoformat(timespec=timespec)


def _chunks(lines: Iterator[str]) -> Iterator[bytes]:
    while block := list(islice(lines, LINES_AT_ONCE)):
        yield "".join(block).encode()


async def _relayed(chunks: Iterator[bytes]) -> AsyncIterator[bytes]:
    """The same under ASGI, which would else read everything before it sends anything."""
    following = sync_to_async(lambda: next(chunks, None))
    while (chunk := await following()) is not None:
        yield chunk


FORMATS: dict[str, tuple[Callable[[Header, Iterable[AuditEvent]], Iterator[str]], str]] = {
    "csv": (_csv, "text/csv; charset=utf-8"),
    "jsonl": (_json_lines, "application/jsonl; charset=utf-8"),
}
