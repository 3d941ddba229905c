"""Putting on record that an object of the configuration was made or changed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from django.db import models, transaction

from apps.audit.actions import Act
from apps.audit.services.recording import record

if TYPE_CHECKING:
    from django.contrib.auth.models import AbstractUser

BOOKKEEPING = frozenset({"created_at", "updated_at"})


@contextmanager
def saving(
    obj: models.Model, created: Act, changed: Act, *, actor: AbstractUser | None
) -> Iterator[dict[str, Any]]:
    """Save `obj` within, in a transaction; which columns changed is recorded at its end.

    Yields the details, for what the columns do not say, such as the number of a new version. An
    object that is neither new nor changed, and has no details, leaves no event. Names of columns
    are kept, never values.
    """
    with transaction.atomic():
        columns = changed_columns(obj)
        details: dict[str, Any] = {}
        yield details
        if columns is None:
            record(created, obj, actor=actor, details=details)
        elif columns or details:
            record(changed, obj, actor=actor, details={"changed": columns, **details})


def changed_columns(obj: models.Model) -> list[str] | None:
    """Names of the columns in which an object differs from what is stored; None where it is new."""
    stored = type(obj)._default_manager.filter(pk=obj.pk).first()
    if stored is None:
        return None
    return [
        field.name
        for field in obj._meta.concrete_fields
        if field.name not in BOOKKEEPING
        and not isinstance(field, models.BinaryField)
        and getattr(stored, field.attname) != getattr(obj, field.attname)
    ]
