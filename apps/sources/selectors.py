"""Reads about sources; the scoped queryset of each model of this room."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet

from apps.connectors.base import Connector
from apps.connectors.registry import build
from apps.core.selectors import scoped
from apps.sources.models import Dataset, Drift, Field, Source


def sources(actor: Any, action: str = "view") -> QuerySet[Source]:
    return scoped(Source.objects.all(), actor, action)


def datasets(actor: Any, action: str = "view") -> QuerySet[Dataset]:
    return scoped(Dataset.objects.select_related("source"), actor, action)


def fields(actor: Any, action: str = "view") -> QuerySet[Field]:
    return scoped(Field.objects.select_related("dataset__source"), actor, action)


def drifts(actor: Any, action: str = "view") -> QuerySet[Drift]:
    return scoped(Drift.objects.select_related("source"), actor, action)


def connector_for(source: Source) -> Connector[Any]:
    """The connector of a source, with its secrets: for workers and services only."""
    return build(source.connector, {**source.settings, **source.secrets()})
