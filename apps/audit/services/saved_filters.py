"""Filters that a person keeps under a name."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

from apps.audit.models import AuditEvent, SavedFilter
from apps.audit.selectors import EventFilter, saved_filters
from apps.connectors.errors import ConfigurationError
from apps.core.selectors import require, scoped

if TYPE_CHECKING:
    from django.contrib.auth.models import AbstractUser

MOST_FILTERS = 50


class FilterRefused(ConfigurationError):
    """A filter cannot be kept as it is."""

    code = "audit.filter_refused"
    default_remedy = "Give the filter a name of up to 60 characters, and something to look for."


def save_filter(name: str, wanted: EventFilter, *, actor: AbstractUser) -> SavedFilter:
    """Keep a filter; one of the same name is replaced. Raises FilterRefused, PermissionDenied."""
    require(actor, lambda who, do: scoped(AuditEvent.objects.all(), who, do), "view")
    name = " ".join(name.split())
    query = wanted.as_query()
    if not 0 < len(name) <= 60 or not query or len(query) > 1000:
        raise FilterRefused("this filter has no name, a long one, or looks for nothing")
    if wanted.problems:
        raise FilterRefused(wanted.problems[0])
    kept = saved_filters(actor)
    if kept.count() >= MOST_FILTERS and not kept.filter(name=name).exists():
        raise FilterRefused(
            f"{MOST_FILTERS} filters are kept already", remedy="Delete one that you do not need."
        )
    saved, _ = SavedFilter.objects.update_or_create(
        owner_id=actor.pk, name=name, defaults={"query": query}
    )
    return saved


def forget_filter(filter_id: UUID, *, actor: AbstractUser) -> None:
    """Delete one of the person's own filters; does nothing where there is none with this id."""
    saved_filters(actor).filter(pk=filter_id).delete()
