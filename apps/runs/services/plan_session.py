"""What the steps of planning one partition share: who works on what, and what was counted."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Self

import pyarrow as pa

from apps.engine.key_parts import KeyPart
from apps.ledger.services import RejectedRecord, WorkIdentity, record_rejections
from apps.runs.models import Partition, Run, RunLog
from apps.runs.services.context import RunContext, load_context
from apps.runs.services.cutting import part_of
from apps.runs.services.leasing import Lease
from apps.runs.services.logs import log
from apps.runs.services.programs import lookups_for

COUNTED = (
    *("read", "read_right", "left_out", "unchanged", "rejected"),
    *("conflicts", "warnings", "bytes_read"),
)


@dataclass(slots=True)
class PlanSession:
    """One partition being planned under its lease. part: the records that it covers."""

    partition: Partition
    lease: Lease
    context: RunContext
    lookups: dict[str, pa.Table]
    part: KeyPart = field(default_factory=KeyPart)
    counters: dict[str, int] = field(default_factory=lambda: dict.fromkeys(COUNTED, 0))

    @classmethod
    def begin(cls, partition: Partition, lease: Lease) -> Self:
        context = load_context(partition.run, lease)
        return cls(partition, lease, context, lookups_for(context), part_of(context, partition))

    @property
    def run(self) -> Run:
        return self.partition.run

    @property
    def work(self) -> WorkIdentity:
        return WorkIdentity(self.run.rule_id, self.run.pk, self.partition.pk)

    def note(self, message: str, level: RunLog.Level = RunLog.Level.INFO) -> None:
        """Append a line to the run's log."""
        log(self.run, message, level=level, partition=self.partition.number)

    def restart(self) -> None:
        """Count from nothing again."""
        self.counters.update(dict.fromkeys(self.counters, 0))
        self.show_progress()

    def show_progress(self) -> None:
        """Write the counters; what is unchanged is known at the end only."""
        self.lease.update(**{k: v for k, v in self.counters.items() if k != "unchanged"})

    def keep_rejections(self, records: Iterable[RejectedRecord]) -> None:
        """Keep rejections without counting them (those that end the run)."""
        with self.lease.transaction():
            # Not those of a verification: it meets what later runs have to look at again.
            is_dry = self.run.mode == Run.Mode.DRY_RUN
            record_rejections(self.work, list(records), is_dry=is_dry)

    def reject(self, records: Iterable[RejectedRecord]) -> None:
        """Keep rejections and count them."""
        kept = list(records)
        self.counters["rejected"] += len(kept)
        if kept:
            self.keep_rejections(kept)
