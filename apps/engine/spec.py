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
    """A dataset as a version remembers it.

    id: which one it is, among all sources; empty where nobody keeps several.
    """

    name: str
    fields: tuple[FieldSpec, ...]
    key: tuple[str, ...] = ()
    id: str = ""

    def is_other_than(self, dataset_id: object) -> bool:
        """Whether this is known to be another dataset than the one with that id."""
        return bool(self.id) and self.id != str(dataset_id)

    @classmethod
    def of(cls, schema: DatasetSchema, dataset_id: object = "") -> DatasetSpec:
        return cls(
            id=str(dataset_id),
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


class Normalisation(StrEnum):
    """What is evened out before two values of a match field are compared."""

    TRIM = "trim"  # blanks at both ends, runs of blanks within
    CASE = "case"
    UNICODE = "unicode"  # compatibility forms (NFKC)
    ACCENTS = "accents"
    PHONE = "phone"  # digits and a leading +
    EMAIL = "email"  # trimmed, lower case


class MatchFieldSpec(Spec):
    """A right field by which records that are not linked yet find each other."""

    field: str
    normalise: tuple[Normalisation, ...] = ()


class MappingSpec(Spec):
    """How the fields of a left dataset correspond to those of a right one.

    key:   right fields that identify a right record. Each is mapped, or assigned by the right side
           on insert (then `match` is needed, or every left record is new to the right);
    match: how unlinked records find each other; empty: by `key`.
    """

    left: DatasetSpec
    right: DatasetSpec
    fields: tuple[FieldMappingSpec, ...]
    key: tuple[str, ...]
    match: tuple[MatchFieldSpec, ...] = ()


class Direction(StrEnum):
    LEFT_TO_RIGHT = "left_to_right"
    TWO_WAY = "two_way"


class Delta(StrEnum):
    FULL = "full"
    CURSOR = "cursor"
    CHECKSUM = "checksum"  # one-way: digests inside the databases, where that is faster


class DeletePolicy(StrEnum):
    """What happens to a record when its counterpart was deleted."""

    PROPAGATE = "propagate"
    MARK = "mark"
    IGNORE = "ignore"
    APPROVE = "approve"  # wait for a person; withdrawn when the record reappears


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


class FieldPolicy(StrEnum):
    """Who wins where both sides changed a field to different values since the base."""

    LEFT = "left"
    RIGHT = "right"
    NEWEST = "newest"  # by the two modification times of the rule
    HIGHEST = "highest"
    LOWEST = "lowest"
    COUNTER = "counter"  # both deltas are added to the base
    SET = "set"  # additions of both sides, removals unless the other side added; add wins
    TEXT = "text"  # three-way merge of lines; overlapping edits ask
    EXPRESSION = "expression"
    ASK = "ask"


class FieldPolicySpec(Spec):
    """The policy of one right field.

    expression: `expression`: SQL over left_value, right_value, base_value, in the field's type;
    separator:  `set` of a text field: what stands between the members.
    """

    field: str
    policy: FieldPolicy
    expression: str = ""
    separator: str = ","

    @model_validator(mode="after")
    def _is_complete(self) -> FieldPolicySpec:
        if self.policy is FieldPolicy.EXPRESSION and not self.expression.strip():
            raise ValueError(f"the policy of '{self.field}' needs an expression")
        return self


class EditDelete(StrEnum):
    """What happens when one side edited a record that the other deleted."""

    EDIT = "edit"  # the record comes back
    DELETE = "delete"
    ASK = "ask"


class Winner(StrEnum):
    LEFT = "left"
    RIGHT = "right"
    NEWEST = "newest"
    ASK = "ask"


class Approval(StrEnum):
    """When a plan waits for a person before it is applied."""

    NEVER = "never"
    ALWAYS = "always"
    FIRST = "first"  # until a plan of all records was applied whole
    GUARD = "guard"  # when a guard is exceeded, instead of refusing


class TwoWaySpec(Spec):
    """What a two-way rule adds. Fields are right fields unless they say otherwise."""

    policy: FieldPolicy = FieldPolicy.ASK  # of fields without one of their own
    fields: tuple[FieldPolicySpec, ...] = ()
    first_contact: Winner = Winner.ASK  # matched records that differ and have no base
    edit_delete: EditDelete = EditDelete.EDIT
    on_right_delete: DeletePolicy = DeletePolicy.PROPAGATE
    left_mark_field: str = ""  # left field set where on_right_delete says mark
    left_mark_value: str = "true"
    left_modified: str = ""  # left field: timestamp for `newest`
    right_modified: str = ""  # right field: timestamp for `newest`
    minimum_gap_seconds: int = Field(1, ge=0)  # nearer times count as equal
    tie: Winner = Winner.ASK  # `newest` with equal or missing times; not NEWEST
    right_cursor_field: str = ""  # right field; needed for delta=cursor

    @model_validator(mode="after")
    def _is_complete(self) -> TwoWaySpec:
        policies = {self.policy, *(item.policy for item in self.fields)}
        newest = FieldPolicy.NEWEST in policies or self.first_contact is Winner.NEWEST
        if newest and not (self.left_modified and self.right_modified):
            raise ValueError("'newest' needs left_modified and right_modified")
        if self.policy in (FieldPolicy.EXPRESSION, FieldPolicy.SET, FieldPolicy.COUNTER):
            raise ValueError(f"'{self.policy.value}' is a policy for single fields")
        if self.tie is Winner.NEWEST:
            raise ValueError("a tie of times cannot be settled by time")
        if self.on_right_delete is DeletePolicy.MARK and not self.left_mark_field:
            raise ValueError("on_right_delete says 'mark': name the left_mark_field that it sets")
        names = [item.field for item in self.fields]
        if len(names) != len(set(names)):
            raise ValueError("a field has two policies")
        return self

    def policy_of(self, field: str) -> FieldPolicySpec:
        """The policy that decides this right field."""
        for item in self.fields:
            if item.field == field:
                return item
        return FieldPolicySpec(field=field, policy=self.policy)


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
    two_way: TwoWaySpec | None = None  # there if and only if direction is two_way
    approval: Approval = Approval.NEVER
    approval_hours: int = Field(72, ge=1)  # how long a plan waits
    four_eyes: bool = False  # who asked for the run, or wrote the rule, does not approve

    @model_validator(mode="after")
    def _is_complete(self) -> RuleSpec:
        if (self.direction is Direction.TWO_WAY) != (self.two_way is not None):
            raise ValueError("direction 'two_way' and the settings of two_way go together")
        if self.delta is Delta.CURSOR and not self.cursor_field:
            raise ValueError("delta 'cursor' needs a cursor_field")
        if self.two_way and self.delta is Delta.CURSOR and not self.two_way.right_cursor_field:
            raise ValueError("a two-way rule with delta 'cursor' needs a right_cursor_field")
        if self.two_way and self.delta is Delta.CHECKSUM:
            raise ValueError("delta 'checksum' is for one-way rules")
        marks = DeletePolicy.MARK in (self.on_delete,) or self.on_leave is LeavePolicy.MARK
        if marks and not self.mark_field:
            raise ValueError("a policy says 'mark': name the mark_field that it sets")
        return self


class LookupSpec(Spec):
    """A lookup that expressions can use: `lookup('name', value)`; keys and values are text."""

    name: str
    description: str = ""
    options: dict[str, Any] = {}
