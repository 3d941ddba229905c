"""Mappings and their field mappings."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from apps.api.serializers.common import Reached, specs_of, texts
from apps.api.sparse import Shown
from apps.engine.spec import FieldMappingSpec, MatchFieldSpec, Normalisation
from apps.mappings.models import Mapping
from apps.sources.models import Dataset

NORMALISATIONS = [(n.value, n.value) for n in Normalisation]


class ShownFieldMapping(Shown):
    """One right field and where its value comes from."""

    right = serializers.CharField()
    left = serializers.CharField()
    to_right = serializers.CharField(help_text="SQL scalar expression over left fields.")
    to_left = serializers.CharField(help_text="SQL scalar expression over right fields.")
    constant = serializers.CharField(allow_null=True)
    default = serializers.CharField(allow_null=True)


class ShownMatchField(Shown):
    """A right field by which records that are not linked yet find each other."""

    field = serializers.CharField()
    normalise = serializers.ListField(child=serializers.ChoiceField(choices=NORMALISATIONS))


class ShownMapping(Shown):
    """How the fields of a left dataset correspond to those of a right one."""

    id = serializers.UUIDField()
    name = serializers.CharField()
    description = serializers.CharField()
    left = serializers.UUIDField(source="left_id")
    right = serializers.UUIDField(source="right_id")
    key = texts()
    match = ShownMatchField(many=True)
    field_mappings = ShownFieldMapping(many=True, source="fields.all")
    created_at = serializers.DateTimeField()
    updated_at = serializers.DateTimeField()


class MappingConfiguration(Shown):
    """What the ETag of a mapping stands for."""

    name = serializers.CharField()
    description = serializers.CharField()
    left = serializers.UUIDField(source="left_id")
    right = serializers.UUIDField(source="right_id")
    key = texts()
    match = ShownMatchField(many=True)
    field_mappings = ShownFieldMapping(many=True, source="fields.all")


class GivenFieldMapping(serializers.Serializer):
    """One right field: its value is that of a left field, an expression, or a constant."""

    right = serializers.CharField(max_length=255)
    left = serializers.CharField(max_length=255, required=False, allow_blank=True)
    to_right = serializers.CharField(required=False, allow_blank=True, max_length=10_000)
    to_left = serializers.CharField(required=False, allow_blank=True, max_length=10_000)
    constant = serializers.CharField(required=False, allow_null=True, allow_blank=True)
    default = serializers.CharField(required=False, allow_null=True, allow_blank=True)


class GivenMatchField(serializers.Serializer):
    """A right field, and what is evened out before its values are compared."""

    field = serializers.CharField(max_length=255)
    normalise = serializers.ListField(
        child=serializers.ChoiceField(choices=NORMALISATIONS), required=False, default=list
    )


class MappingChanges(serializers.ModelSerializer):
    """What can be changed of a mapping; `field_mappings` and `match` are replaced as wholes."""

    left = Reached(Dataset, required=False)
    right = Reached(Dataset, required=False)
    key = texts(required=False)
    match = GivenMatchField(many=True, required=False)
    field_mappings = GivenFieldMapping(many=True, required=False)

    class Meta:
        model = Mapping
        fields = ("name", "description", "left", "right", "key", "match", "field_mappings")
        extra_kwargs = {"name": {"required": False}}


class NewMapping(MappingChanges):
    """A new mapping."""

    left = Reached(Dataset)
    right = Reached(Dataset)
    key = texts()
    field_mappings = GivenFieldMapping(many=True)

    class Meta(MappingChanges.Meta):
        extra_kwargs = {"name": {"required": True}}


def field_specs(given: list[dict[str, Any]]) -> list[FieldMappingSpec]:
    return specs_of(FieldMappingSpec, given, "field_mappings")


def match_specs(given: list[dict[str, Any]]) -> list[MatchFieldSpec]:
    return specs_of(MatchFieldSpec, given, "match")
