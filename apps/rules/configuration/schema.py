"""The format of a configuration file.

The descriptions here are those of `docs/reference/configuration.schema.json`, which editors read.
Scalars arrive as text (see `reading`), so that `NO` stays a country and `06:00` stays a time.
"""

from __future__ import annotations

from datetime import datetime, time
from typing import Annotated, Any
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    StringConstraints,
    ValidationError,
    WithJsonSchema,
    field_validator,
    model_validator,
)
from pydantic_core import CoreSchema, PydanticCustomError

from apps.core.models import Criticality
from apps.engine.spec import (
    CheckKind,
    CheckSpec,
    DeletePolicy,
    Delta,
    Direction,
    FieldMappingSpec,
    Guards,
    LeavePolicy,
    RuleSpec,
    Severity,
)
from apps.sources.models import Dataset
from apps.sources.models import Field as SourceField

ANY_SCALAR = {"type": ["string", "number", "boolean"]}


def wrong(message: str, remedy: str = "") -> PydanticCustomError:
    """A problem of the file, with what to do about it."""
    return PydanticCustomError("wrong", "{message}", {"message": message, "remedy": remedy})


def split_reference(text: str) -> tuple[str, str]:
    """Source and dataset of a reference such as `crm: customers`."""
    source, _, dataset = text.partition(": ")
    return source.strip(), dataset.strip()


def _reference(text: str) -> str:
    source, dataset = split_reference(text)
    if not source or not dataset:
        raise wrong(
            f"'{text}' names no dataset", "Write the source, a colon, a blank and the dataset."
        )
    return f"{source}: {dataset}"


def _source_name(text: str) -> str:
    if ": " in text:
        raise wrong(f"the source name '{text}' holds a colon and a blank", "Choose another name.")
    return text


Name = Annotated[str, StringConstraints(min_length=1, max_length=150, strip_whitespace=True)]
SourceName = Annotated[
    str, StringConstraints(min_length=1, max_length=100), AfterValidator(_source_name)
]
LookupName = Annotated[str, StringConstraints(pattern=r"^[-a-zA-Z0-9_]{1,60}$")]
DatasetReference = Annotated[str, AfterValidator(_reference)]
ScalarText = Annotated[str, WithJsonSchema(ANY_SCALAR)]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class SourceSection(Section):
    """A platform that holds data."""

    connector: str = Field(description="Kind of source: sqlite, postgresql, mysql, files, …")
    settings: dict[str, Any] = Field(
        default={},
        description="Settings of the connector. `${NAME}` is taken from the environment; "
        "secrets can be given no other way.",
    )
    description: str = ""
    owner: str = Field(default="", max_length=100, description="Person or team to ask.")
    criticality: Criticality = Criticality.NORMAL


class LookupSection(Section):
    """A table of values that expressions use: `lookup('name', value)`."""

    description: str = Field(default="", max_length=200)
    entries: dict[ScalarText, ScalarText] = Field(description="Value by key.")


class DatasetSection(Section):
    """Facts about a dataset. Those that are not named stay as they are."""

    description: str = ""
    key: tuple[str, ...] = Field(default=(), description="Fields that identify a record.")
    cursor_field: str = Field(
        default="", description="Timestamp or version that grows with each change."
    )
    update_frequency: Dataset.Frequency = Dataset.Frequency.UNKNOWN
    depends_on: tuple[DatasetReference, ...] = Field(
        default=(), description="Datasets that must be in step first."
    )
    criticality: Criticality = Criticality.NORMAL
    owner: str = Field(default="", max_length=100)
    required_freshness_minutes: int | None = Field(
        default=None, ge=0, description="How old copies of this dataset may become."
    )
    tolerated_loss_minutes: int | None = Field(
        default=None, ge=0, description="How many minutes of changes a disaster may cost."
    )
    subject_field: str = Field(
        default="", description="The field that names the person a record is about."
    )
    fields: dict[str, SourceField.PersonalData] = Field(
        default={}, description="Personal-data class by field."
    )


class FieldSection(Section):
    """Where the value of one right field comes from: from, expression or constant."""

    from_: str = Field(default="", alias="from", description="A left field, converted exactly.")
    expression: str = Field(default="", description="SQL scalar expression over left fields.")
    constant: ScalarText | None = Field(default=None, description="Always this value.")
    default: ScalarText | None = Field(default=None, description="Takes the place of NULL.")
    back: str = Field(default="", description="Expression over right fields, for the way back.")
    type: str = Field(
        default="",
        description="Neutral type of the field where `create` makes the table; "
        "else that of the left field, or text.",
    )

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        return {"from": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _one_origin(self) -> FieldSection:
        given = [bool(self.from_), bool(self.expression), self.constant is not None]
        if sum(given) != 1:
            raise wrong(
                "a field needs exactly one of from, expression and constant",
                "Write `right_field: left_field`, or name one of the three.",
            )
        return self

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {"anyOf": [{"type": "string"}, handler.resolve_ref_schema(handler(core_schema))]}

    def spec(self, right: str) -> FieldMappingSpec:
        return FieldMappingSpec(
            right=right,
            left=self.from_,
            to_right=self.expression,
            to_left=self.back,
            constant=self.constant,
            default=self.default,
        )


NamingRule = Annotated[str, StringConstraints(pattern="^(same|snake_case|camelCase)$")]


class MappingSection(Section):
    """How the fields of the left dataset correspond to those of the right one."""

    left: DatasetReference
    right: DatasetReference
    key: tuple[str, ...] = Field(
        default=(),
        description="Right fields that identify a record on both sides. "
        "With `naming`: the left key, renamed.",
    )
    description: str = ""
    fields: dict[str, FieldSection] = Field(
        default={}, description="By right field: the left field, or where its value comes from."
    )
    naming: NamingRule | None = Field(
        default=None,
        description="Pairs the left fields that `fields` does not use: "
        "same, snake_case or camelCase.",
    )
    leave_out: tuple[str, ...] = Field(default=(), description="Left fields that are not paired.")
    create: bool = Field(
        default=False, description="Create the right dataset from this mapping where it is missing."
    )

    @model_validator(mode="after")
    def _says_something(self) -> MappingSection:
        if not self.fields and self.naming is None:
            raise wrong("the mapping has no fields", "Name fields, or a naming rule.")
        if not self.key and self.naming is None:
            raise wrong("the mapping has no key", "Name the right fields that identify a record.")
        return self


class CheckSection(Section):
    """One check on the record as it would be written."""

    kind: CheckKind
    field: str = Field(default="", description="Right field; empty for a record-wide expression.")
    severity: Severity = Severity.REJECT
    type: str = Field(default="", description="For kind type: a neutral type.")
    pattern: str = Field(default="", description="For kind pattern: RE2, matches the whole text.")
    minimum: ScalarText | None = Field(default=None, description="For kind range, inclusive.")
    maximum: ScalarText | None = Field(default=None, description="For kind range, inclusive.")
    values: tuple[ScalarText, ...] = Field(default=(), description="For kind set.")
    lookup: str = Field(default="", description="For kind reference: a lookup that knows it.")
    expression: str = Field(default="", description="For kind expression: must be true.")

    def spec(self, name: str) -> CheckSpec:
        return CheckSpec(name=name, **self.model_dump())


class ScheduleSection(Section):
    """When the rule starts by itself: at most one of every_minutes, daily_at and cron."""

    every_minutes: int | None = Field(default=None, ge=1)
    daily_at: time | None = Field(default=None, description="Time of day, such as 06:30.")
    cron: str = Field(default="", max_length=100, description="Five fields, such as 0 6 * * 1.")
    time_zone: str = Field(default="UTC", description="Such as Europe/Berlin.")

    @field_validator("time_zone")
    @classmethod
    def _known_zone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (KeyError, ValueError, OSError):
            raise wrong(f"'{value}' is no time zone", "Use a name such as Europe/Berlin.") from None
        return value

    @field_validator("cron")
    @classmethod
    def _valid_cron(cls, value: str) -> str:
        try:
            if value:
                CronSim(value, datetime.now(ZoneInfo("UTC")))
        except CronSimError as error:
            raise wrong(
                f"'{value}' is no cron expression: {error}",
                "Five fields: minute hour day month weekday, such as 0 6 * * 1.",
            ) from None
        return value

    @model_validator(mode="after")
    def _one_kind(self) -> ScheduleSection:
        if sum([self.every_minutes is not None, self.daily_at is not None, bool(self.cron)]) > 1:
            raise wrong("a schedule has one of every_minutes, daily_at and cron", "Keep one.")
        return self


class GuardsSection(Section):
    """Limits judged on the whole plan before anything is written; null is no limit."""

    max_deletes: int | None = Field(default=None, ge=0)
    max_deletes_percent: float | None = Field(default=50, ge=0, le=100)
    max_changes: int | None = Field(default=None, ge=0)
    max_changes_percent: float | None = Field(default=None, ge=0)
    refuse_empty_source: bool = True


class RulePolicies(Section):
    """What a rule says beside its name and mapping."""

    description: str = ""
    enabled: bool | None = Field(
        default=None, description="Scheduled runs start only when true; left out: as it is."
    )
    direction: Direction = Direction.LEFT_TO_RIGHT
    delta: Delta = Field(default=Delta.FULL, description="full compares all, cursor what changed.")
    cursor_field: str = Field(default="", description="A left field; needed for delta: cursor.")
    cursor_lag_seconds: int = Field(default=0, ge=0)
    sweep_minutes: int = Field(
        default=1440,
        ge=1,
        description="How often a cursor rule compares all keys, to find deletes.",
    )
    filter: str = Field(default="", description="Condition over left fields: who takes part.")
    on_leave: LeavePolicy = Field(
        default=LeavePolicy.KEEP, description="When a record no longer passes the filter."
    )
    on_delete: DeletePolicy = Field(
        default=DeletePolicy.PROPAGATE, description="When a left record was deleted."
    )
    mark_field: str = Field(default="", description="Right field that `mark` sets.")
    mark_value: ScalarText = "true"
    checks: dict[str, CheckSection] = Field(default={}, description="Checks by name, in order.")
    max_rejections: int | None = Field(default=None, ge=0)
    max_rejections_percent: float | None = Field(default=None, ge=0, le=100)
    guards: GuardsSection = GuardsSection()
    schedule: ScheduleSection = ScheduleSection()
    depends_on: tuple[Name, ...] = Field(default=(), description="Rules that come first.")

    @model_validator(mode="after")
    def _is_a_rule(self) -> RulePolicies:
        try:
            self.spec()
        except ValidationError as error:
            problems = [item["msg"].removeprefix("Value error, ") for item in error.errors()]
            raise wrong("; ".join(problems)) from None
        return self

    def check_specs(self) -> tuple[CheckSpec, ...]:
        return tuple(check.spec(name) for name, check in self.checks.items())

    def spec(self) -> RuleSpec:
        """Raises pydantic's ValidationError for contradictions."""
        said = type(self).model_fields
        facts = {name: getattr(self, name) for name in RuleSpec.model_fields if name in said}
        guards = Guards(**self.guards.model_dump())
        return RuleSpec(**{**facts, "guards": guards, "checks": self.check_specs()})


class RuleSection(RulePolicies):
    """When and how a mapping is kept in step."""

    mapping: Name | None = Field(default=None, description="Left out: the one of the same name.")


class SyncSection(Section):
    """Many datasets at once: one mapping and one rule for each, named `sync/dataset`."""

    from_: SourceName = Field(alias="from", description="Source to read.")
    to: SourceName = Field(description="Source to write.")
    datasets: dict[str, str] | None = Field(
        default=None,
        description="`all`, a list of left datasets, or right dataset by left dataset.",
    )
    leave_out: tuple[str, ...] = Field(default=(), description="Left datasets to leave out.")
    naming: NamingRule = Field(default="same", description="How right names follow from left ones.")
    create: bool = Field(default=False, description="Create right datasets that are missing.")
    rule: RulePolicies = Field(default=RulePolicies(), description="What each rule says.")

    @field_validator("datasets", mode="before")
    @classmethod
    def _short_forms(cls, value: Any) -> Any:
        if value == "all":
            return None
        return dict.fromkeys(value, "") if isinstance(value, list) else value

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        schema = handler.resolve_ref_schema(handler(core_schema))
        schema["properties"]["datasets"] |= {
            "anyOf": [
                {"const": "all"},
                {"type": "array", "items": {"type": "string"}},
                {"type": "object", "additionalProperties": {"type": "string"}},
            ],
            "default": "all",
        }
        return schema


class Document(Section):
    """A Lockstep configuration file."""

    sources: dict[SourceName, SourceSection] = {}
    lookups: dict[LookupName, LookupSection] = {}
    datasets: dict[DatasetReference, DatasetSection] = {}
    mappings: dict[Name, MappingSection] = {}
    rules: dict[Name, RuleSection] = {}
    syncs: dict[Name, SyncSection] = {}
