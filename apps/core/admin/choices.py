"""What forms and filters offer to choose from: nothing that the person does not reach."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.db import models
from django.http import HttpRequest
from unfold.contrib.filters.admin import RelatedDropdownFilter

from apps.core.selectors import needs_grants, reached, scoped


def choosable(model: type[models.Model], request: HttpRequest) -> models.QuerySet[Any]:
    """The rows of a model that a form may name: those that this person reaches.

    Whoever may change a rule keeps its mapping, also without the right to look at mappings.
    """
    return reached(model._default_manager.all(), request.user)


class RelatedFilter(RelatedDropdownFilter):  # type: ignore[misc]
    """By a related object; names only those that this person may see."""

    def field_choices(
        self, field: Any, request: HttpRequest, model_admin: Any
    ) -> list[tuple[Any, str]]:
        rows = scoped(field.remote_field.model._default_manager.all(), request.user)
        return [(row.pk, str(row)) for row in rows]


@contextmanager
def unseen_kept(form: Any, request: HttpRequest) -> Iterator[None]:
    """Keep what a many-to-many field holds and this person cannot see: the form lacks it."""
    unseen: dict[str, list[Any]] = {}
    for field in form._meta.model._meta.many_to_many:
        is_offered = form.instance.pk and field.name in form.cleaned_data
        if is_offered and needs_grants(field.related_model):
            held = getattr(form.instance, field.name)
            seen = choosable(field.related_model, request)
            unseen[field.name] = list(held.exclude(pk__in=seen.values("pk")))
    yield
    for name, rows in unseen.items():
        if rows:
            getattr(form.instance, name).add(*rows)
