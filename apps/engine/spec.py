"""What a mapping and a rule say, as immutable values.

These are what versions store, what configuration files contain and what the engine executes.
Expressions are SQL scalar expressions over the fields of the side they read (see `expressions`).
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from apps.connectors.base import DatasetSchema, FieldSchema
from apps.connectors.types import NeutralType


class Spec(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class FieldSpec(Spec):
    """A field of a dataset as a version remembers it; `type` is the neutral type's text form."""

    name: str
    type: str
    nullable: bool = True
    has_default: bool = False
    server_assigned: bool = False

    @property
    def neutral_type(self) -> NeutralType:
        return NeutralType.parse(self.type)


class DatasetSpec(Spec):
    """A dataset as a version remembers it."""

    name: str
    fields: tuple[FieldSpec, ...]
    key: tuple[str, ...] = ()

    @classmethod
    def of(cls, schema: DatasetSchema) -> DatasetSpec:
        return cls(
            name=schema.name,
            key=schema.key,
            fields=tuple(
                FieldSpec(
                    name=f.name,
                    type=str(f.type),
                    nullable=f.nullable,
                    has_default=f.has_default,
                    server_assigned=f.server_assigned,
                )
                for f in schema.fields
            ),
        )

    def schema(self) -> DatasetSchema:  # type: ignore[override]  # pydantic's is deprecated
        return DatasetSchema(
            name=self.name,
            key=self.key,
            fields=tuple(
                FieldSchema(
                    f.name,
                    f.neutral_type,
                    nullable=f.nullable,
                    has_default=f.has_default,
                    server_assigned=f.server_assigned,
                )
                for f in self.fields
            ),
        )

    def field(self, name: str) -> FieldSpec:
        for candidate in self.fields:
            if candidate.name == name:
                return candidate
        raise KeyError(name)


class FieldMappingSpec(Spec):
    """How one right field gets its value from the left record, and (two-way) the other way round.

    Exactly one of these gives the value of `right`: `left` alone (copied, converted exactly),
    `to_right` (an expression over left fields), `constant` (text form of the value).
    `default` (text form) takes the place of NULL.
    """

    right: str
    left: str = ""
    to_right: str = ""
    to_left: str = ""
    constant: str | None = None
    default: str | None = None

    @model_validator(mode="after")
    def _has_a_value(self) -> FieldMappingSpec:
        if not (self.left or self.to_right or self.constant is not None):
            raise ValueError(
                f"field '{self.right}' gets no value: name a left field, "
                "an expression or a constant"
            )
        return self


class MappingSpec(Spec):
    """How the fields of a left dataset correspond to those of a right one.

    key: right fields that identify a record on both sides (the match key); each is mapped.
    """

    left: DatasetSpec
    right: DatasetSpec
    fields: tuple[FieldMappingSpec, ...]
    key: tuple[str, ...]


class Direction(StrEnum):
    LEFT_TO_RIGHT = "left_to_right"


class Delta(StrEnum):
    FULL = "full"
    CURSOR = "cursor"


class DeletePolicy(StrEnum):
    """What happens to the right record when its left one was deleted."""

    PROPAGATE = "propagate"
    MARK = "mark"
    IGNORE = "ignore"


class LeavePolicy(StrEnum):
    """What happens to the right record when its left one no longer passes the filter."""

    DELETE = "delete"
    MARK = "mark"
    KEEP = "keep"


class Severity(StrEnum):
    REJECT = "reject"
    WARN = "warn"
    STOP = "stop"


class CheckKind(StrEnum):
    TYPE = "type"  # the value converts to `type`
    REQUIRED = "required"
    PATTERN = "pattern"
    RANGE = "range"
    SET = "set"
    UNIQUE = "unique"
    REFERENCE = "reference"
    EXPRESSION = "expression"


class CheckSpec(Spec):
    """One check on the record as it would be written (right fields).

    field:   the right field checked; empty for a record-wide expression.
    type: `type`; pattern: `pattern` (RE2, must match the whole text); range: `minimum`, `maximum`
    (inclusive, text form); set: `values`; reference: `lookup` names a lookup that must know the
    value; expression: `expression` over right fields must be true (NULL counts as passed).
    """

    name: str
    kind: CheckKind
    field: str = ""
    severity: Severity = Severity.REJECT
    type: str = ""
    pattern: str = ""
    minimum: str | None = None
    maximum: str | None = None
    values: tuple[str, ...] = ()
    lookup: str = ""
    expression: str = ""


class Guards(Spec):
    """Limits judged on the whole plan before anything is written; None is no limit."""

    max_deletes: int | None = Field(None, ge=0)
    max_deletes_percent: float | None = Field(None, ge=0, le=100)
    max_changes: int | None = Field(None, ge=0)
    max_changes_percent: float | None = Field(None, ge=0)
    refuse_empty_source: bool = True


class RuleSpec(Spec):
    """When records take part, how differences are found, and what may be written."""

    direction: Direction = Direction.LEFT_TO_RIGHT
    delta: Delta = Delta.FULL
    cursor_field: str = ""  # a left field; needed for delta=cursor
    cursor_lag_seconds: int = Field(0, ge=0)  # timestamps: how late a commit may become visible
    sweep_minutes: int | None = Field(24 * 60, ge=1)  # cursor: how often keys are swept
    filter: str = ""  # over left fields; empty: every record
    on_leave: LeavePolicy = LeavePolicy.KEEP
    on_delete: DeletePolicy = DeletePolicy.PROPAGATE
    mark_field: str = ""  # right field set where a policy says mark
    mark_value: str = "true"  # text form of the value it is set to
    checks: tuple[CheckSpec, ...] = ()
    max_rejections: int | None = Field(None, ge=0)
    max_rejections_percent: float | None = Field(None, ge=0, le=100)
    guards: Guards = Guards()

    @model_validator(mode="after")
    def _is_complete(self) -> RuleSpec:
        if self.delta is Delta.CURSOR and not self.cursor_field:
            raise ValueError("delta 'cursor' needs a cursor_field")
        marks = DeletePolicy.MARK in (self.on_delete,) or self.on_leave is LeavePolicy.MARK
        if marks and not self.mark_field:
            raise ValueError("a policy says 'mark': name the mark_field that it sets")
        return self


class LookupSpec(Spec):
    """A lookup that expressions can use: `lookup('name', value)`; keys and values are text."""

    name: str
    description: str = ""
    options: dict[str, Any] = {}
