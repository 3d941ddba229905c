"""Places: how many partitions may be at work somewhere at a time, over all workers together.

A source with a limit has as many places. A two-way run has one place for writing, because each of
its partitions locks a whole dataset: the others would only stand in line for that lock.

A worker takes its places together with its lease, while it holds a lock on each place's row, so
that no two of them count the same free place. A partition that finds none is given back, and
remembers since when it waits. Whoever leaves a place looks, under the same lock, for who waits
longest and sends that one again: a partition that has just found no place is seen, and one that
looks a moment later finds the place free. What a dead worker leaves is found by the tick.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import Q, QuerySet

from apps.core.clock import now
from apps.rules.models import Rule
from apps.runs.models import ACTIVE_STATUSES, Partition, Run
from apps.runs.services.dispatching import dispatch
from apps.sources.models import Source


@dataclass(frozen=True, slots=True)
class Place:
    """Where at most `most` partitions work at a time: at a source, or at writing a run."""

    most: int
    source_id: UUID | None = None
    run_id: UUID | None = None

    def lock(self) -> None:
        """Keep others from taking or leaving this place until the transaction ends."""
        rows: QuerySet[Any] = Source.objects.filter(pk=self.source_id)
        if self.run_id is not None:
            rows = Run.objects.filter(pk=self.run_id)
        list(rows.select_for_update().values_list("pk"))

    def free(self, moment: datetime) -> int:
        """How many more partitions may work here."""
        return self.most - self._partitions().filter(lease_until__gte=moment).count()

    def waiting(self, moment: datetime) -> QuerySet[Partition]:
        """Partitions that have found no place, who waits longest first."""
        due = Q(not_before=None) | Q(not_before__lte=moment)
        unheld = Q(lease_until=None) | Q(lease_until__lt=moment)
        wanting = self._partitions().filter(due, unheld, place_wanted_at__isnull=False)
        return wanting.filter(run__status__in=ACTIVE_STATUSES).order_by("place_wanted_at")

    def _partitions(self) -> QuerySet[Partition]:
        if self.run_id is not None:
            return Partition.objects.filter(run_id=self.run_id, state=Partition.State.TO_APPLY)
        of_source = Q(run__rule__mapping__left__source_id=self.source_id) | Q(
            run__rule__mapping__right__source_id=self.source_id
        )
        return Partition.objects.filter(of_source, state__in=Partition.WORKABLE)


_FACTS = (
    *("run_id", "state", "cut", "run__rule__direction"),
    *(
        f"run__rule__mapping__{side}__{fact}"
        for side in ("left", "right")
        for fact in ("source_id", "source__most_partitions")
    ),
)


def places_of(partition_id: UUID) -> tuple[Place, ...]:
    """The places that a partition needs, in the order in which they are locked."""
    facts = Partition.objects.filter(pk=partition_id).values_list(*_FACTS).first()
    if facts is None:
        return ()
    run_id, state, cut, direction, *sides = facts
    limits = {sides[0]: sides[1], sides[2]: sides[3]}
    found = [
        Place(most, source_id=source_id)
        for source_id, most in sorted(limits.items())
        if most is not None
    ]
    if cut and direction == Rule.Direction.TWO_WAY and state == Partition.State.TO_APPLY:
        found.append(Place(1, run_id=run_id))
    return tuple(found)


def are_free(places: Sequence[Place], moment: datetime) -> bool:
    """Whether there is room in all of them. Within the transaction that takes them."""
    for place in places:
        place.lock()
    return all(place.free(moment) > 0 for place in places)


def offer(places: Sequence[Place]) -> None:
    """Send the partitions that wait for what is free now."""
    for place in places:
        with transaction.atomic():
            place.lock()
            moment = now()
            free = place.free(moment)
            if free > 0:
                dispatch(place.waiting(moment).values_list("pk", flat=True)[:free])
