"""Reads about sources; the scoped queryset of each model of this room."""

from __future__ import annotations

import json
from typing import Any

from django.db.models import Exists, OuterRef, Q, QuerySet

from apps.accounts.selectors import granted
from apps.connectors.base import Connector
from apps.connectors.registry import build, connector_class
from apps.core.selectors import narrows, reached, scoped
from apps.sources.models import Dataset, Drift, Field, Source


def sources(actor: Any, action: str = "view") -> QuerySet[Source]:
    return scoped(Source.objects.all(), actor, action)


def datasets(actor: Any, action: str = "view") -> QuerySet[Dataset]:
    return scoped(Dataset.objects.select_related("source"), actor, action)


def fields(actor: Any, action: str = "view") -> QuerySet[Field]:
    return scoped(Field.objects.select_related("dataset__source"), actor, action)


def drifts(actor: Any, action: str = "view") -> QuerySet[Drift]:
    return scoped(Drift.objects.select_related("source"), actor, action)


def location_of(source: Source) -> str:
    """Where a source's data is, as JSON: two locations that differ are other data, or moved."""
    names = connector_class(source.connector).settings_model.location
    return json.dumps({name: source.settings.get(name) for name in names})


@narrows(Source)
def _granted_sources(rows: QuerySet[Source], actor: Any, action: str) -> QuerySet[Source]:
    return rows.filter(granted(Source, actor, action))


@narrows(Dataset)
def _granted_datasets(rows: QuerySet[Dataset], actor: Any, action: str) -> QuerySet[Dataset]:
    """By itself, or with its source."""
    of_source = Q(source__in=reached(Source.objects.all(), actor, action).values("pk"))
    return rows.filter(granted(Dataset, actor, action) | of_source)


@narrows(Field)
def _granted_fields(rows: QuerySet[Field], actor: Any, action: str) -> QuerySet[Field]:
    """With their dataset."""
    return rows.filter(dataset__in=reached(Dataset.objects.all(), actor, action).values("pk"))


@narrows(Drift)
def _granted_drifts(rows: QuerySet[Drift], actor: Any, action: str) -> QuerySet[Drift]:
    """With the source or the dataset. To mark it as seen is work, it changes neither."""
    action = "run" if action == "change" else action
    known = reached(Dataset.objects.all(), actor, action)
    same = known.filter(source=OuterRef("source"), name=OuterRef("dataset_name"))
    of_source = Q(source__in=reached(Source.objects.all(), actor, action).values("pk"))
    return rows.filter(of_source | Exists(same))


def connector_for(source: Source) -> Connector[Any]:
    """The connector of a source, with its secrets: for workers and services only."""
    return build(source.connector, {**source.settings, **source.secrets()})
