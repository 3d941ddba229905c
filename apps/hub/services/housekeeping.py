"""What is forgotten in time, and what is sealed after fields were marked as personal."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.db import transaction
from django.db.models import Max, QuerySet

from apps.core.clock import now
from apps.hub.bodies import kept, mutation_place, opened, record_place, revision_place
from apps.hub.models import (
    HostedDataset,
    HostedRecord,
    Mutation,
    Revision,
    ScopeExit,
    ScopeSet,
)
from apps.hub.models import Sequence as Counter
from apps.hub.selectors import has_personal_fields

BATCH = 2_000


def maintain() -> None:
    """All of it, for each dataset."""
    for hosted in HostedDataset.objects.all():
        forget_deletions(hosted)
        forget_history(hosted)
        seal_as_marked(hosted)
    longest = HostedDataset.objects.aggregate(days=Max("tombstone_days"))["days"] or 0
    ScopeSet.objects.filter(used_at__lt=now() - timedelta(days=longest + 1)).delete()


def forget_deletions(hosted: HostedDataset) -> int:
    """Remove tombstones and exits that are past their time; how many there were.

    Whoever was away since before the last of them has to begin a new copy.
    """
    before = now() - timedelta(days=hosted.tombstone_days)
    removed = 0
    while True:
        with transaction.atomic():
            tombstones = HostedRecord.objects.filter(
                hosted=hosted, is_deleted=True, changed_at__lt=before
            )
            exits = ScopeExit.objects.filter(hosted=hosted, left_at__lt=before)
            found = _remove_some(hosted, tombstones) + _remove_some(hosted, exits)
        removed += found
        if not found:
            return removed


def _remove_some(hosted: HostedDataset, rows: QuerySet[HostedRecord] | QuerySet[ScopeExit]) -> int:
    part = dict(rows.order_by("revision").values_list("pk", "revision")[:BATCH])
    if not part:
        return 0
    Counter.objects.filter(hosted=hosted, forgotten__lt=max(part.values())).update(
        forgotten=max(part.values())
    )
    rows.filter(pk__in=part).delete()
    return len(part)


def forget_history(hosted: HostedDataset) -> int:
    """Remove former values, and edits set aside on which nobody has to decide."""
    before = now() - timedelta(days=hosted.history_days)
    revisions = Revision.objects.filter(hosted=hosted, made_at__lt=before)
    edits = Mutation.objects.filter(hosted=hosted, created_at__lt=before)
    edits = edits.exclude(state=Mutation.State.OPEN)
    return int(revisions.delete()[0]) + int(edits.delete()[0])


def seal_as_marked(hosted: HostedDataset) -> int:
    """Seal what was stored before a field was marked as personal, or open it; how many rows."""
    is_personal = has_personal_fields(hosted)
    return sum(_seal(text, hosted, is_personal) for text in TEXTS)


@dataclass(frozen=True, slots=True)
class _Text:
    """A text that is kept in clear or sealed. place: of the sealed one, by row."""

    model: type[HostedRecord | Revision | Mutation]
    clear: str
    sealed: str
    place: Callable[[Any], str]


TEXTS = (
    _Text(HostedRecord, "body", "sealed_body", lambda row: record_place(row.hosted_id, row.key)),
    _Text(Revision, "before", "sealed_before", lambda row: revision_place(row.pk)),
    _Text(Mutation, "kept", "sealed_kept", lambda row: mutation_place(row.pk)),
)


def _seal(text: _Text, hosted: HostedDataset, is_personal: bool) -> int:
    rows = text.model._base_manager.filter(hosted=hosted)
    unfit = rows.exclude(**{text.clear if is_personal else text.sealed: None})
    done = 0
    while True:
        with transaction.atomic():
            part: list[Any] = list(unfit.select_for_update(of=("self",)).order_by("pk")[:BATCH])
            for row in part:
                place = text.place(row)
                found = opened(getattr(row, text.clear), getattr(row, text.sealed), place)
                body = kept(found, place, is_personal)
                setattr(row, text.clear, body.clear)
                setattr(row, text.sealed, body.sealed)
            rows.bulk_update(part, [text.clear, text.sealed], batch_size=200)
        done += len(part)
        if len(part) < BATCH:
            return done
