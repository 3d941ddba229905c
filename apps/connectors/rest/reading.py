"""Reading a dataset: all of it, what has changed, or given keys."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from itertools import islice
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa

from apps.connectors.base import DatasetSchema, FieldSchema
from apps.connectors.errors import (
    ConfigurationError,
    DatasetMissing,
    FieldMissing,
    SourceChanged,
)
from apps.connectors.files.conversion import to_json_fragments, to_text
from apps.connectors.files.json_text import parse
from apps.connectors.files.rows import Rows
from apps.connectors.rest.answers import Answer, AnswerUnusable
from apps.connectors.rest.client import RestClient
from apps.connectors.rest.definition import DatasetDefinition, Definition
from apps.connectors.rest.paging import Listing, body_of
from apps.connectors.rest.parts import Incremental
from apps.connectors.rest.records import (
    Page,
    Record,
    describe_fields,
    found,
    getter,
    key_texts,
    rows_of,
    schema_of,
)
from apps.connectors.rest.templates import (
    NoAddress,
    fill_path,
    fill_text,
    is_address,
    placeholders,
    plain_text,
)
from apps.connectors.types import NeutralType

KeyRow = dict[str, Any]
"""Values of some fields as JSON has them."""

_FOUND_AT_A_TIME = 100


class DatasetApi:
    """One dataset of an API, over an open client."""

    def __init__(self, client: RestClient, definition: Definition, name: str) -> None:
        if name not in definition.datasets:
            raise DatasetMissing(f"there is no dataset '{name}'", where=name)
        self.client = client
        self.name = name
        self.definition: DatasetDefinition = definition.datasets[name]
        self._api = definition

    def describe(self, sample: int, *, read_only: bool) -> DatasetSchema:
        """Declared fields as they are; others from so many records."""
        records: list[Record] = []
        if not self.definition.fields:
            for page in self.everything():
                records += page.records
                if len(records) >= sample:
                    break
        fields = describe_fields(self.definition, records[:sample], self._outer_types(sample))
        return schema_of(self.name, self.definition, fields, read_only=read_only)

    def _outer_types(self, sample: int) -> dict[str, NeutralType]:
        parent = self.definition.parent
        if parent is None:
            return {}
        schema = DatasetApi(self.client, self._api, parent.dataset).describe(sample, read_only=True)
        try:
            return {own: schema.field(theirs).type for own, theirs in parent.fields.items()}
        except KeyError as error:
            raise FieldMissing(
                f"the parent '{parent.dataset}' has no field {error}", where=self.name
            ) from None

    def require_fields(self, names: Sequence[str]) -> None:
        """Raise FieldMissing where a declared dataset has no such field."""
        known = set(self.definition.names)
        missing = [name for name in names if name not in known] if self.definition.fields else []
        if missing:
            raise FieldMissing(f"the dataset has no field '{missing[0]}'", where=self.name)

    def rows(self, page: Page, fields: Sequence[FieldSchema]) -> Rows:
        """A page with these fields in neutral storage."""
        return rows_of(page, self.definition, fields)

    # All of it, or what has changed.

    def everything(self, changed_after: Any = None) -> Iterator[Page]:
        """All records, or those that the API's own parameter picks."""
        params = dict(self.definition.params)
        incremental = self.definition.incremental
        if changed_after is not None and incremental is not None:
            params[incremental.param] = moment_text(changed_after, incremental)
        gone = self._gone()
        for path, outer in self._paths():
            listing = Listing(self.client, self.definition, path, params, outer)
            try:
                for page in listing.pages():
                    yield self._present(page, gone)
            except DatasetMissing as error:
                if not outer:
                    raise
                raise SourceChanged(
                    f"the parent of this list is gone: {error.message}", where=error.where
                ) from None

    def _paths(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        parent = self.definition.parent
        if parent is None:
            yield self.definition.path, {}
            return
        above = DatasetApi(self.client, self._api, parent.dataset)
        getters = {own: getter(name, above.definition) for own, name in parent.fields.items()}
        for page in above.everything():
            for record in page.records:
                outer = {own: get(record) for own, get in getters.items()}
                texts = {name: plain_text(value) for name, value in outer.items()}
                try:
                    yield fill_path(self.definition.path, texts), outer
                except NoAddress as error:
                    raise ConfigurationError(str(error), where=parent.dataset) from None

    def _gone(self) -> set[str]:
        """Keys of what the API lists as deleted, as `key_texts` writes them."""
        tombstones = self.definition.tombstones
        if tombstones is None:
            return set()
        plain = self.definition.model_copy(
            update={
                "records": tombstones.records,
                "key": (),
                "parent": None,
                "fields": {},
                "absent_when": "",
            }
        )
        listing = Listing(self.client, plain, tombstones.path, tombstones.params, {})
        named = {name: tombstones.key.get(name, name) for name in self.definition.key}
        gone: set[str] = set()
        for page in listing.pages():
            for record in page.records:
                values = {name: found(path, record.value) for name, path in named.items()}
                gone.update(filter(None, key_texts(_flat(self.definition), [Record(values)])))
        return gone

    def _present(self, page: Page, gone: set[str]) -> Page:
        """The page without what the API marks or lists as deleted."""
        records = page.records
        if self.definition.absent_when:
            condition = self.definition.absent_when
            records = [record for record in records if not found(condition, record.value)]
        if gone:
            keys = key_texts(self.definition, records)
            records = [r for r, key in zip(records, keys, strict=True) if key not in gone]
        return Page(records, page.where, page.rejected)

    # Given keys.

    def can_find(self, names: Sequence[str]) -> bool:
        """Whether records are found by these fields without reading all."""
        wanted = set(names)
        by_key = wanted == set(self.definition.key) and self.definition.finds_keys
        search = self.definition.search
        return by_key or (search is not None and wanted == set(search.fields))

    def find(
        self, keys: pa.Table, fields: Sequence[FieldSchema], *, tagged: bool = False
    ) -> Iterator[Page]:
        """Records that may have one of these keys; the caller compares.

        fields: those of `keys`; tagged: ETags are wanted, which only single records have. Reads
        everything where the API finds none.
        """
        if not self.can_find(keys.column_names):
            yield from self.everything()
            return
        keys = keys.group_by(keys.column_names).aggregate([])
        rows, texts = key_rows(keys, fields)
        known = set(self.definition.key) == set(keys.column_names)
        if not known or not self.definition.finds_keys:
            pages = self._by_search(texts)
        elif self.definition.by_keys is None or (tagged and self.definition.item):
            pages = self._one_by_one(rows, texts)
        else:
            pages = self._by_list(texts)
        for page in pages:
            yield self._present(page, set())

    def _one_by_one(
        self, rows: Sequence[KeyRow], texts: Sequence[Mapping[str, str | None]]
    ) -> Iterator[Page]:
        if any(not is_address(self.definition.item, text) for text in texts):
            yield from self.everything()
            return
        wanted = iter(zip(rows, texts, strict=True))
        while some := list(islice(wanted, _FOUND_AT_A_TIME)):
            records = [self.item(row, text) for row, text in some]
            yield Page([r for r in records if r is not None], self.definition.item)

    def item(self, row: KeyRow, texts: Mapping[str, str | None]) -> Record | None:
        """The record of a key, with its ETag; None where there is none. Raises NoAddress."""
        path = fill_path(self.definition.item, texts)
        answer = self.client.get(path, self.definition.item_params)
        if answer.status in (404, 410):
            return None
        if not answer.ok:
            raise AnswerUnusable(answer.problem(), where=answer.url)
        return self.record_of(answer, self.definition.item_record, row)

    def read_back(self, record: Record) -> Record:
        """A record that an answer told in part, as it is."""
        names = placeholders(self.definition.item)
        texts = {name: plain_text(getter(name, self.definition)(record)) for name in names}
        if not names or not is_address(self.definition.item, texts):
            return record
        return self.item(dict(record.outer), texts) or record

    def record_of(self, answer: Answer, expression: str, row: KeyRow) -> Record | None:
        """The record that an answer holds; None where it holds none."""
        value = found(expression, body_of(answer, self.definition)) if answer.data else None
        if not isinstance(value, dict):
            return None
        parent = self.definition.parent
        outer = {name: row.get(name) for name in parent.fields} if parent else {}
        return Record(value, outer, answer.headers.get("ETag", ""))

    def _by_list(self, texts: Sequence[Mapping[str, str | None]]) -> Iterator[Page]:
        lookup = self.definition.by_keys
        if lookup is None:
            return
        name = self.definition.key[0]
        texts_of = (text[name] or "" for text in texts)
        values = [v for v in dict.fromkeys(texts_of) if v and lookup.separator not in v]
        for start in range(0, len(values), lookup.most):
            chosen = lookup.separator.join(values[start : start + lookup.most])
            params = {**self.definition.params, lookup.param: chosen}
            yield from self._list(self.definition.path, params)

    def _by_search(self, texts: Sequence[Mapping[str, str | None]]) -> Iterator[Page]:
        search = self.definition.search
        if search is None:
            return
        for text in texts:
            if not all(text[name] for name in search.fields):
                continue
            params = {name: fill_text(value, text) for name, value in search.params.items()}
            yield from self._list(
                search.path or self.definition.path, {**self.definition.params, **params}
            )

    def _list(self, path: str, params: Mapping[str, str]) -> Iterator[Page]:
        return Listing(self.client, self.definition, path, params, {}).pages()


def key_rows(
    keys: pa.Table, fields: Sequence[FieldSchema]
) -> tuple[list[KeyRow], list[dict[str, str | None]]]:
    """Each row as JSON values, and as the texts of a path or a parameter."""
    columns, texts = {}, {}
    for field in fields:
        column = keys.column(field.name).combine_chunks()
        column = pa.concat_arrays(column.chunks) if isinstance(column, pa.ChunkedArray) else column
        column = column.cast(field.type.arrow)
        columns[field.name] = [parse(text) for text in to_json_fragments(column, field.type)]
        texts[field.name] = to_text(column, field.type).cast(pa.string()).to_pylist()
    rows = range(keys.num_rows)
    return (
        [{name: values[row] for name, values in columns.items()} for row in rows],
        [{name: values[row] for name, values in texts.items()} for row in rows],
    )


def moment_text(after: Any, incremental: Incremental) -> str:
    """A cursor value as the API wants it: never later than the value itself."""
    if incremental.format == "value" or isinstance(after, int | str):
        earlier = after - 1 if incremental.exclusive and isinstance(after, int) else after
        return str(earlier)
    moment = after if isinstance(after, datetime) else datetime.combine(after, time.min)
    moment = moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    if incremental.exclusive:
        step = timedelta(days=1) if incremental.format == "date" else timedelta(seconds=1)
        moment = max(moment, datetime.min.replace(tzinfo=UTC) + step) - step
    if incremental.format == "date" or type(after) is date:
        return moment.date().isoformat()
    if incremental.format == "iso":
        return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
    seconds = moment - datetime(1970, 1, 1, tzinfo=UTC)
    unit = timedelta(seconds=1) if incremental.format == "epoch" else timedelta(milliseconds=1)
    return str(seconds // unit)


def _flat(definition: DatasetDefinition) -> DatasetDefinition:
    """The same, with key fields that stand in a record under their names."""
    return definition.model_copy(update={"fields": {}, "parent": None})


def host_of(url: str) -> tuple[str, int]:
    """Host and port of an address."""
    parts = urlsplit(url)
    return parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
