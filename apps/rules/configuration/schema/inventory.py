"""Sections of sources, lookups and datasets."""

from __future__ import annotations

from typing import Any

from pydantic import (
    Field,
)

from apps.core.models import Criticality
from apps.rules.configuration.schema.base import DatasetReference, ScalarText, Section
from apps.sources.models import Dataset
from apps.sources.models import Field as SourceField


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
    most_partitions: int | None = Field(
        default=None,
        ge=1,
        le=2**31 - 1,
        description="Most partitions at a time, of all runs together; each holds a connection "
        "or two.",
    )
    most_rows_per_second: int | None = Field(
        default=None,
        ge=1,
        le=2**31 - 1,
        description="Most rows read and written per second, all workers together.",
    )
    most_bytes_per_second: int | None = Field(
        default=None,
        ge=1,
        le=2**63 - 1,
        description="Most bytes read and written per second, all workers together.",
    )


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
    searchable: tuple[str, ...] | None = Field(
        default=None,
        description="Fields by whose values people find records; all others are not searchable.",
    )
