"""Every column of protected values of every room: found by its field, nobody keeps a list."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from django.apps import apps
from django.db import models
from django.db.models import Q

from apps.core.fields import SealedContentField, SealedField
from apps.core.protected import SUBJECT_VERSION


@dataclass(frozen=True, slots=True)
class Stored:
    """One value as the database has it."""

    pk: Any
    sealed: bytes
    place: str
    sealed_key: bytes = b""  # of a content with a key of its own


@dataclass(frozen=True, slots=True)
class SealedColumn:
    """One column of one model."""

    model: type[models.Model]
    field: SealedField

    @property
    def label(self) -> str:
        return f"{self.model._meta.label_lower}.{self.field.name}"

    @property
    def has_own_keys(self) -> bool:
        """Whether each value has a key of its own, which lies in another column."""
        return isinstance(self.field, SealedContentField)

    def values(self) -> models.QuerySet[Any]:
        """Rows that hold a value, by primary key."""
        rows = self.model._base_manager.exclude(**{self.field.name: None})
        return rows.order_by("pk")

    def under(self, head: bytes) -> Q:
        """Rows whose value was encrypted with a key: it begins with the key's head."""
        name = self.field.name
        beyond = (int.from_bytes(head) + 1).to_bytes(len(head))
        return Q(**{f"{name}__gte": head, f"{name}__lt": beyond})

    def stale(self, head: bytes) -> models.QuerySet[Any]:
        """Rows that a rotation to the key with this head has to encrypt anew.

        Values under a subject's key are none of them: it is that key which is sealed anew.
        """
        name = self.field.name
        subjects = Q(**{f"{name}__gte": bytes([SUBJECT_VERSION])}) & Q(
            **{f"{name}__lt": bytes([SUBJECT_VERSION + 1])}
        )
        return self.values().exclude(self.under(head)).exclude(subjects)

    def read(self, rows: models.QuerySet[Any], after: str, limit: int) -> list[Stored]:
        """The next values of `rows` behind a primary key (its text; empty: the first ones)."""
        if after:
            rows = rows.filter(pk__gt=self.model._meta.pk.to_python(after))
        names = [self.field.name, *self.field.place_columns]
        if isinstance(self.field, SealedContentField):
            names.append(self.field.key_column)
        return [self._stored(row) for row in rows.values_list("pk", *names)[:limit]]

    def _stored(self, row: Sequence[Any]) -> Stored:
        pk, sealed, *rest = row
        key = bytes(rest.pop()) if self.has_own_keys else b""
        return Stored(pk, bytes(sealed), self.field.place_of(rest), key)


def sealed_columns() -> list[SealedColumn]:
    """All of them, by label, those of history tables as well."""
    found = [
        SealedColumn(model, field)
        for model in apps.get_models(include_auto_created=True)
        for field in model._meta.concrete_fields
        if isinstance(field, SealedField)
    ]
    return sorted(found, key=lambda column: column.label)


def rotated_columns() -> list[SealedColumn]:
    """Those whose values are encrypted with data keys."""
    return [column for column in sealed_columns() if not column.has_own_keys]
