"""What a two-way rule says beside what every rule says."""

from __future__ import annotations

from typing import Any

from pydantic import (
    Field,
    GetJsonSchemaHandler,
    model_validator,
)
from pydantic_core import CoreSchema

from apps.engine.spec import (
    DeletePolicy,
    EditDelete,
    FieldPolicy,
    FieldPolicySpec,
    TwoWaySpec,
    Winner,
)
from apps.rules.configuration.schema.base import ScalarText, Section


class FieldPolicySection(Section):
    """Who wins where both sides changed one right field to different values."""

    policy: FieldPolicy
    expression: str = Field(
        default="", description="For expression: SQL over left_value, right_value, base_value."
    )
    separator: str = Field(
        default=",",
        min_length=1,
        max_length=5,
        description="For set in a text field: what stands between the members.",
    )

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        return {"policy": value} if isinstance(value, str) else value

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        names = {"enum": [policy.value for policy in FieldPolicy]}
        return {"anyOf": [names, handler.resolve_ref_schema(handler(core_schema))]}


class TwoWaySection(Section):
    """What a two-way rule says beside the rest."""

    policy: FieldPolicy = Field(
        default=FieldPolicy.ASK, description="Of fields without a policy of their own."
    )
    fields: dict[str, FieldPolicySection] = Field(
        default={}, description="Policy by right field: its name, or with what it needs."
    )
    first_contact: Winner = Field(
        default=Winner.ASK, description="Who wins where matched records differ at first."
    )
    edit_delete: EditDelete = Field(
        default=EditDelete.EDIT, description="When one side edited what the other deleted."
    )
    on_right_delete: DeletePolicy = Field(
        default=DeletePolicy.PROPAGATE, description="When a right record was deleted."
    )
    left_mark_field: str = Field(default="", description="Left field that `mark` sets.")
    left_mark_value: ScalarText = "true"
    left_modified: str = Field(default="", description="Left timestamp, for newest.")
    right_modified: str = Field(default="", description="Right timestamp, for newest.")
    minimum_gap_seconds: int = Field(
        default=1, ge=0, description="Edits nearer to each other count as simultaneous."
    )
    tie: Winner = Field(default=Winner.ASK, description="Who wins of simultaneous edits.")
    right_cursor_field: str = Field(
        default="", description="A right field; needed for delta: cursor."
    )

    def policy_specs(self) -> tuple[FieldPolicySpec, ...]:
        return tuple(
            FieldPolicySpec(field=name, **section.model_dump())
            for name, section in sorted(self.fields.items())
        )

    def spec(self) -> TwoWaySpec:
        """Raises pydantic's ValidationError for contradictions."""
        return TwoWaySpec(**self.model_dump(exclude={"fields"}), fields=self.policy_specs())
