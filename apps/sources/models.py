"""Platforms that hold data, what is in them, and how that changed."""

from __future__ import annotations

from django.conf import settings
from django.core.validators import MinValueValidator
from django.db import models
from django.db.models import Q
from simple_history.models import HistoricalRecords

from apps.connectors.base import DatasetSchema, FieldSchema, Reference
from apps.connectors.types import NeutralType
from apps.core.fields import SealedField
from apps.core.models import BaseModel, Criticality, Tag
from apps.core.protected import unseal_json
from apps.core.redaction import hide


class Source(BaseModel):
    """A platform that holds data: connector, settings, credentials, owner, criticality."""

    class Health(models.TextChoices):
        UNKNOWN = "unknown", "Never tested"
        OK = "ok", "Reachable"
        FAILING = "failing", "Failing"

    name = models.CharField(max_length=100, unique=True)
    connector = models.CharField(max_length=60)
    settings = models.JSONField(default=dict, blank=True)
    sealed_secrets = SealedField(null=True, place="source|{id}|secrets")
    secrets_set_at = models.JSONField(default=dict, editable=False)  # name -> ISO instant
    description = models.TextField(blank=True)
    owner = models.CharField(max_length=100, blank=True, help_text="Person or team to ask.")
    criticality = models.CharField(
        max_length=10, choices=Criticality.choices, default=Criticality.NORMAL
    )
    paused = models.BooleanField(default=False, help_text="No run reads or writes this source.")
    most_partitions = models.PositiveIntegerField(
        "most partitions at a time",
        null=True,
        blank=True,
        validators=[MinValueValidator(1)],
        help_text="Of all runs together; each holds a connection or two. Empty: no limit.",
    )
    most_rows_per_second = models.PositiveIntegerField(
        "most rows per second",
        null=True,
        blank=True,
        validators=[MinValueValidator(1)],
        help_text="Read and written, all workers together. Empty: no limit.",
    )
    most_bytes_per_second = models.PositiveBigIntegerField(
        "most bytes per second",
        null=True,
        blank=True,
        validators=[MinValueValidator(1)],
        help_text="Read and written, all workers together. Empty: no limit.",
    )
    health = models.CharField(
        max_length=10, choices=Health.choices, default=Health.UNKNOWN, editable=False
    )
    checked_at = models.DateTimeField(null=True, editable=False)
    check_steps = models.JSONField(default=list, editable=False)
    discovered_at = models.DateTimeField(null=True, editable=False)
    is_demo = models.BooleanField(default=False, editable=False)
    tags = models.ManyToManyField(Tag, blank=True, editable=False, related_name="sources")
    history = HistoricalRecords(
        excluded_fields=["sealed_secrets", "check_steps", "checked_at", "health", "discovered_at"]
    )

    class Meta:
        ordering = ["name"]
        permissions = [
            ("check_source", "Can test the connection of a source"),
            ("discover_source", "Can discover the datasets of a source"),
            ("pause_source", "Can pause and resume a source"),
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def secrets_identity(self) -> str:
        return f"source|{self.pk}|secrets"

    def secrets(self) -> dict[str, str]:
        """The secrets in clear; only `services` and workers call this."""
        if not self.sealed_secrets:
            return {}
        opened: dict[str, str] = unseal_json(self.sealed_secrets, self.secrets_identity)
        hide(*opened.values())
        return opened


class Dataset(BaseModel):
    """A table, view or set of files in a source, with the inventory facts that people keep."""

    class Frequency(models.TextChoices):
        UNKNOWN = "", "Unknown"
        CONTINUOUS = "continuous", "Continuously"
        HOURLY = "hourly", "Hourly"
        DAILY = "daily", "Daily"
        WEEKLY = "weekly", "Weekly"
        MONTHLY = "monthly", "Monthly or less"

    source = models.ForeignKey(Source, on_delete=models.CASCADE, related_name="datasets")
    name = models.CharField(max_length=255)
    description = models.TextField(blank=True)
    key = models.JSONField(default=list, help_text="Names of the fields that identify a record.")
    unique_keys = models.JSONField(default=list, editable=False)
    references = models.JSONField(default=list, editable=False)
    cursor_field = models.CharField(
        max_length=255, blank=True, help_text="Timestamp or version that grows with each change."
    )
    format = models.CharField(max_length=20, default="table", editable=False)
    writable = models.BooleanField(default=True, editable=False)
    row_count = models.BigIntegerField(null=True, editable=False)
    size_bytes = models.BigIntegerField(null=True, editable=False)
    update_frequency = models.CharField(
        max_length=12, choices=Frequency.choices, default=Frequency.UNKNOWN, blank=True
    )
    depends_on = models.ManyToManyField(
        "self",
        symmetrical=False,
        blank=True,
        related_name="dependents",
        help_text="Datasets that must be in step first; foreign keys are added by discovery.",
    )
    criticality = models.CharField(
        max_length=10, choices=Criticality.choices, default=Criticality.NORMAL
    )
    owner = models.CharField(max_length=100, blank=True)
    required_freshness_minutes = models.PositiveIntegerField(
        null=True, blank=True, help_text="How old copies of this dataset may become."
    )
    tolerated_loss_minutes = models.PositiveIntegerField(
        null=True, blank=True, help_text="How many minutes of changes may be lost in a disaster."
    )
    subject_field = models.CharField(
        max_length=255, blank=True, help_text="The field that names the person a record is about."
    )
    discovered_at = models.DateTimeField(null=True, editable=False)
    missing_since = models.DateTimeField(null=True, editable=False)
    tags = models.ManyToManyField(Tag, blank=True, editable=False, related_name="datasets")
    history = HistoricalRecords(
        excluded_fields=["row_count", "size_bytes", "discovered_at"], m2m_fields=[depends_on]
    )

    class Meta:
        ordering = ["source__name", "name"]
        constraints = [
            models.UniqueConstraint(fields=["source", "name"], name="one_dataset_per_name")
        ]

    def __str__(self) -> str:
        return f"{self.source.name}: {self.name}"

    def schema(self) -> DatasetSchema:
        """The dataset as discovery last saw it, with the key that people chose."""
        return DatasetSchema(
            name=self.name,
            key=tuple(self.key),
            unique_keys=tuple(tuple(key) for key in self.unique_keys),
            references=tuple(
                Reference(tuple(r["fields"]), r["dataset"], tuple(r["target_fields"]))
                for r in self.references
            ),
            fields=tuple(
                field.schema() for field in self.fields.all() if field.missing_since is None
            ),
            row_count=self.row_count,
            size_bytes=self.size_bytes,
            format=self.format,
            writable=self.writable,
        )


class Field(BaseModel):
    """One field of a dataset."""

    class PersonalData(models.TextChoices):
        NONE = "", "Not personal"
        IDENTITY = "identity", "Identity (name, number)"
        CONTACT = "contact", "Contact (mail, phone, address)"
        FINANCIAL = "financial", "Financial"
        LOCATION = "location", "Location"
        BEHAVIOUR = "behaviour", "Behaviour"
        SPECIAL = "special", "Special category (health, belief, …)"

    dataset = models.ForeignKey(Dataset, on_delete=models.CASCADE, related_name="fields")
    name = models.CharField(max_length=255)
    type = models.CharField(max_length=60, help_text="Neutral type, such as decimal(10,2).")
    native_type = models.CharField(max_length=200, blank=True)
    nullable = models.BooleanField(default=True)
    has_default = models.BooleanField(default=False)
    server_assigned = models.BooleanField(default=False)
    generated = models.BooleanField(default=False)
    position = models.PositiveIntegerField(default=0)
    personal_data = models.CharField(
        max_length=12,
        choices=PersonalData.choices,
        default=PersonalData.NONE,
        blank=True,
        verbose_name="personal-data class",
    )
    searchable = models.BooleanField(
        default=False,
        help_text="People find records by this value and by those that it had before, of which "
        "keyed hashes of their words are kept.",
    )
    missing_since = models.DateTimeField(null=True, editable=False)
    history = HistoricalRecords()

    class Meta:
        ordering = ["dataset", "position"]
        permissions = [("reveal_field", "Can reveal values of fields with a personal-data class")]
        constraints = [
            models.UniqueConstraint(fields=["dataset", "name"], name="one_field_per_name")
        ]

    def __str__(self) -> str:
        return self.name

    def schema(self) -> FieldSchema:
        return FieldSchema(
            name=self.name,
            type=NeutralType.parse(self.type),
            native_type=self.native_type,
            nullable=self.nullable,
            has_default=self.has_default,
            server_assigned=self.server_assigned,
            generated=self.generated,
        )


class Drift(BaseModel):
    """One difference that discovery found against what was known."""

    class Kind(models.TextChoices):
        DATASET_ADDED = "dataset_added", "Dataset added"
        DATASET_MISSING = "dataset_missing", "Dataset missing"
        FIELD_ADDED = "field_added", "Field added"
        FIELD_MISSING = "field_missing", "Field missing"
        TYPE_CHANGED = "type_changed", "Type changed"
        NULLABLE_CHANGED = "nullable_changed", "Nullability changed"
        KEY_CHANGED = "key_changed", "Key changed"

    BREAKING = frozenset({Kind.DATASET_MISSING, Kind.FIELD_MISSING, Kind.TYPE_CHANGED})

    source = models.ForeignKey(Source, on_delete=models.CASCADE, related_name="drifts")
    dataset_name = models.CharField(max_length=255)
    field_name = models.CharField(max_length=255, blank=True)
    kind = models.CharField(max_length=20, choices=Kind.choices)
    before = models.CharField(max_length=255, blank=True)
    after = models.CharField(max_length=255, blank=True)
    breaking = models.BooleanField(default=False)
    acknowledged_at = models.DateTimeField(null=True, blank=True)
    acknowledged_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL, related_name="+"
    )

    class Meta:
        ordering = ["-created_at"]
        verbose_name = "schema drift"
        verbose_name_plural = "schema drift"
        indexes = [
            models.Index(
                fields=["source", "-created_at"],
                condition=Q(acknowledged_at=None),
                name="open_drift",
            )
        ]

    def __str__(self) -> str:
        place = f"{self.dataset_name}.{self.field_name}" if self.field_name else self.dataset_name
        change = f": {self.before} → {self.after}" if self.before or self.after else ""
        return f"{self.get_kind_display()}: {place}{change}"
