"""Sources, datasets and fields."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from apps.api.serializers.common import texts
from apps.api.sparse import Shown
from apps.connectors.base import StepStatus
from apps.connectors.registry import connector_names
from apps.core.models import Criticality
from apps.sources.models import Dataset, Field, Source
from apps.sources.services import DATASET_FACTS

LIMITS = ("most_partitions", "most_rows_per_second", "most_bytes_per_second")
STEP_STATUSES = [(status.value, status.value) for status in StepStatus]
WRITABLE = ("name", "description", "owner", "criticality", *LIMITS)


class ShownStep(Shown):
    """One step of a test of a connection."""

    name = serializers.CharField()
    status = serializers.ChoiceField(choices=STEP_STATUSES)
    message = serializers.CharField()
    remedy = serializers.CharField()


class ShownSource(Shown):
    """A platform that holds data. Secrets are never shown, only which ones are set."""

    id = serializers.UUIDField()
    name = serializers.CharField()
    connector = serializers.CharField()
    settings = serializers.DictField(help_text="As the connector describes them, without secrets.")
    secrets_set = serializers.SerializerMethodField()
    description = serializers.CharField()
    owner = serializers.CharField()
    criticality = serializers.ChoiceField(choices=Criticality.choices)
    paused = serializers.BooleanField()
    most_partitions = serializers.IntegerField(allow_null=True)
    most_rows_per_second = serializers.IntegerField(allow_null=True)
    most_bytes_per_second = serializers.IntegerField(allow_null=True)
    health = serializers.ChoiceField(choices=Source.Health.choices)
    checked_at = serializers.DateTimeField(allow_null=True)
    check_steps = ShownStep(many=True)
    discovered_at = serializers.DateTimeField(allow_null=True)
    created_at = serializers.DateTimeField()
    updated_at = serializers.DateTimeField()

    def get_secrets_set(self, source: Source) -> dict[str, str]:
        return dict(source.secrets_set_at)


class SourceConfiguration(Shown):
    """What the ETag of a source stands for."""

    name = serializers.CharField()
    connector = serializers.CharField()
    settings = serializers.DictField()
    secrets_set_at = serializers.DictField()
    description = serializers.CharField()
    owner = serializers.CharField()
    criticality = serializers.CharField()
    paused = serializers.BooleanField()
    most_partitions = serializers.IntegerField()
    most_rows_per_second = serializers.IntegerField()
    most_bytes_per_second = serializers.IntegerField()


class SourceChanges(serializers.ModelSerializer):
    """What can be changed of a source. Secrets that `settings` leaves out stay as they are."""

    settings = serializers.DictField(
        required=False,
        help_text="All settings of the connector; secrets among them are kept sealed.",
    )

    class Meta:
        model = Source
        fields = (*WRITABLE, "settings")
        extra_kwargs = {"name": {"required": False}}


class NewSource(SourceChanges):
    """A new source."""

    connector = serializers.ChoiceField(choices=[(n, n) for n in connector_names()])

    class Meta(SourceChanges.Meta):
        fields = (*WRITABLE, "connector", "settings")
        extra_kwargs = {"name": {"required": True}}


class ShownDiscovery(Shown):
    """What a discovery has found."""

    datasets = serializers.IntegerField()
    drifts = serializers.SerializerMethodField()

    def get_drifts(self, found: Any) -> list[str]:
        return [str(drift) for drift in found["drifts"]]


class ShownField(Shown):
    """A field of a dataset."""

    name = serializers.CharField()
    type = serializers.CharField(help_text="Neutral type, such as decimal(10,2).")
    native_type = serializers.CharField()
    nullable = serializers.BooleanField()
    server_assigned = serializers.BooleanField()
    generated = serializers.BooleanField()
    personal_data = serializers.ChoiceField(choices=Field.PersonalData.choices)
    missing_since = serializers.DateTimeField(allow_null=True)


class ShownDataset(Shown):
    """A table, view or set of files, with the inventory facts that people keep."""

    id = serializers.UUIDField()
    source = serializers.UUIDField(source="source_id")
    name = serializers.CharField()
    description = serializers.CharField()
    key = texts()
    cursor_field = serializers.CharField()
    format = serializers.CharField()
    writable = serializers.BooleanField()
    row_count = serializers.IntegerField(allow_null=True)
    size_bytes = serializers.IntegerField(allow_null=True)
    update_frequency = serializers.ChoiceField(choices=Dataset.Frequency.choices)
    criticality = serializers.ChoiceField(choices=Criticality.choices)
    owner = serializers.CharField()
    required_freshness_minutes = serializers.IntegerField(allow_null=True)
    tolerated_loss_minutes = serializers.IntegerField(allow_null=True)
    subject_field = serializers.CharField()
    discovered_at = serializers.DateTimeField(allow_null=True)
    missing_since = serializers.DateTimeField(allow_null=True)
    created_at = serializers.DateTimeField()
    updated_at = serializers.DateTimeField()


class ShownDatasetWhole(ShownDataset):
    """A dataset with its fields."""

    fields_of_records = ShownField(many=True, source="fields.all")


class DatasetConfiguration(Shown):
    """What the ETag of a dataset stands for."""

    key = texts()
    description = serializers.CharField()
    cursor_field = serializers.CharField()
    update_frequency = serializers.CharField()
    criticality = serializers.CharField()
    owner = serializers.CharField()
    required_freshness_minutes = serializers.IntegerField()
    tolerated_loss_minutes = serializers.IntegerField()
    subject_field = serializers.CharField()


class DatasetChanges(serializers.ModelSerializer):
    """The inventory facts that people keep of a dataset."""

    class Meta:
        model = Dataset
        fields = DATASET_FACTS
