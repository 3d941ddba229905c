"""REST APIs under the conformance suite: a server that keeps any records, with ETags and pages."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
import yaml

from apps.connectors import types as neutral
from apps.connectors.base import ChangeBatch, DatasetSchema, FieldSchema, Operation
from apps.connectors.files.json_text import dump, parse
from apps.connectors.rest import RestConnector, RestSettings
from apps.connectors.testing import Harness, do_nothing, open_session
from apps.connectors.types import NeutralType
from tests.connectors.rest.server import Api, Asked, Reply, serving

MARKS: tuple[Any, ...] = ()
_PAGE = 400
_KEPT = 3  # datasets that stay declared: a longer text takes longer to read


@dataclass
class Table:
    """One collection. assigns: the server numbers the records."""

    key: tuple[str, ...]
    assigns: bool = False
    rows: dict[tuple[str, ...], dict[str, Any]] = field(default_factory=dict)
    versions: dict[tuple[str, ...], int] = field(default_factory=dict)
    written: int = 0

    def name_of(self, record: dict[str, Any]) -> tuple[str, ...]:
        return tuple(_text(record.get(name)) for name in self.key)

    def put(self, record: dict[str, Any]) -> None:
        self.written += 1
        name = self.name_of(record)
        self.rows[name], self.versions[name] = record, self.written

    def reply(self, name: tuple[str, ...], status: int = 200) -> Reply:
        headers = {"ETag": f'"{self.versions[name]}"'}
        return Reply(status, headers=headers, raw=dump(self.rows[name]).encode())


def _text(value: Any) -> str:
    return value if isinstance(value, str) else dump(value)


class Tables:
    """All collections of a server."""

    def __init__(self) -> None:
        self.by_name: dict[str, Table] = {}

    def answer(self, asked: Asked) -> Reply:
        _, name, *segments = asked.path.split("/")
        table = self.by_name.get(name)
        if table is None:
            return Reply(404, {"message": "no such collection"})
        key = tuple(unquote(segment) for segment in segments)
        if not key:
            return self._list(table, asked) if asked.method == "GET" else self._post(table, asked)
        if key not in table.rows:
            return Reply(404, {"message": "no such record"})
        if asked.method == "GET":
            return table.reply(key)
        if asked.headers.get("if-match") != f'"{table.versions[key]}"':
            return Reply(412, {"message": "it has changed"})
        record = table.rows[key]
        if asked.method == "DELETE":
            del table.rows[key]
            return Reply(204)
        changed = {**record, **parse(asked.data.decode())}
        moved = table.name_of(changed)
        if moved != key and moved in table.rows:
            return Reply(409, {"message": "the key is taken"})
        del table.rows[key]
        table.put(changed)
        return table.reply(moved)

    @staticmethod
    def _list(table: Table, asked: Asked) -> Reply:
        start = int(asked.params.get("offset", 0))
        rows = list(table.rows.values())
        return Reply(raw=dump({"total": len(rows), "items": rows[start : start + _PAGE]}).encode())

    @staticmethod
    def _post(table: Table, asked: Asked) -> Reply:
        record = parse(asked.data.decode())
        if table.assigns:
            record["id"] = table.written + 1
        if table.name_of(record) in table.rows:
            return Reply(409, {"message": "the key is taken"})
        table.put(record)
        return table.reply(table.name_of(record), 201)


class RestHarness(Harness):
    """Datasets are collections of the server, declared in the connector's settings."""

    def __init__(self, api: Api) -> None:
        self._url, self._tables = api.url, Tables()
        api.handle = self._tables.answer
        self._datasets: dict[str, DatasetSchema] = {}
        self._declare(DatasetSchema("numbered", (FieldSchema("id", neutral.INTEGER),), ("id",)))
        self._tables.by_name["numbered"].assigns = True
        super().__init__(RestConnector(self._settings()))

    def _declare(self, dataset: DatasetSchema) -> None:
        for old in list(self._datasets)[1:-_KEPT]:
            del self._datasets[old]
        self._datasets[dataset.name] = dataset
        self._tables.by_name[dataset.name] = Table(dataset.key)

    def _settings(self) -> RestSettings:
        datasets = {name: self._definition(each) for name, each in self._datasets.items()}
        return RestSettings(url=self._url, definition=yaml.safe_dump({"datasets": datasets}))

    def _reconnect(self) -> None:
        self.connector.settings = self._settings()

    def _definition(self, dataset: DatasetSchema) -> dict[str, Any]:
        assigns = self._tables.by_name[dataset.name].assigns
        item = "/".join([f"/{dataset.name}", *(f"{{{name}}}" for name in dataset.key)])
        fields = {
            each.name: {
                "type": str(each.type),
                "required": not each.nullable,
                "assigned": assigns and each.name in dataset.key,
            }
            for each in dataset.fields
        }
        return {
            "path": f"/{dataset.name}",
            "records": "items",
            "key": list(dataset.key),
            "fields": fields,
            "pagination": {"kind": "offset", "param": "offset", "total": "total"},
            "item": item,
            "create": {"method": "POST", "path": f"/{dataset.name}", "record": "@"},
            "update": {"method": "PATCH", "path": item, "record": "@", "if_match": True},
            "delete": {"method": "DELETE", "path": item, "if_match": True},
        }

    def make(
        self,
        fields: Sequence[FieldSchema],
        key: tuple[str, ...],
        rows: pa.Table,
        unique_keys: tuple[tuple[str, ...], ...] = (),
    ) -> DatasetSchema:
        """Nothing keeps other fields than the key unique."""
        name = self.new_name()
        self._declare(DatasetSchema(name, tuple(fields), key))
        self._reconnect()
        dataset = self.connector.describe(name)
        if rows.num_rows:
            with open_session(self.connector, dataset) as session:
                batch = ChangeBatch(Operation.INSERT, rows.select(list(key)), None, rows)
                result = session.apply(batch, do_nothing)
            assert not result.exceptions
        return dataset

    def assign_keys(self, dataset: DatasetSchema) -> None:
        self._tables.by_name[dataset.name].assigns = True
        self._reconnect()

    def drop_field(self, dataset: DatasetSchema, field: str) -> None:
        kept = tuple(each for each in dataset.fields if each.name != field)
        self._datasets[dataset.name] = replace(dataset, fields=kept)
        self._reconnect()

    def samples(self, kind: NeutralType) -> Sequence[Any]:
        values = super().samples(kind)
        if kind == neutral.JSON:
            return [value for value in values if value != "null"]  # is NULL there
        return values


@contextmanager
def harness(folder: Path) -> Iterator[Harness]:
    with serving() as api:
        yield RestHarness(api)
