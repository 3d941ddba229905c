"""What `type` of a problem leads to: the line of the error-code reference."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

from django.conf import settings
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.http import require_safe

from apps.api.problems import not_there

PAGE = Path(settings.BASE_DIR) / "docs" / "reference" / "error-codes.md"
LINE = re.compile(r"^\| `(?P<code>[a-z_.]+)` \| (?P<what>.*?) \| (?P<helps>.*?) \|$", re.MULTILINE)
LINK = re.compile(r"\[([^\]]+)\]\([^)]+\)")


@require_safe
def problem(request: HttpRequest, code: str) -> HttpResponse:
    """What happened and what helps, for everybody: nothing of this installation is in it."""
    found = _codes().get(code)
    return JsonResponse(found) if found else not_there(request)


@cache
def _codes() -> dict[str, dict[str, str]]:
    """Each code with its line; the page is part of the program."""
    text = LINK.sub(r"\1", PAGE.read_text(encoding="utf-8"))
    lines = (match.groupdict() for match in LINE.finditer(text))
    return {
        line["code"]: {
            "code": line["code"],
            "what_happened": line["what"],
            "what_helps": line["helps"],
        }
        for line in lines
    }
