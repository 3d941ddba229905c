"""Pages by key set: a page begins behind the last row of the one before, whatever was added."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.db.models import QuerySet
from rest_framework import serializers
from rest_framework.response import Response
from rest_framework.serializers import Serializer

MOST = 200


class PageQuery(serializers.Serializer):
    """Which page of a list."""

    cursor = serializers.UUIDField(
        required=False, help_text="`next` of the page before; without: the first."
    )
    limit = serializers.IntegerField(
        required=False, default=50, min_value=1, max_value=MOST, help_text="Rows a page."
    )


class NumberedPageQuery(PageQuery):
    """Likewise, of a list whose rows are numbered."""

    cursor = serializers.RegexField(
        r"^-?[0-9]{1,18}$",
        required=False,
        help_text="`next` of the page before; without: the first.",
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
    if "cursor" in asked:
        rows = rows.filter(pk__lt=asked["cursor"])
    limit = asked["limit"]
    found = list(rows.order_by("-pk")[: limit + 1])
    return found[:limit], found[limit - 1].pk if len(found) > limit else None


def number_cursor(asked: dict[str, Any]) -> int | None:
    """The cursor of a numbered list."""
    return int(asked["cursor"]) if "cursor" in asked else None
