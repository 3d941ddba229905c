"""What a verification found, as its page shows it: records and accuracy field by field."""

from __future__ import annotations

from dataclasses import dataclass

from apps.runs.models import ENDED_WELL, Run


@dataclass(frozen=True, slots=True)
class FieldAccuracy:
    """In how many records a field differs; percent of the records that both sides have."""

    name: str
    different: int
    percent: float


@dataclass(frozen=True, slots=True)
class Verification:
    compared: int
    equal: int
    different: int
    missing: int
    extra: int
    conflicts: int
    rejected: int
    fields: list[FieldAccuracy]
    can_repair: bool

    @property
    def percent(self) -> float:
        """Share of the records that are in step."""
        return _percent(self.equal, self.compared)


def verification(run: Run) -> Verification | None:
    """None for runs that verify nothing, or have not ended."""
    found = run.accuracy
    if run.mode != Run.Mode.VERIFY or not found or "different" not in found:
        return None
    both = found["equal"] + found["different"] + found.get("conflicts", 0)
    ended = run.status in ENDED_WELL
    return Verification(
        compared=found["sampled"],
        equal=found["equal"],
        different=found["different"],
        missing=found["missing"],
        extra=found["extra"],
        conflicts=found.get("conflicts", 0),
        rejected=found.get("rejected", 0),
        fields=[
            FieldAccuracy(name, number, _percent(both - number, both))
            for name, number in found["fields"].items()
        ],
        can_repair=ended and run.planned > 0,
    )


def _percent(part: int, whole: int) -> float:
    """Rounded down to hundredths, so that only what is whole is 100 %."""
    return int(10_000 * part / whole) / 100 if whole else 100.0
