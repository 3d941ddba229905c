"""The base of every admin page. The theme is imported here and in `apps.console.site` only."""

from unfold.paginator import InfinitePaginator

from apps.core.admin.actions import ObjectAction, ObjectLink
from apps.core.admin.base import (
    BaseAdmin,
    BaseStackedInline,
    BaseTabularInline,
    Chip,
    HistoryAdmin,
    NextStep,
    ReadOnlyAdmin,
)
from apps.core.admin.bulk import bulk_action
from apps.core.admin.choices import RelatedFilter, unseen_kept
from apps.core.admin.errors import ServiceErrorsMixin, ServiceForm, explain

__all__ = [
    "BaseAdmin",
    "BaseStackedInline",
    "BaseTabularInline",
    "Chip",
    "HistoryAdmin",
    "InfinitePaginator",
    "NextStep",
    "ObjectAction",
    "ObjectLink",
    "ReadOnlyAdmin",
    "RelatedFilter",
    "ServiceErrorsMixin",
    "ServiceForm",
    "bulk_action",
    "explain",
    "unseen_kept",
]
