"""One history on its way: what its people do, and which work its workers have before them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from apps.connectors.errors import LeaseLost
from apps.ledger.selectors import PlannedChange
from tests.invariants.histories import Step
from tests.invariants.journal import START, Journal
from tests.invariants.mini_ledger import MiniLedger
from tests.invariants.platforms import Platform
from tests.invariants.rules_at_work import NOW, RuleAtWork
from tests.invariants.setups import TYPES, Record, Setup

ROOM = 100
"""So many keys belong to one history."""

WORKERS = ("plan", "apply", "twice", "undo")


def key_of(history: int, record: int) -> str:
    return f'["{history * ROOM + record}"]'


def owner(key: str) -> int:
    return int(key[2:-2]) // ROOM


@dataclass
class Work:
    """A plan on its way.

    is_empty: it says nothing at all; done: so many of its changes are settled; begun: a worker
    applies it; writes, sides: what people had written and both sides when it was made.
    """

    number: int
    changes: list[PlannedChange]
    is_undo: bool = False
    is_empty: bool = False
    done: int = 0
    begun: bool = False
    writes: int = 0
    sides: tuple[dict[str, Record], ...] = ()

    @property
    def is_finished(self) -> bool:
        return self.done >= len(self.changes)


@dataclass(frozen=True)
class Scene:
    """Where histories are played."""

    setup: Setup
    platforms: Sequence[Platform]
    rules: Sequence[RuleAtWork]

    @property
    def hides(self) -> bool:
        """Whether a filter leaves records out."""
        return any(rule.filter for _, _, _, rule in self.setup.rules)


@dataclass
class Play:
    """One history on its way.

    was_undone: something was taken back; was_mistaken: a worker died between a receipt and its
    commit, and before another took over a person wrote the very value that was not committed.
    """

    scene: Scene
    number: int
    steps: list[Step]
    journal: Journal = field(default_factory=Journal)
    failures: list[str] = field(default_factory=list)
    was_undone: bool = False
    was_mistaken: bool = False

    def __post_init__(self) -> None:
        rules = self.scene.rules
        self.ledgers = [MiniLedger() for _ in rules]
        self.work: list[Work] = [Work(0, []) for _ in rules]
        self.late: list[list[Work]] = [[] for _ in rules]
        self.clock = 0

    def advance(self) -> Step | None:
        """Do what needs no worker; the step that needs one, None at the end."""
        while self.steps:
            step = self.steps[0]
            if step[0] not in WORKERS:
                self.steps.pop(0)
                self.person(step)
                continue
            work = self.work[step[1]]
            if step[0] in ("plan", "undo") and not work.is_finished:
                if work.begun:
                    return ("apply", step[1], None)  # whoever comes next takes it over
                self.late[step[1]].append(work)
                self.work[step[1]] = Work(work.number, [])
            if step[0] in ("apply", "twice") and work.is_finished:
                self.steps.pop(0)
                continue
            return step
        return None

    def took(self, step: Step) -> None:
        """A worker has done this step."""
        if self.steps and self.steps[0] == step:
            self.steps.pop(0)

    def person(self, step: Step | None) -> None:
        match step:
            case ("edit", platform, record, name, choice):
                self._edit(platform, key_of(self.number, record), name, choice)
            case ("put", platform, record):
                self._put(platform, key_of(self.number, record))
            case ("delete", platform, record):
                key = key_of(self.number, record)
                old = self.scene.platforms[platform].record(key)
                if old is not None:
                    self.scene.platforms[platform].person_deletes(key)
                    self.journal.note(platform, key, old, None)
            case ("late", rule):
                self._wake_up(rule)
            case ("decide", rule, place, winner):
                self._decide(self.ledgers[rule], place, winner)

    def _edit(self, platform: int, key: str, name: str, choice: int) -> None:
        side = self.scene.platforms[platform]
        old = side.record(key)
        if old is None:
            return
        value = self.journal.value(name, old[name], choice, hides=self.scene.hides)
        side.person_writes(key, {name: value, "edited": self._time(platform)})
        self.journal.note(platform, key, old, side.record(key))

    def _put(self, platform: int, key: str) -> None:
        side = self.scene.platforms[platform]
        if side.record(key) is not None:
            return
        new: Record = dict.fromkeys(TYPES)
        new |= {"id": key[2:-2], "a": self.journal.token(), "n": START}
        side.person_writes(key, {**new, "edited": self._time(platform)})
        self.journal.note(platform, key, None, side.record(key))

    def _time(self, platform: int) -> str:
        self.clock += 1
        moment = NOW - timedelta(hours=1) + timedelta(seconds=self.clock)
        return (moment + self.scene.setup.skew[platform]).strftime("%Y-%m-%dT%H:%M:%S.%f")

    def _wake_up(self, rule: int) -> None:
        """A late worker tries what it once planned: its lease is lost, so nothing is written."""
        works = [*self.late[rule], *([self.work[rule]] if self.work[rule].is_finished else [])]
        changes = [change for work in works[-1:] for change in work.changes]
        at_work = self.scene.rules[rule]
        for side in ("right", "left"):
            late = [change for change in changes if change.side == side][:1]
            if not late:
                continue
            before = at_work.platform(side).record(late[0].own_key)
            try:
                at_work.write(late, {}, fence=lost_lease, note=no_receipt)
            except LeaseLost:
                pass
            else:
                self.failures.append("a worker without a lease has written")
            if at_work.platform(side).record(late[0].own_key) != before:
                self.failures.append("a worker without a lease has changed a record")

    def _decide(self, ledger: MiniLedger, place: int, winner: str) -> None:
        if place < len(ledger.conflicts):
            conflict = ledger.conflicts[place]
            keys = {n: conflict[n] for n in ("left_key", "right_key", "kind", "seen")}
            ledger.decisions.append({**keys, "decision": f'{{"record": "{winner}"}}'})


def no_receipt(_: object) -> None:
    """A worker without a lease keeps none, and does not get as far as the fence."""
    raise LeaseLost("the lease is over")


def lost_lease() -> None:
    raise LeaseLost("the lease is over")


def holds_lease() -> None:
    """The worker owns what it writes."""
