"""Pages by key set: a page begins behind the last row of the one before, whatever was added."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.db.models import QuerySet
from rest_framework import serializers
from rest_framework.response import Response
from rest_framework.serializers import Serializer

from apps.api.errors import Invalid

MOST = 200


class PageQuery(serializers.Serializer):
    """Which page of a list."""

    cursor = serializers.CharField(
        required=False, max_length=100, help_text="`next` of the page before; without: the first."
    )
    limit = serializers.IntegerField(
        required=False, default=50, min_value=1, max_value=MOST, help_text="Rows a page."
    )


def page_of(
    kind: type[Serializer],
    items: list[Any],
    next_cursor: object | None,
    asked: dict[str, Any],
    **context: Any,
) -> Response:
    """The answer to a list: the rows of one page, and where the next one begins."""
    shown = kind(items, many=True, context={"fields": asked.get("fields"), **context}).data
    return Response({"items": shown, "next": None if next_cursor is None else str(next_cursor)})


def newest_first(rows: QuerySet[Any], asked: dict[str, Any]) -> tuple[list[Any], UUID | None]:
    """One page of rows whose ids sort by time, and the id to go on from."""
    after = uuid_cursor(asked)
    if after is not None:
        rows = rows.filter(pk__lt=after)
    limit = asked["limit"]
    found = list(rows.order_by("-pk")[: limit + 1])
    return found[:limit], found[limit - 1].pk if len(found) > limit else None


def uuid_cursor(asked: dict[str, Any]) -> UUID | None:
    """The cursor as an id. Raises Invalid."""
    text = asked.get("cursor")
    try:
        return UUID(text) if text else None
    except ValueError:
        raise _no_cursor() from None


def number_cursor(asked: dict[str, Any]) -> int | None:
    """The cursor as a number. Raises Invalid."""
    text = asked.get("cursor")
    if not text:
        return None
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 18):
        raise _no_cursor()
    return int(text)


def _no_cursor() -> Invalid:
    message = "this is no cursor of this list"
    return Invalid([{"place": "cursor", "code": "invalid", "message": message}])
