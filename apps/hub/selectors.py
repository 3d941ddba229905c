"""Which hub datasets somebody reaches, their schemas, and which records an account sees.

A hosted dataset is reached by whoever reaches the dataset of that name of a source of the hub:
grants are given there, as for any dataset.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from uuid import UUID

from django.db.models import Q, QuerySet

from apps.core.selectors import narrows, permits, reached, reaches_all, scoped
from apps.hub.bodies import scope_name
from apps.hub.models import (
    HostedDataset,
    HostedRecord,
    Mutation,
    Replica,
    ReplicaProgress,
    Revision,
    RowScope,
    SchemaVersion,
)
from apps.hub.schemas import Shape, shape_of
from apps.sources.models import Dataset, Field

CONNECTOR = "hub"


def hosted_datasets(actor: Any, action: str = "view") -> QuerySet[HostedDataset]:
    return scoped(HostedDataset.objects.all(), actor, action)


def replicas(actor: Any, action: str = "view") -> QuerySet[Replica]:
    return scoped(Replica.objects.select_related("account"), actor, action)


def mutations(actor: Any, action: str = "view") -> QuerySet[Mutation]:
    return scoped(Mutation.objects.select_related("replica__account", "hosted"), actor, action)


@narrows(HostedDataset)
def _granted(rows: QuerySet[HostedDataset], actor: Any, action: str) -> QuerySet[HostedDataset]:
    known = Dataset.objects.filter(source__connector=CONNECTOR)
    return rows.filter(name__in=reached(known, actor, action).values("name"))


@narrows(SchemaVersion, HostedRecord, Revision, RowScope, ReplicaProgress, Mutation)
def _with_dataset(rows: QuerySet[Any], actor: Any, action: str) -> QuerySet[Any]:
    known = reached(HostedDataset.objects.all(), actor, action)
    return rows.filter(hosted__in=known.values("pk"))


@narrows(Replica)
def _granted_replicas(rows: QuerySet[Replica], actor: Any, action: str) -> QuerySet[Replica]:
    """Those of the own account, and those that keep a copy of a dataset that is reached."""
    known = reached(HostedDataset.objects.all(), actor, action)
    keeping = ReplicaProgress.objects.filter(hosted__in=known.values("pk"))
    return rows.filter(Q(pk__in=keeping.values("replica")) | Q(account_id=actor.pk))


def hosted_as(rows: QuerySet[HostedDataset], dataset_id: UUID) -> HostedDataset | None:
    """The one of these that is known to all other rooms as this dataset."""
    named = Dataset.objects.filter(pk=dataset_id, source__connector=CONNECTOR)
    return rows.filter(name__in=named.values("name")).first()


def datasets_of(hosted: HostedDataset) -> QuerySet[Dataset]:
    """The datasets as which all other rooms know it."""
    return Dataset.objects.filter(source__connector=CONNECTOR, name=hosted.name)


def has_personal_fields(hosted: HostedDataset) -> bool:
    """Whether what it holds is kept sealed."""
    rows = Field.objects.filter(dataset__in=datasets_of(hosted).values("pk"))
    return rows.exclude(personal_data="").exists()


# Schemas


def newest_schema(hosted: HostedDataset) -> SchemaVersion:
    return hosted.versions.get(number=hosted.schema_number)


def shape_of_hosted(hosted: HostedDataset) -> Shape:
    """Its newest schema, ready to be used."""
    return _shape(hosted.pk, hosted.schema_number)


@lru_cache(maxsize=500)  # versions do not change
def _shape(hosted_id: UUID, number: int) -> Shape:
    versions = SchemaVersion.objects.select_related("hosted")
    version = versions.get(hosted=hosted_id, number=number)
    return shape_of(version.schema, version.hosted.key)


# Scopes


@dataclass(frozen=True, slots=True)
class Access:
    """Scopes whose records somebody sees; None: all records."""

    scopes: frozenset[str] | None

    @classmethod
    def to_values(cls, *values: Any) -> Access:
        """To records with one of these values in the scope field."""
        return cls(frozenset(scope_name(value) for value in values))

    def sees(self, scope: str) -> bool:
        return self.scopes is None or scope in self.scopes


EVERYTHING = Access(None)


def access_of(actor: Any, hosted: HostedDataset) -> Access:
    """What an account sees of a dataset that it reaches: nothing, unless somebody has said what."""
    if not hosted.scope_field:
        return EVERYTHING
    said = RowScope.objects.filter(hosted=hosted, account=actor.pk).first()
    if said is not None:
        return EVERYTHING if said.every else Access.to_values(*said.values)
    manages = reaches_all(actor) and permits(actor, HostedDataset, "change")
    return EVERYTHING if manages else Access(frozenset())
