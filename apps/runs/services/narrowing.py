"""Narrowing a run over everything: read both sides once, side by side, and find what differs.

The two sides are read in two threads, the links in this one, which also minds the lease, the
progress and a cancellation; only this thread talks to the platform's database. What passes goes
to a `Narrower`; rejections, warnings, cursors and counts are as they are without it. Then the
candidates are read again by key, and planned by the machinery that plans given keys.

What moves between the two reads:

- A candidate is planned as it is at the second read, as in a run that began later.
- A left record that the first read saw and the second does not find may have been deleted, or
  have a new key under which nobody has looked. The planner is told of it as of a rejected one:
  nothing is deleted or inserted for its absence. The next run sees which it was. So is, of a
  two-way rule, the pair whose right record the second read does not find.
- A record that appeared is no candidate, unless its key or its link is one's: then it is read.
  Deletes come of links alone, whose both records the second read has looked up. A right record
  without a link is never deleted; a left or right one of a two-way rule neither.
- A record that was settled and changed since is seen by the next run, as one that changes after
  its row was read always is. The cursor is that of the first read.

Where most records are candidates, both sides have been read in vain, and everything is compared
as if this had not been tried.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field, replace

import pyarrow as pa
import pyarrow.compute as pc
from django.conf import settings

from apps.connectors.base import RawRejection, ReadBatch
from apps.engine.execution import Runner
from apps.engine.narrowing import (
    Base,
    HashingRunner,
    Narrowed,
    Narrower,
    TooManyCandidates,
    as_batch,
    can_narrow,
)
from apps.engine.program import Transformed
from apps.engine.sandbox import Sandbox
from apps.engine.transform import cursor_maximum
from apps.ledger.selectors import (
    based_link_batches,
    has_links,
    link_batches,
    open_rejection_keys,
)
from apps.ledger.services import RejectedRecord
from apps.runs.models import RunLog
from apps.runs.services.cursors import later_cursor
from apps.runs.services.plan_session import PlanSession
from apps.runs.services.programs import transformer
from apps.runs.services.reading import Batches
from apps.runs.services.rejecting import check_stopped, from_check, from_reading
from apps.runs.services.storing import spill_directory

FEWEST_ROWS = 20_000
MOST_CANDIDATES, MOST_SHARE = 200_000, 0.2
MOST_REJECTED = 5_000
BATCH_ROWS = 100_000
BATCH_BYTES = 32 * 1_048_576
CHECK_SECONDS = 0.5
LOSSY_LINKS = 0.05
"""Of so many links with two images the right side's are compared with its own."""

READ_COUNTERS = ("read", "read_right", "bytes_read", "left_out", "warnings")
KeyPair = tuple[str | None, str | None]


@dataclass(slots=True)
class Narrowing:
    """What the first read found.

    pairs: candidates (left key, right key; empty where it is not known); on_left, on_right: those
    of them whose record it saw; rejected: keys of left records kept out, nameless right ones among
    them; equal: records that are in step; passed: open rejections whose record passed.
    """

    pairs: list[tuple[str, str]]
    on_left: dict[str, str]
    on_right: dict[str, str]
    rejected: list[KeyPair]
    unread_right: int
    equal: int
    passed: set[str]
    cursor: str
    right_cursor: str

    @property
    def left_keys(self) -> list[str]:
        """Left records to read again: the candidates but for those that are kept out already."""
        known = {left for left, _ in self.rejected}
        return sorted({left for left, _ in self.pairs if left and left not in known})

    def vanished(self, lefts: set[str], rights: set[str] | None = None) -> list[KeyPair]:
        """Candidates that the second read, which found these keys, did not find any more."""
        gone: list[KeyPair] = [
            (left, right or None) for left, right in self.on_left.items() if left not in lefts
        ]
        if rights is not None:
            gone += [(left, right) for right, left in self.on_right.items() if right not in rights]
        return [pair for pair in gone if pair[0] and pair[1]]


@dataclass(slots=True)
class _Part:
    """What one thread tells of one batch that it has added."""

    left: bool
    rows: int
    size: int
    raw: list[RawRejection]
    done: Transformed | None = None
    cursor: str = ""


class _Stopped(Exception):
    """The run does not need what a thread would read."""


@dataclass(slots=True)
class _Ended:
    """The last thing that a thread tells."""

    error: BaseException | None = None


@dataclass(slots=True)
class _Found:
    """What is known of records beside the narrower, before it is certain that it will be used."""

    rejected: list[RejectedRecord] = field(default_factory=list)
    pairs: list[KeyPair] = field(default_factory=list)
    unread: list[RawRejection] = field(default_factory=list)
    cursor: str = ""
    right_cursor: str = ""


def narrow(session: PlanSession) -> Narrowing | None:
    """The candidates of a partition that sees everything; None where all is to be compared.

    Raises CheckStopped, LeaseLost, RunCancelled, and what reading raises.
    """
    reason = _why_not(session)
    if reason:
        return None
    counters = dict(session.counters)
    try:
        return _Scan(session).execute()
    except TooManyCandidates as reason:
        session.counters.update(counters)
        session.note(f"Not narrowed ({reason}): comparing everything")
        return None


def _why_not(session: PlanSession) -> str:
    context = session.context
    rows = max(context.left.row_count or 0, context.right.row_count or 0)
    if rows <= FEWEST_ROWS:
        return "few records"
    if not can_narrow(context.mapping, context.rule):
        return "records are not compared one by one"
    needs_links = not session.run.is_dry or context.two_way is not None
    if needs_links and not has_links(session.run.rule_id):
        return "no links yet"
    sides = (context.left_connector, context.right_connector)
    if not all(side.capabilities.key_lookup for side in sides):
        return "a side cannot be read by key without reading all of it"
    return ""


class _Scan:
    """The first read: two threads that read, and this one."""

    def __init__(self, session: PlanSession) -> None:
        self.session = session
        self.context = session.context
        self.found = _Found()
        self.told: queue.Queue[_Part | _Ended] = queue.Queue()
        self.stop = threading.Event()
        self.ended = 0
        self.rows = {"read": 0, "read_right": 0}

    def execute(self) -> Narrowing:
        """Raises TooManyCandidates."""
        session = self.session
        with ExitStack() as stack:
            links = stack.enter_context(closing(self._links()))
            first = next(links, None)
            narrower = stack.enter_context(self._narrower(first))
            stack.enter_context(self._reading(narrower))
            based = narrower.base is Base.VALUES
            add = narrower.add_based_links if based else narrower.add_links
            while first is not None:
                add(first)
                session.lease.check()
                self._listen(wait=False)
                first = next(links, None)
            self._listen(wait=True)
            most = min(MOST_CANDIDATES, int(max(self.rows.values()) * MOST_SHARE))
            narrowed = narrower.narrow(most)
            passed = narrower.left_keys_among(list(open_rejection_keys(session.run.rule_id)))
            found = self._as_narrowing(narrowed, set(passed))
        if any(left in found.on_left for left, _ in found.rejected):
            raise TooManyCandidates("a record that is rejected shares its key with another one")
        self._keep_rejected()
        session.note(
            f"Narrowed: {narrowed.equal:,} records are in step, "
            f"{narrowed.candidates.num_rows:,} are looked at"
        )
        return found

    def _links(self) -> Iterator[pa.Table]:
        rule_id, two_way = self.session.run.rule_id, self.context.two_way is not None
        based = based_link_batches(rule_id, self.context.mapped_types) if two_way else None
        found = link_batches(rule_id, images=two_way) if based is None else based
        for links in found:
            yield self.session.part.of_links(links)

    def _narrower(self, links: pa.Table | None) -> Narrower:
        context = self.context
        return Narrower(
            context.mapping,
            context.rule,
            base=Base.NONE if context.two_way is None else _base_for(links),
            needs_links=not self.session.run.is_dry or context.two_way is not None,
            memory_limit_mb=int(settings.LOCKSTEP["MEMORY_LIMIT_MB"]),
            spill_directory=spill_directory(),
        )

    @contextmanager
    def _reading(self, narrower: Narrower) -> Iterator[None]:
        """Both threads, which are told to stop when the body ends early."""
        with _program(self.session) as program:
            threads = [
                threading.Thread(target=self._tell, args=(steps,), name=f"narrow-{side}")
                for side, steps in (
                    ("left", self._left(narrower, program)),
                    ("right", self._right(narrower)),
                )
            ]
            for thread in threads:
                thread.start()
            try:
                yield
            finally:
                self.stop.set()
                for thread in threads:
                    thread.join()

    def _tell(self, parts: Iterator[_Part]) -> None:
        error: BaseException | None = None
        try:
            for part in parts:
                self.told.put(part)
                if self.stop.is_set():
                    break
        except BaseException as raised:
            error = raised
        self.told.put(_Ended(error))

    def _left(self, narrower: Narrower, program: Runner | Sandbox) -> Iterator[_Part]:
        context = self.context
        reader = replace(context.left_reader, check=self._go_on)
        batches = reader.everything(context.left_fields, self.session.part.left)
        hashing = isinstance(program, HashingRunner)
        for rows, records, raw in _grouped(batches, BATCH_ROWS if hashing else 1):
            if isinstance(program, HashingRunner):
                done = program.hash_left(narrower, records)
            else:
                done = program.run(as_batch(records))
                narrower.add_left(done.records)
                narrower.add_left_out(done.left_out)
                done = replace(done, records=done.records.slice(0, 0))
            cursor = _cursor_of(records, context.rule.cursor_field)
            yield _Part(True, rows, records.nbytes, raw, done, cursor)

    def _right(self, narrower: Narrower) -> Iterator[_Part]:
        context = self.context
        two_way = context.rule.two_way
        name = two_way.right_cursor_field if two_way is not None else ""
        fields = dict.fromkeys([*narrower.right_fields, *([name] if name else [])])
        reader = replace(context.right_reader, check=self._go_on)
        batches = reader.everything(tuple(fields), self.session.part.right)
        for rows, records, raw in _grouped(batches, BATCH_ROWS):
            narrower.add_right(records)
            yield _Part(False, rows, records.nbytes, raw, None, _cursor_of(records, name))

    def _go_on(self) -> None:
        """For the threads, while they wait: raises where the other one, or this one, has ended."""
        if self.stop.is_set():
            raise _Stopped

    def _listen(self, *, wait: bool) -> None:
        """Take in what the threads have told; wait: until both have ended."""
        checked = time.monotonic()
        while self.ended < 2:
            try:
                told = self.told.get(timeout=CHECK_SECONDS) if wait else self.told.get_nowait()
            except queue.Empty:
                if not wait:
                    return
                told = None
            if isinstance(told, _Ended):
                self.ended += 1
                if told.error is not None:
                    raise told.error
            elif told is not None:
                self._take(told)
            if time.monotonic() - checked > CHECK_SECONDS:
                checked = time.monotonic()
                self.session.lease.check()
                self.session.show_progress()

    def _take(self, part: _Part) -> None:
        counters, found = self.session.counters, self.found
        name = "read" if part.left else "read_right"
        self.rows[name] += part.rows
        if part.left or self.context.two_way is not None:
            counters[name] += part.rows
            counters["bytes_read"] += part.size
        if part.left:
            found.cursor = later_cursor(found.cursor, part.cursor)
            self._take_left(part)
        else:
            found.right_cursor = later_cursor(found.right_cursor, part.cursor)
            found.unread += part.raw
        if len(found.rejected) + len(found.unread) > MOST_REJECTED:
            raise TooManyCandidates(f"more than {MOST_REJECTED:,} records are rejected")

    def _take_left(self, part: _Part) -> None:
        session, done = self.session, part.done
        if done is None:
            return
        if done.stops:
            self._keep_rejected()
            session.keep_rejections(from_check(item) for item in done.stops)
            raise check_stopped(session.run, done.stops[0])
        session.counters["warnings"] += sum(done.warnings.values())
        session.counters["left_out"] += done.left_out.num_rows
        unread = [from_reading(item, self.context) for item in part.raw]
        self.found.rejected += unread
        self.found.rejected += [from_check(item) for item in done.rejected]
        self.found.pairs += [(item.left_key, item.right_key) for item in done.rejected]
        self.found.pairs += [(record.left_key or None, None) for record in unread]

    def _keep_rejected(self) -> None:
        self.session.reject(self.found.rejected)
        for item in self.found.unread:
            message = f"A right record cannot be read: {item.code} {item.field}"
            self.session.note(message, RunLog.Level.WARNING)

    def _as_narrowing(self, narrowed: Narrowed, passed: set[str]) -> Narrowing:
        found, table = self.found, narrowed.candidates
        rows = list(zip(*(column.to_pylist() for column in table.columns), strict=True))
        return Narrowing(
            pairs=[(left or "", right or "") for left, right, _, _ in rows],
            on_left={left: right or "" for left, right, there, _ in rows if there and left},
            on_right={right: left or "" for left, right, _, there in rows if there and right},
            rejected=[*found.pairs, *[(None, None)] * len(found.unread)],
            unread_right=len(found.unread),
            equal=narrowed.equal,
            passed=passed,
            cursor=found.cursor,
            right_cursor=found.right_cursor,
        )


@contextmanager
def uncounted(session: PlanSession) -> Iterator[None]:
    """The second read: what it reads was counted by the first one, but for new rejections."""
    kept = {name: session.counters[name] for name in READ_COUNTERS}
    yield
    session.counters.update(kept)


def _program(session: PlanSession) -> HashingRunner | Runner | Sandbox:
    program = session.context.program
    if program.trusted:
        return HashingRunner(program, session.lookups)
    return transformer(program, session.lookups)


def _base_for(links: pa.Table | None) -> Base:
    """What the links' bases are compared as, judged by some of them."""
    if links is not None and "even" in links.column_names:
        return Base.VALUES
    if links is None or not links.num_rows:
        return Base.LEFT
    lossy = pc.sum(pc.not_equal(links["left_image"], links["right_image"])).as_py() or 0
    return Base.BOTH if lossy > LOSSY_LINKS * links.num_rows else Base.LEFT


def _grouped(batches: Batches, rows: int) -> Iterator[tuple[int, pa.Table, list[RawRejection]]]:
    """(records read, those that can be read, those that cannot) of several batches at once."""
    group: list[ReadBatch] = []
    with closing(batches):
        for batch in batches:
            group.append(batch)
            size = sum(item.records.nbytes for item in group)
            if size > BATCH_BYTES or sum(item.records.num_rows for item in group) >= rows:
                yield _together(group)
                group = []
    if group:
        yield _together(group)


def _together(group: list[ReadBatch]) -> tuple[int, pa.Table, list[RawRejection]]:
    records = pa.Table.from_batches([item.records for item in group])
    raw = [item for batch in group for item in batch.rejected]
    return records.num_rows + len(raw), records, raw


def _cursor_of(records: pa.Table, name: str) -> str:
    """The greatest cursor as text; empty without a cursor."""
    found = ""
    for batch in records.select([name] if name else []).to_batches():
        if not name:
            break
        found = later_cursor(found, cursor_maximum(batch, name) or "")
    return found
