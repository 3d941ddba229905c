"""What an API offers, declared: its datasets, how they are read and how they are written.

`docs/how-to/connect-rest.md` explains each part with examples.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import field_validator, model_validator

from apps.connectors.rest.parts import (
    BulkWrite,
    Declared,
    FieldDefinition,
    Incremental,
    KeyLookup,
    Pagination,
    Parent,
    Search,
    Tombstones,
    Write,
    expression,
    own_path,
)
from apps.connectors.rest.templates import PlainPath, placeholders


class DatasetDefinition(Declared):
    """One list of records, and what can be done with them."""

    path: str
    records: str = "@"
    params: dict[str, str] = {}
    key: tuple[str, ...] = ()
    unique: tuple[tuple[str, ...], ...] = ()
    fields: dict[str, FieldDefinition] = {}
    pagination: Pagination = Pagination()
    incremental: Incremental | None = None
    parent: Parent | None = None
    format: Literal["json", "csv", "xml"] = "json"
    etags: bool = False
    absent_when: str = ""
    tombstones: Tombstones | None = None
    item: str = ""
    item_record: str = "@"
    item_params: dict[str, str] = {}
    by_keys: KeyLookup | None = None
    search: Search | None = None
    body: Literal["json", "form"] = "json"
    create: Write | None = None
    update: Write | None = None
    delete: Write | None = None
    bulk_create: BulkWrite | None = None
    bulk_update: BulkWrite | None = None

    _below = field_validator("path")(own_path)
    _found = field_validator("records", "item_record")(expression)

    @field_validator("item")
    @classmethod
    def _item_below(cls, value: str) -> str:
        return own_path(value) if value else value

    @field_validator("absent_when")
    @classmethod
    def _condition(cls, value: str) -> str:
        return expression(value) if value else value

    @field_validator("fields", mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {k: {"type": v} if isinstance(v, str) else v for k, v in value.items()}

    @field_validator("fields")
    @classmethod
    def _not_empty(cls, value: dict[str, FieldDefinition]) -> dict[str, FieldDefinition]:
        if "" in value:
            raise ValueError("a field has a name")
        return value

    @model_validator(mode="after")
    def _fits_together(self) -> DatasetDefinition:
        parents = set(self.parent.fields) if self.parent else set()
        strange = set(placeholders(self.path)) - parents
        if strange:
            raise ValueError(f"'{{{min(strange)}}}' in 'path' is no field of 'parent'")
        known = {*self.fields, *parents}
        wanted = {*self.key, *(n for names in self.unique for n in names)}
        if self.fields and wanted - known:
            raise ValueError(f"'{min(wanted - known)}' is a key, but not among 'fields'")
        if self.by_keys and len(self.key) != 1:
            raise ValueError("'by_keys' needs a key of one field")
        if self.by_keys and self.parent:
            raise ValueError("'by_keys' does not go with 'parent'")
        if self.format != "json" and self.writable:
            raise ValueError(f"{self.format} is only read: leave the writes out")
        if self.format == "csv" and self.item:
            raise ValueError("'item' is no list, and csv is one")
        if self.writable:
            self._check_writes()
        return self

    def _check_writes(self) -> None:
        if not self.key or not self.fields:
            raise ValueError("what is written needs 'key' and 'fields'")
        for name, field in self.fields.items():
            if not field.read_only and PlainPath.of(name, field.path) is None:
                raise ValueError(f"field '{name}': the path is no plain one: make it read_only")
        for place, write in (("update", self.update), ("delete", self.delete)):
            strange = set(placeholders(write.path)) - set(self.names) if write else set()
            if strange:
                raise ValueError(f"'{{{min(strange)}}}' in the path of '{place}' is no field")

    @property
    def names(self) -> tuple[str, ...]:
        """The fields, those of the parent first."""
        return tuple(dict.fromkeys([*(self.parent.fields if self.parent else ()), *self.fields]))

    @property
    def writable(self) -> bool:
        writes = (self.create, self.update, self.delete, self.bulk_create, self.bulk_update)
        return any(write is not None for write in writes)

    @property
    def finds_keys(self) -> bool:
        """Whether records are found by key without reading all of them."""
        return bool(self.item or self.by_keys)

    @property
    def tells_records(self) -> bool:
        """Whether a write can say what became of the record."""
        return self.finds_keys or (self.create is not None and bool(self.create.record))

    @property
    def assigns_key(self) -> bool:
        """Whether the API gives new records their keys, or what a key has beside its parent's."""
        return any(name in self.fields and self.fields[name].assigned for name in self.key)


class Signing(Declared):
    """HMAC: what is signed, and where the signature goes. message: {timestamp}, {method}, {path},
    {query} and {body} are replaced; `\\n` is a line break."""

    algorithm: Literal["sha256", "sha512"] = "sha256"
    encoding: Literal["hex", "base64"] = "hex"
    header: str = "X-Signature"
    prefix: str = ""
    timestamp_header: str = "X-Timestamp"
    message: str = "{timestamp}.{method}.{path}.{body}"


class RateLimit(Declared):
    """Headers that tell how many requests are left, and when there are more."""

    remaining_header: str = "X-RateLimit-Remaining"
    reset_header: str = "X-RateLimit-Reset"
    reset: Literal["epoch", "seconds"] = "epoch"


class Definition(Declared):
    """All of an API. headers: sent with every request; none of them is a secret."""

    url: str = ""
    auth: str = ""
    key_name: str = ""
    token_url: str = ""
    headers: dict[str, str] = {}
    signing: Signing = Signing()
    rate_limit: RateLimit = RateLimit()
    datasets: dict[str, DatasetDefinition] = {}

    @model_validator(mode="after")
    def _parents_exist(self) -> Definition:
        for name in self.datasets:
            seen: list[str] = []
            current = name
            while (parent := self.datasets[current].parent) is not None:
                seen.append(current)
                if parent.dataset not in self.datasets:
                    raise ValueError(f"dataset '{current}': there is no '{parent.dataset}'")
                if parent.dataset in seen:
                    raise ValueError(f"dataset '{name}' is its own parent")
                current = parent.dataset
        return self
