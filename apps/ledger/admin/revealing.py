"""Personal values on pages: masked, until a person says why they are to be shown, this one time.

What is shown is the answer to that POST. Nothing remembers it: whoever opens the page again sees
masks again, and has to say why again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import cast
from uuid import UUID

from django.contrib import messages
from django.db import models, transaction
from django.http import HttpRequest

from apps.accounts.models import User
from apps.core.admin import explain
from apps.ledger.selectors import rule_masks
from apps.ledger.services import ReasonMissing, may_reveal, reveal
from apps.mappings.masking import Mask


@dataclass(frozen=True, slots=True)
class Revealing:
    """What a page says of its personal values. fields: names of those that are masked."""

    fields: list[str]
    url: str
    may: bool
    done: bool


def is_revealed(request: HttpRequest) -> bool:
    """Whether this one answer shows personal values."""
    return bool(getattr(request, "values_revealed", False))


def revealing(
    request: HttpRequest, rule_ids: Iterable[UUID], url: str, shown: Iterable[str] | None = None
) -> Revealing | None:
    """What the page says; None where nothing of it is masked.

    url: where to ask for the values. shown: the fields on the page, where not all are.
    """
    ids = list(rule_ids)
    masks: Mapping[UUID, Mask] = rule_masks(ids)
    hidden = {name for mask in masks.values() for name in (*mask.left, *mask.right)}
    if shown is not None:
        hidden &= set(shown)
    if not hidden:
        return None
    query = request.META.get("QUERY_STRING", "")
    return Revealing(
        sorted(hidden),
        f"{url}?{query}" if query else url,
        all(may_reveal(cast("User", request.user), pk) for pk in ids),
        is_revealed(request),
    )


def begin_reveal(
    request: HttpRequest, subjects: Mapping[UUID, models.Model], about: str = ""
) -> None:
    """Put on record that the values are shown, and let this answer show them.

    subjects: what is shown, by the id of its rule; about: of which record, by the hash of its key.
    Without a reason nothing is shown, and the page says so. Raises PermissionDenied.
    """
    reason = request.POST.get("reason", "")
    try:
        with transaction.atomic():
            for rule_id, subject in subjects.items():
                actor = cast("User", request.user)
                reveal(subject, rule_id, actor=actor, reason=reason, about=about)
    except ReasonMissing as error:
        messages.error(request, explain(error))
        return
    request.values_revealed = bool(subjects)  # type: ignore[attr-defined]
