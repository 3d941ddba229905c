"""Following a list page by page, without losing a record that moves while it is read.

What is watched, because APIs page over data that lives:

- a record that comes twice (others were put in before it) is handed on once;
- pages by offset overlap by one record. When the first record of a page is not the last one of the
  page before, and was never seen, records were taken out before it and others were skipped;
- where the API says how many records there are, as many must have been read, and they must not
  have become fewer;
- the same page twice means that the API does not know the parameter that pages.

What was skipped would count as deleted, so reading ends with `SourceChanged` and is tried again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any
from urllib.parse import parse_qsl, urljoin, urlsplit

from requests.utils import parse_header_links

from apps.connectors.base import RawRejection
from apps.connectors.errors import DatasetMissing, SourceChanged
from apps.connectors.rest.answers import Answer, AnswerUnusable
from apps.connectors.rest.client import RestClient
from apps.connectors.rest.definition import DatasetDefinition
from apps.connectors.rest.records import Page, Record, SeenKeys, found, getter, key_texts, rejected
from apps.connectors.rest.templates import plain_text

_NO_MORE: tuple[Any, ...] = (None, False, "", "false", "0", 0, [], {})


@dataclass(frozen=True, slots=True)
class Request:
    """Where a page is. place: the number, offset or cursor that leads there."""

    path: str
    params: Mapping[str, str]
    place: Any = None


class Listing:
    """One list of records, at one path."""

    def __init__(
        self,
        client: RestClient,
        definition: DatasetDefinition,
        path: str,
        params: Mapping[str, str],
        outer: Mapping[str, Any],
    ) -> None:
        self._client = client
        self._definition = definition
        self._paging = definition.pagination
        self._path = path
        self._params = dict(params)
        self._outer = outer
        self._seen = SeenKeys()
        self._given = 0
        self._last_key: str | None = ""
        self._last_page: list[str | None] = []
        self._overlaps = self._paging.kind == "offset" and bool(definition.key)

    def pages(self) -> Iterator[Page]:
        """All pages. Raises SourceChanged, AnswerUnusable and what the client raises."""
        request: Request | None = self._first()
        number = 0
        total: int | None = None
        while request is not None:
            number += 1
            answer = self._client.get(request.path, request.params, etags=self._definition.etags)
            if answer.status in (404, 410):
                if number > 1 and self._paging.kind == "page":
                    break
                raise DatasetMissing(f"nothing is there ({answer.problem()})", where=answer.url)
            if not answer.ok:
                raise AnswerUnusable(answer.problem(), where=answer.url)
            body, items = self._items(answer)
            total = self._total(body, total)
            where = f"page {number} of {urlsplit(answer.url).path}"
            records, bad = _split(items, self._outer, where)
            self._given += len(bad)
            request = self._following(request, answer, body, records, len(items))
            yield Page(self._new_of(records, number, answer.url), where, bad)
        self._require_total(total)

    def _first(self) -> Request:
        paging = self._paging
        params = dict(self._params)
        if paging.size_param:
            params[paging.size_param] = str(paging.size)
        if paging.kind == "page":
            params[paging.param] = str(paging.first)
            return Request(self._path, params, paging.first)
        return Request(self._path, params, 0)

    def _items(self, answer: Answer) -> tuple[Any, list[Any]]:
        if self._definition.format == "csv":
            rows = answer.csv()
            return None, rows
        body = body_of(answer, self._definition) if answer.status != 204 else []
        items = found(self._definition.records, body)
        if self._definition.format == "xml" and not isinstance(items, list):
            items = [] if items is None else [items]  # one record is no list there
        if items is None and body in (None, [], {}):
            items = []
        if not isinstance(items, list):
            raise AnswerUnusable(
                f"'{self._definition.records}' finds no list of records",
                where=answer.url,
                remedy="Correct 'records' of the dataset.",
            )
        return body, items

    def _new_of(self, records: list[Record], number: int, url: str) -> list[Record]:
        """The records that were not on an earlier page. Raises where some were skipped.

        What one page holds twice is no matter of paging, and what has no key cannot be told.
        """
        if not self._definition.key or not records:
            return records
        keys = key_texts(self._definition, records)
        if number > 1 and len(keys) > 1 and keys == self._last_page and None not in keys:
            raise AnswerUnusable("the API gives the same page again", where=url)
        self._last_page = keys
        is_shifted = self._overlaps and number > 1 and keys[0] != self._last_key
        new = {key for key in dict.fromkeys(keys) if key is None or self._seen.add(key)}
        if is_shifted and keys[0] in new:
            raise SourceChanged("records were removed while the pages were read", where=url)
        self._last_key = keys[-1]
        fresh = [record for record, key in zip(records, keys, strict=True) if key in new]
        self._given += len(fresh)
        return fresh

    def _total(self, body: Any, before: int | None) -> int | None:
        """How many there are, as this page says; None where it is not asked for."""
        told = found(self._paging.total, body) if self._paging.total else None
        if isinstance(told, str) and told.isdigit():  # of XML
            told = int(told)
        if not isinstance(told, int | Decimal) or not self._definition.key:
            return None
        if before is not None and told < before:
            raise SourceChanged("records were removed while the pages were read", where=self._path)
        return int(told)

    def _require_total(self, total: int | None) -> None:
        if total is not None and total != self._given:
            raise SourceChanged(
                f"the API says that there are {total} records, and gave {self._given}",
                where=self._path,
                remedy="Lockstep tries again by itself; sort the list by a field that stays.",
            )

    def _following(
        self, request: Request, answer: Answer, body: Any, records: list[Record], count: int
    ) -> Request | None:
        paging = self._paging
        if paging.more and found(paging.more, body) in _NO_MORE:
            return None
        if paging.kind == "link":
            return self._linked(answer, request)
        if paging.kind == "next_url":
            return self._addressed(found(paging.next, body), answer, request)
        if paging.kind == "cursor":
            in_header = answer.headers.get(paging.next_header) if paging.next_header else None
            return self._with(request, in_header or (paging.next and found(paging.next, body)))
        least = 1 if self._overlaps and request.place else 0
        if count <= least or paging.kind == "none":
            return None
        if paging.kind == "page":
            return self._with(request, request.place + 1)
        if paging.kind == "offset":
            end = request.place + count
            return self._with(request, end - 1 if self._overlaps else end)
        if not records:
            return None
        return self._with(request, getter(paging.field, self._definition)(records[-1]))

    def _with(self, request: Request, place: Any) -> Request | None:
        """The same with another place. Raises where that leads nowhere."""
        if place in (None, "", False):
            return None
        if place == request.place:
            if self._paging.kind == "keyset":
                return None
            raise AnswerUnusable("the API leads to the same page again", where=self._path)
        params = {**request.params, self._paging.param: plain_text(place)}
        return Request(request.path, params, place)

    def _linked(self, answer: Answer, request: Request) -> Request | None:
        links = parse_header_links(answer.headers.get("Link", ""))
        urls = [link["url"] for link in links if link.get("rel") == "next"]
        return self._addressed(urls[0] if urls else None, answer, request)

    def _addressed(self, url: Any, answer: Answer, request: Request) -> Request | None:
        if url in (None, "", False):
            return None
        if not isinstance(url, str):
            raise AnswerUnusable("the next address is no text", where=answer.url)
        whole = urljoin(answer.url, url)
        if whole == request.place:
            raise AnswerUnusable("the API leads to the same page again", where=answer.url)
        parts = urlsplit(whole)
        params = dict(parse_qsl(parts.query, keep_blank_values=True))
        if len(params) < len(parse_qsl(parts.query, keep_blank_values=True)):
            return Request(whole, {}, whole)
        return Request(parts._replace(query="", fragment="").geturl(), params, whole)


def body_of(answer: Answer, definition: DatasetDefinition) -> Any:
    """The parsed body. Raises AnswerUnusable."""
    return answer.xml() if definition.format == "xml" else answer.json()


def _split(
    items: list[Any], outer: Mapping[str, Any], where: str
) -> tuple[list[Record], tuple[RawRejection, ...]]:
    records = [Record(item, outer) for item in items if isinstance(item, dict)]
    bad = tuple(
        rejected(f"record {place + 1} of {where}", item)
        for place, item in enumerate(items)
        if not isinstance(item, dict)
    )
    return records, bad
