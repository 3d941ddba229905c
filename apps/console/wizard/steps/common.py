"""What every step shares."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import PermissionDenied
from django.http import HttpRequest

from apps.console.wizard import draft as drafts
from apps.rules.models import SyncDraft
from apps.sources.models import Dataset

Context = dict[str, Any]
Problems = list[str]


def both_datasets(request: HttpRequest, draft: SyncDraft) -> tuple[Dataset, Dataset]:
    left = drafts.draft_dataset(draft, "left", request.user)
    right = drafts.draft_dataset(draft, "right", request.user)
    if left is None or right is None:
        raise PermissionDenied("the datasets of this draft are not there, or not for you")
    return left, right
