"""What stands for a person outside protected values: rows that name the person by blind index.

They hold no value that a key could be destroyed for, so an erasure removes them. They are found by
their field, in whatever room; nobody keeps a list.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any
from uuid import UUID

from django.apps import apps
from django.db.models import Exists, OuterRef, QuerySet

from apps.core.fields import SubjectIndexField
from apps.core.keys.subjects import index_of_nobody_known
from apps.core.models import SubjectKey


def note_erasure(dataset_id: UUID, index: bytes, at: datetime) -> None:
    """Have the table of keys say that a subject was erased, also where it had no key.

    With it goes the subject that stands for those of whom it cannot be told who they are.
    """
    for one in (index, index_of_nobody_known(dataset_id)):
        if not SubjectKey.objects.filter(index=one, erased_at__gte=at).exists():
            SubjectKey.objects.create(dataset_id=dataset_id, index=one, created_at=at, erased_at=at)


def remove_traces(dataset_id: UUID, index: bytes) -> int:
    """Remove what stands for a subject that is erased; how many rows."""
    return _removed(traces_of_erased([index, index_of_nobody_known(dataset_id)]))


def remove_all_traces() -> int:
    """The same of everybody who is erased."""
    return _removed(traces_of_erased())


def _removed(traces: Iterable[QuerySet[Any]]) -> int:
    return sum(rows.delete()[0] for rows in traces)


def traces_of_erased(indices: Iterable[bytes] | None = None) -> Iterator[QuerySet[Any]]:
    """For each such column, the rows about subjects that were erased after their content was met.

    indices: of these subjects; None: of all.
    """
    erased = SubjectKey.objects.exclude(erased_at=None)
    chosen = erased.values("index") if indices is None else list(indices)
    for model in apps.get_models():
        for field in model._meta.local_fields:
            if isinstance(field, SubjectIndexField):
                later = erased.filter(
                    index=OuterRef(field.name), erased_at__gte=OuterRef(field.time)
                )
                rows = model._base_manager.filter(**{f"{field.name}__in": chosen})
                yield rows.filter(Exists(later))
