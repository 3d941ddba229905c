"""Sections of mappings."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import (
    BeforeValidator,
    Field,
    GetJsonSchemaHandler,
    StringConstraints,
    WithJsonSchema,
    field_serializer,
    model_validator,
)
from pydantic_core import CoreSchema

from apps.engine.spec import (
    FieldMappingSpec,
    MatchFieldSpec,
    Normalisation,
)
from apps.rules.configuration.schema.base import DatasetReference, ScalarText, Section, wrong


class FieldSection(Section):
    """Where the value of one right field comes from: from, expression or constant."""

    from_: str = Field(default="", alias="from", description="A left field, converted exactly.")
    expression: str = Field(default="", description="SQL scalar expression over left fields.")
    constant: ScalarText | None = Field(default=None, description="Always this value.")
    default: ScalarText | None = Field(default=None, description="Takes the place of NULL.")
    back: str = Field(
        default="",
        description="Two-way: expression over right fields that gives the left value back.",
    )
    back_to: str = Field(
        default="",
        description="Two-way: the left field that gets the value of `back`; with `from`, that one.",
    )
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
        if bool(self.back_to) != bool(self.back and not self.from_):
            raise wrong(
                "back and back_to go together",
                "Beside `from`, write `back` alone: it gives the value to that field.",
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
            left=self.from_ or self.back_to,
            to_right=self.expression,
            to_left=self.back,
            constant=self.constant,
            default=self.default,
        )


EXACT = "exact"


def _no_normalisation(value: Any) -> Any:
    return () if value == EXACT else value


MatchRule = Annotated[
    tuple[Normalisation, ...],
    BeforeValidator(_no_normalisation),
    WithJsonSchema(
        {
            "anyOf": [
                {"const": EXACT},
                {"type": "array", "items": {"enum": [str(n) for n in Normalisation]}},
            ]
        }
    ),
]


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
    match: dict[str, MatchRule] = Field(
        default={},
        description="How records that are not linked yet find each other: by right field, `exact` "
        "or what is evened out first. Left out: by the key.",
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

    @field_serializer("match", when_used="json")
    def _exact_in_words(self, match: dict[str, tuple[Normalisation, ...]]) -> dict[str, Any]:
        return {field: [str(n) for n in normalise] or EXACT for field, normalise in match.items()}

    def match_specs(self) -> tuple[MatchFieldSpec, ...]:
        return tuple(
            MatchFieldSpec(field=field, normalise=normalise)
            for field, normalise in self.match.items()
        )
