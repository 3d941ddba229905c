"""What an API answers: bodies, and what a status means."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit
from xml.etree.ElementTree import Element  # nosec B405  # the type; defusedxml parses

from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import ParseError, fromstring

from apps.connectors.errors import ConfigurationError, PermissionRefused, SignInRefused
from apps.connectors.files.json_text import NotJson, parse


class AnswerUnusable(ConfigurationError):
    """The server answers, but not with what an API of this definition would."""

    code = "source.answer_unusable"
    default_remedy = "Check the base address, the path and the paging of the dataset."


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back, whole. url: without its query, which may hold a key."""

    status: int
    headers: Mapping[str, str]
    data: bytes
    url: str

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300

    @property
    def content_type(self) -> str:
        return self.headers.get("Content-Type", "").partition(";")[0].strip().lower()

    def json(self) -> Any:
        """The parsed body. Raises AnswerUnusable."""
        if self.content_type in ("text/html", "application/xhtml+xml"):
            raise AnswerUnusable(
                f"the server answers with a web page ({self.content_type}) instead of JSON",
                where=self.url,
            )
        try:
            return parse(self.data.decode("utf-8-sig"))
        except (UnicodeDecodeError, NotJson) as error:
            reason = error if isinstance(error, NotJson) else "it is not UTF-8"
            raise AnswerUnusable(f"the answer is not JSON: {reason}", where=self.url) from None

    def csv(self) -> list[dict[str, str | None]]:
        """The records of a CSV body with a header. Raises AnswerUnusable."""
        if self.content_type in ("text/html", "application/json"):
            raise AnswerUnusable(
                f"the server answers with {self.content_type} instead of CSV", where=self.url
            )
        try:
            reader = csv.DictReader(io.StringIO(self.data.decode("utf-8-sig")), strict=True)
            records = [dict(row) for row in reader]
        except (UnicodeDecodeError, csv.Error) as error:
            raise AnswerUnusable(f"the answer is not CSV: {error}", where=self.url) from None
        if any(None in row or None in row.values() for row in records):
            raise AnswerUnusable("a line has too many or too few cells", where=self.url)
        return records

    def xml(self) -> Any:
        """The root of an XML body as nested objects (`from_xml`). Raises AnswerUnusable."""
        if self.content_type in ("text/html", "application/json"):
            raise AnswerUnusable(
                f"the server answers with {self.content_type} instead of XML", where=self.url
            )
        try:
            return from_xml(fromstring(self.data, forbid_dtd=True))
        except (ParseError, DefusedXmlException, ValueError, LookupError) as error:
            raise AnswerUnusable(
                f"the answer is no XML that is read here ({type(error).__name__})", where=self.url
            ) from None

    def problem(self) -> str:
        """What the API says of a refusal, for people; at most 300 characters."""
        try:
            body = self.json()
        except AnswerUnusable:
            body = None
        for name in ("message", "error_description", "detail", "title", "error"):
            said = body.get(name) if isinstance(body, dict) else None
            if isinstance(said, dict):
                said = said.get("message")
            if isinstance(said, str) and said:
                return f"HTTP {self.status}: {said[:300]}"
        return f"HTTP {self.status}"


_DEEPEST_XML = 100


def from_xml(element: Element, depth: int = 0) -> Any:
    """An element as JSON would have it, names without their namespaces.

    Without attributes and children it is its text, or None. Else an object: attributes as
    `@name`, children by name (several of one name are a list), text as `#text`. Raises ValueError
    where elements stand in one another too often.
    """
    if depth > _DEEPEST_XML:
        raise ValueError("nested too deeply")
    text = (element.text or "").strip()
    if not element.attrib and not len(element):
        return text or None
    found: dict[str, Any] = {f"@{_local(name)}": value for name, value in element.attrib.items()}
    several: set[str] = set()
    for child in element:
        name, value = _local(child.tag), from_xml(child, depth + 1)
        if name not in found:
            found[name] = value
        elif name in several:
            found[name].append(value)
        else:
            found[name] = [found[name], value]
            several.add(name)
    if text:
        found["#text"] = text
    return found


def _local(name: str) -> str:
    return name.rpartition("}")[2]


def judged(answer: Answer) -> Answer:
    if answer.status == 401:
        raise SignInRefused(answer.problem(), where=answer.url)
    if answer.status == 403:
        raise PermissionRefused(answer.problem(), where=answer.url)
    if 300 <= answer.status < 400 and answer.status != 304:
        target = urlsplit(answer.headers.get("Location", "")).hostname or "another path"
        raise AnswerUnusable(
            f"the server redirects to {target} (HTTP {answer.status})",
            where=answer.url,
            remedy="Give the address that it redirects to, if that is the API.",
        )
    return answer


def patience(answer: Answer, *, is_limited: bool) -> float | None:
    """Seconds to wait before the request is sent again; 0: unknown, None: no need to."""
    asked = answer.headers.get("Retry-After", "").strip()
    waits = answer.status == 429 or (answer.status in (403, 503) and bool(asked))
    if not waits:
        return 0.001 if answer.status == 403 and is_limited else None
    if asked.isdigit():
        return min(float(asked), 1e9)
    try:
        moment = parsedate_to_datetime(asked)
    except (TypeError, ValueError):
        return 0.0
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return max((moment - datetime.now(UTC)).total_seconds(), 0.0)
