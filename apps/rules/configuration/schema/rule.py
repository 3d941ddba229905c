"""Sections of rules."""

from __future__ import annotations

from datetime import time
from typing import Any
from zoneinfo import ZoneInfo

from pydantic import (
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from apps.engine.spec import (
    Approval,
    CheckKind,
    CheckSpec,
    DeletePolicy,
    Delta,
    Direction,
    FieldPolicySpec,
    Guards,
    LeavePolicy,
    RuleSpec,
    Severity,
)
from apps.rules.configuration.schema.base import Name, ScalarText, Section, wrong
from apps.rules.configuration.schema.two_way import TwoWaySection
from apps.rules.schedule import MOST_MINUTES, cron_problem


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
    """When the rule starts by itself: at most one of every_minutes, daily_at and cron.

    verify_hours is beside them.
    """

    every_minutes: int | None = Field(default=None, ge=1, le=MOST_MINUTES)
    daily_at: time | None = Field(default=None, description="Time of day, such as 06:30.")
    cron: str = Field(default="", max_length=100, description="Five fields, such as 0 6 * * 1.")
    time_zone: str = Field(default="UTC", description="Such as Europe/Berlin.")
    verify_hours: int | None = Field(
        default=None, ge=1, description="How often both sides are compared whole, without writing."
    )

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
        problem = cron_problem(value) if value else ""
        if problem:
            raise wrong(problem, "Five fields: minute hour day month weekday, such as 0 6 * * 1.")
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
    two_way: TwoWaySection | None = Field(
        default=None, description="For direction: two_way. Left out: all by default."
    )
    delta: Delta = Field(
        default=Delta.FULL,
        description="full compares all, cursor what changed, checksum all inside the databases.",
    )
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
    approval: Approval = Field(
        default=Approval.NEVER, description="When a plan waits for a person before it is applied."
    )
    approval_hours: int = Field(default=72, ge=1, description="How long a plan waits.")
    four_eyes: bool = Field(
        default=False,
        description="Who asked for the run may not approve its plan; of a run that nobody asked "
        "for, who last changed the rule or its mapping.",
    )
    schedule: ScheduleSection = ScheduleSection()
    depends_on: tuple[Name, ...] = Field(default=(), description="Rules that come first.")

    @model_validator(mode="before")
    @classmethod
    def _two_way_by_default(cls, value: Any) -> Any:
        if isinstance(value, dict) and value.get("direction") == Direction.TWO_WAY:
            return {**value, "two_way": value.get("two_way") or {}}
        return value

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

    def policy_specs(self) -> tuple[FieldPolicySpec, ...]:
        return self.two_way.policy_specs() if self.two_way else ()

    def spec(self) -> RuleSpec:
        """Raises pydantic's ValidationError for contradictions."""
        said = type(self).model_fields
        facts = {name: getattr(self, name) for name in RuleSpec.model_fields if name in said}
        facts["guards"] = Guards(**self.guards.model_dump())
        facts["two_way"] = self.two_way.spec() if self.two_way else None
        return RuleSpec(**{**facts, "checks": self.check_specs()})


class RuleSection(RulePolicies):
    """When and how a mapping is kept in step."""

    mapping: Name | None = Field(default=None, description="Left out: the one of the same name.")
