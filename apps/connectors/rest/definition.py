"""What an API offers, declared: its datasets, how they are read and how they are written.

`docs/how-to/connect-rest.md` explains each part with examples.
"""

from __future__ import annotations

from typing import Any, Literal

import jmespath
from jmespath.exceptions import JMESPathError
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from apps.connectors.rest.templates import PlainPath, placeholders
from apps.connectors.types import NeutralType

Method = Literal["POST", "PUT", "PATCH", "DELETE"]


class Declared(BaseModel):
    """Base of all parts: unknown names are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _expression(text: str) -> str:
    try:
        jmespath.compile(text)
    except JMESPathError as error:
        raise ValueError(f"not a JMESPath expression: {str(error).splitlines()[0]}") from None
    return text


def _own_path(text: str) -> str:
    if "://" in text or text.startswith("//"):
        raise ValueError("a path below the base address, not an address of its own")
    placeholders(text)
    return text if text.startswith("/") else f"/{text}"


class FieldDefinition(Declared):
    """type: a neutral type; path: JMESPath within a record, by default the field's name."""

    type: str = "text"
    path: str = ""
    required: bool = False
    read_only: bool = False
    assigned: bool = False  # the API gives it its value

    @field_validator("type")
    @classmethod
    def _known_type(cls, value: str) -> str:
        return str(NeutralType.parse(value))

    @field_validator("path")
    @classmethod
    def _usable_path(cls, value: str) -> str:
        return _expression(value) if value else value

    @property
    def neutral(self) -> NeutralType:
        return NeutralType.parse(self.type)


class Pagination(Declared):
    """How a list goes on.

    | kind     | the next page is asked for by                                                |
    |----------|------------------------------------------------------------------------------|
    | none     | there is one page                                                            |
    | page     | `param` = number of the page, counted from `first`                           |
    | offset   | `param` = number of records to leave out; pages overlap by one record        |
    | cursor   | `param` = what `next` finds in the body, or the header `next_header`          |
    | link     | the address in the header `Link` with rel="next"                             |
    | next_url | the address that `next` finds in the body                                    |
    | keyset   | `param` = the value of the field `field` in the page's last record           |

    size_param, size: how many records a page is to have; more: JMESPath that is true while there
    are further pages; total: JMESPath of how many records there are in all, which is compared
    with what was read.
    """

    kind: Literal["none", "page", "offset", "cursor", "link", "next_url", "keyset"] = "none"
    param: str = ""
    first: int = 1
    size_param: str = ""
    size: int = Field(100, ge=1, le=10_000)
    next: str = ""
    next_header: str = ""
    field: str = ""
    more: str = ""
    total: str = ""

    @field_validator("next", "more", "total")
    @classmethod
    def _expressions(cls, value: str) -> str:
        return _expression(value) if value else value

    @model_validator(mode="after")
    def _complete(self) -> Pagination:
        if self.kind in ("page", "offset", "cursor", "keyset") and not self.param:
            raise ValueError(f"pagination by {self.kind} needs 'param'")
        if self.kind == "cursor" and bool(self.next) == bool(self.next_header):
            raise ValueError("pagination by cursor needs either 'next' or 'next_header'")
        if self.kind == "next_url" and not self.next:
            raise ValueError("pagination by next_url needs 'next'")
        if self.kind == "keyset" and not self.field:
            raise ValueError("pagination by keyset needs 'field'")
        return self


class Incremental(Declared):
    """How the API is asked for what has changed since.

    field: the cursor field; param: the query parameter; format: how a moment is written there;
    exclusive: the API leaves out what changed at that very moment, so it is asked for earlier.
    """

    field: str
    param: str
    format: Literal["iso", "date", "epoch", "epoch_ms", "value"] = "iso"
    exclusive: bool = False


class Parent(Declared):
    """The dataset whose records the path goes through: field of this dataset -> of the parent."""

    dataset: str
    fields: dict[str, str] = Field(min_length=1)


class KeyLookup(Declared):
    """One request for several keys: the values of the key's field in one query parameter."""

    param: str
    most: int = Field(50, ge=1)
    separator: str = ","


class Search(Declared):
    """Finding records by business key: query parameters whose values name fields in braces."""

    params: dict[str, str] = Field(min_length=1)
    path: str = ""

    @field_validator("path")
    @classmethod
    def _below(cls, value: str) -> str:
        return _own_path(value) if value else value

    @property
    def fields(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(n for text in self.params.values() for n in placeholders(text)))


class Tombstones(Declared):
    """A list of records that are gone: key field -> JMESPath within one of its records."""

    path: str
    records: str = "@"
    key: dict[str, str]
    params: dict[str, str] = {}

    _below = field_validator("path")(_own_path)
    _found = field_validator("records")(_expression)


class Write(Declared):
    """One kind of write. body: a template in which "{record}" stands for the written fields.

    record: JMESPath of the record in the answer; empty: the answer does not tell the record;
    read_back: the answer tells the key, and the rest of the record has to be read;
    idempotency_header: the header under which a repeated create is recognised.
    """

    method: Method
    path: str
    body: Any = "{record}"
    record: str = ""
    idempotency_header: str = ""
    if_match: bool = False
    read_back: bool = False
    params: dict[str, str] = {}
    whole: bool = False  # the fields that do not change have to be sent as well

    _below = field_validator("path")(_own_path)

    @field_validator("record")
    @classmethod
    def _expressions(cls, value: str) -> str:
        return _expression(value) if value else value


class BulkWrite(Declared):
    """Several records in one request. body: a template with "{records}".

    results: JMESPath of the list of outcomes, one per record and in their order;
    error: JMESPath within an outcome that finds something where the record was refused;
    record: JMESPath within an outcome that finds the record.
    """

    method: Method = "POST"
    path: str
    body: Any = "{records}"
    most: int = Field(100, ge=1, le=10_000)
    results: str = "@"
    error: str = ""
    record: str = ""
    idempotency_header: str = ""

    _below = field_validator("path")(_own_path)

    @field_validator("results", "error", "record")
    @classmethod
    def _expressions(cls, value: str) -> str:
        return _expression(value) if value else value


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
    format: Literal["json", "csv"] = "json"
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

    _below = field_validator("path")(_own_path)
    _found = field_validator("records", "item_record")(_expression)

    @field_validator("item")
    @classmethod
    def _item_below(cls, value: str) -> str:
        return _own_path(value) if value else value

    @field_validator("absent_when")
    @classmethod
    def _condition(cls, value: str) -> str:
        return _expression(value) if value else value

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
