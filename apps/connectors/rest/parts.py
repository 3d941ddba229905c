"""The parts that a dataset of an API is declared with."""

from __future__ import annotations

from typing import Any, Literal

import jmespath
from jmespath.exceptions import JMESPathError
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from apps.connectors.rest.templates import placeholders
from apps.connectors.types import NeutralType

Method = Literal["POST", "PUT", "PATCH", "DELETE"]


class Declared(BaseModel):
    """Base of all parts: unknown names are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def expression(text: str) -> str:
    """The text, if it is a JMESPath expression. Raises ValueError."""
    try:
        jmespath.compile(text)
    except JMESPathError as error:
        raise ValueError(f"not a JMESPath expression: {str(error).splitlines()[0]}") from None
    return text


def own_path(text: str) -> str:
    """A path below the base address, with a slash before it. Raises ValueError."""
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
        return expression(value) if value else value

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
        return expression(value) if value else value

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
        return own_path(value) if value else value

    @property
    def fields(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(n for text in self.params.values() for n in placeholders(text)))


class Tombstones(Declared):
    """A list of records that are gone: key field -> JMESPath within one of its records."""

    path: str
    records: str = "@"
    key: dict[str, str]
    params: dict[str, str] = {}

    _below = field_validator("path")(own_path)
    _found = field_validator("records")(expression)


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

    _below = field_validator("path")(own_path)

    @field_validator("record")
    @classmethod
    def _expressions(cls, value: str) -> str:
        return expression(value) if value else value


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

    _below = field_validator("path")(own_path)

    @field_validator("results", "error", "record")
    @classmethod
    def _expressions(cls, value: str) -> str:
        return expression(value) if value else value
