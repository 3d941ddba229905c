"""Fields that several resources share."""

from __future__ import annotations

from typing import Any, TypeVar

from django.db.models import Model, QuerySet
from pydantic import BaseModel, ValidationError
from rest_framework import serializers

from apps.api.errors import invalid_of
from apps.core.selectors import reached


class Reached(serializers.PrimaryKeyRelatedField):
    """Names an object that the caller reaches; any other is not there."""

    def __init__(self, model: type[Model], action: str = "view", **kwargs: Any) -> None:
        self.model, self.action = model, action
        super().__init__(
            queryset=model._default_manager.none(),
            pk_field=serializers.UUIDField(),
            **kwargs,
        )

    def get_queryset(self) -> QuerySet[Any]:
        rows = self.model._default_manager.all()
        return reached(rows, self.context["request"].user, self.action)


Spec = TypeVar("Spec", bound=BaseModel)


def specs_of(kind: type[Spec], given: list[dict[str, Any]], place: str) -> list[Spec]:
    """What was sent, as the engine has it. Raises Invalid for what contradicts itself.

    place: the name of the list in what was sent.
    """
    try:
        return [kind.model_validate(row) for row in given]
    except ValidationError as error:
        raise invalid_of(error, place) from None


class Note(serializers.Serializer):
    """Why something is done; goes into the audit log."""

    note = serializers.CharField(required=False, default="", allow_blank=True, max_length=500)


class Reason(serializers.Serializer):
    """Why something is done; goes into the audit log."""

    reason = serializers.CharField(required=False, default="", allow_blank=True, max_length=500)


class Nothing(serializers.Serializer):
    """An empty JSON object, or no body at all."""


def image(**kwargs: Any) -> serializers.DictField:
    """A record as canonical texts by field, personal values masked."""
    child = serializers.CharField(allow_null=True, allow_blank=True)
    return serializers.DictField(child=child, **kwargs)


def texts(**kwargs: Any) -> serializers.ListField:
    """A list of texts."""
    return serializers.ListField(child=serializers.CharField(allow_blank=True), **kwargs)
