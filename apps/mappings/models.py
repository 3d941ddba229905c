"""How a left dataset corresponds to a right one. Versions are immutable; runs are pinned to one."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from simple_history.models import HistoricalRecords

from apps.core.models import BaseModel
from apps.engine.spec import MappingSpec
from apps.sources.models import Dataset


class Mapping(BaseModel):
    """The mapping that people edit; `services.publish` turns it into a version."""

    name = models.CharField(max_length=150, unique=True)
    left = models.ForeignKey(Dataset, on_delete=models.PROTECT, related_name="mappings_from")
    right = models.ForeignKey(Dataset, on_delete=models.PROTECT, related_name="mappings_to")
    key = models.JSONField(
        default=list, help_text="Right fields that identify a record on both sides."
    )
    match = models.JSONField(
        default=list,
        blank=True,
        help_text="How records that are not linked yet find each other: right fields, each with "
        "what is evened out before values are compared. Empty: by the key.",
    )  # [{"field": right field, "normalise": [names of engine.spec.Normalisation]}]
    description = models.TextField(blank=True)
    history = HistoricalRecords()

    class Meta:
        ordering = ["name"]
        permissions = [("author_expressions", "Can write expressions, filters and checks")]

    def __str__(self) -> str:
        return self.name

    @property
    def current_version(self) -> MappingVersion | None:
        return self.versions.order_by("-number").first()


class FieldMapping(BaseModel):
    """One right field and where its value comes from."""

    mapping = models.ForeignKey(Mapping, on_delete=models.CASCADE, related_name="fields")
    position = models.PositiveIntegerField(default=0)
    right = models.CharField("right field", max_length=255)
    left = models.CharField("left field", max_length=255, blank=True)
    to_right = models.TextField(
        "expression", blank=True, help_text="SQL scalar expression over left fields."
    )
    to_left = models.TextField(
        "expression back", blank=True, help_text="SQL scalar expression over right fields."
    )
    constant = models.TextField(null=True, blank=True)
    default = models.TextField(null=True, blank=True, help_text="Takes the place of NULL.")
    history = HistoricalRecords()

    class Meta:
        ordering = ["position", "right"]
        constraints = [
            models.UniqueConstraint(fields=["mapping", "right"], name="one_mapping_per_right_field")
        ]

    def __str__(self) -> str:
        return f"{self.left or self.to_right or self.constant} → {self.right}"


class MappingVersion(BaseModel):
    """What a mapping said at one moment. Never changed, never deleted while a run names it."""

    mapping = models.ForeignKey(Mapping, on_delete=models.CASCADE, related_name="versions")
    number = models.PositiveIntegerField()
    spec_data = models.JSONField()
    digest = models.CharField(max_length=64)
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+"
    )

    class Meta:
        ordering = ["mapping", "-number"]
        constraints = [
            models.UniqueConstraint(fields=["mapping", "number"], name="mapping_version_number")
        ]

    def __str__(self) -> str:
        return f"{self.mapping.name} v{self.number}"

    def spec(self) -> MappingSpec:
        return MappingSpec.model_validate(self.spec_data)


class LookupTable(BaseModel):
    """A table of values that expressions use: lookup('name', value)."""

    name = models.SlugField(max_length=60, unique=True)
    description = models.CharField(max_length=200, blank=True)
    history = HistoricalRecords()

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name


class LookupEntry(models.Model):
    """One line of a lookup table."""

    table = models.ForeignKey(LookupTable, on_delete=models.CASCADE, related_name="entries")
    key = models.CharField(max_length=255)
    value = models.CharField(max_length=1000)
    history = HistoricalRecords()

    class Meta:
        ordering = ["key"]
        verbose_name_plural = "lookup entries"
        constraints = [
            models.UniqueConstraint(fields=["table", "key"], name="one_lookup_value_per_key")
        ]

    def __str__(self) -> str:
        return f"{self.key} → {self.value}"
