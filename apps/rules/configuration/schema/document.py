"""The whole file, with the short form for many datasets at once."""

from __future__ import annotations

from typing import Any

from pydantic import (
    Field,
    GetJsonSchemaHandler,
    field_validator,
)
from pydantic_core import CoreSchema

from apps.rules.configuration.schema.base import (
    DatasetReference,
    LookupName,
    Name,
    Section,
    SourceName,
)
from apps.rules.configuration.schema.inventory import DatasetSection, LookupSection, SourceSection
from apps.rules.configuration.schema.mapping import MappingSection, NamingRule
from apps.rules.configuration.schema.rule import RulePolicies, RuleSection


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
