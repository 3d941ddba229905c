"""Find which records of two datasets differ, by digests computed where they are stored.

1. *Count* both sides. The larger one is sampled for the keys that cut it into spans of equal
   numbers of records, about the square root of them: gaps in the keys, skew and their type do
   not matter.
2. *Compare* count and sums of each span on both sides, in one statement per side for up to a
   thousand spans. Both sides work at the same time.
3. *Descend*: spans that differ and are small, or so many that cutting them costs more than it
   saves, are fetched record by record, as key and digest. Others are cut by sixteen and compared
   again.
4. *Join* the fetched records by key: those without a counterpart or with another digest are
   candidates.

The number of statements is bounded by `MAX_DEPTH` and the number of records that differ, memory by
`CHUNK_ROWS`. Candidates are keys to look at again, with their values: a record that changes
meanwhile, or whose equal value has another text, may be among them without harm. What one side
changed after its snapshot is for the next run.

This follows the idea of reladiff and pt-table-checksum, with spans of equal records instead of
equal key widths, and sums instead of XOR.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from apps.connectors.base import DigestSession, Key, KeySpan, SpanDigest
from apps.connectors.digests import DIGEST, YOUNG
from apps.connectors.types import NeutralType
from apps.engine.codec import encode_keys
from apps.engine.database import fetch, open_database

SMALL_ROWS = 2_000
"""A span of at most so many records is fetched rather than cut."""

FIRST_SPANS = 4_096
WAYS = 16
MAX_DEPTH = 6
SAMPLES = 30  # records sampled for each span to be: its size is then right within some 20 %
STATEMENT_SPANS = 1_000
STATEMENT_ROWS = 2_000_000
"""A server may keep the digests of a statement's records until it has summed them."""

CHUNK_ROWS = 1_000_000
SPAN_BYTES = 70  # of one span's answer
ROW_BYTES = 48  # of one record's key and digest

DIFFERS, ONLY_LEFT, ONLY_RIGHT = "differs", "only_left", "only_right"
CANDIDATES = pa.schema(
    [("left_key", pa.string()), ("right_key", pa.string()), ("kind", pa.string())]
)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Costs:
    """What the slower side costs, in seconds."""

    round_trip: float
    byte: float
    digest: float  # of one record

    def rows(self, rows: int) -> float:
        """To fetch so many records as key and digest."""
        return self.round_trip + rows * (self.digest + ROW_BYTES * self.byte)

    def spans(self, spans: int, rows: int) -> float:
        """To cut so many spans, which hold so many records, by `WAYS`, and compare the parts."""
        answer = spans * WAYS * SPAN_BYTES * self.byte
        return 2 * self.round_trip + rows * self.digest + answer


@dataclass(frozen=True, slots=True)
class ComparedKeys:
    """The key that both sides share, field by field.

    types: what holds the values of both sides, and has the same canonical texts as theirs;
    left_text, right_text: in which order each side's key text has the fields.
    """

    types: tuple[NeutralType, ...]
    left_text: tuple[int, ...]
    right_text: tuple[int, ...]


@dataclass(slots=True)
class Statistics:
    """What a comparison did. snapshots: the names of both sides' snapshots."""

    statements: int = 0
    spans: int = 0
    differing_spans: int = 0
    fetched_rows: int = 0
    candidates: int = 0
    young: int = 0  # candidates left to the next run
    snapshots: tuple[str, str] = ("", "")


@dataclass(frozen=True, slots=True)
class _Difference:
    span: KeySpan
    rows: int  # of the side that has more


class DigestComparison:
    """Compares two open sessions. `candidates` runs once."""

    def __init__(
        self,
        left: DigestSession,
        right: DigestSession,
        keys: ComparedKeys,
        *,
        costs: Costs | None = None,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        """costs: what decides between cutting spans and fetching records; without them more than
        1 % differing spans are fetched. check: called between statements; may raise.
        """
        self._left = left
        self._right = right
        self._keys = keys
        self._costs = costs
        self._check = check
        self._indexed = left.indexed and right.indexed
        self.statistics = Statistics(snapshots=(left.snapshot, right.snapshot))

    def candidates(self) -> Iterator[pa.Table]:
        """Tables of `CANDIDATES`: both key texts, and whether the record differs or where it is.

        Both texts are given also where only one side has the record. Each key comes once.
        """
        counts = self._both(lambda session: session.count())
        spans = self._first_spans(counts)
        for _ in range(MAX_DEPTH):
            differing = self._compare(spans, max(counts))
            direct, deeper = self._decide(differing, len(spans))
            yield from self._fetch(direct)
            cut = self._cut(deeper)
            yield from self._fetch([found for found, parts in cut if len(parts) == 1])
            spans = [span for _, parts in cut if len(parts) > 1 for span in parts]
            if not spans:
                return
        yield from self._fetch(self._compare(spans, max(counts)))

    def _first_spans(self, counts: tuple[int, int]) -> list[KeySpan]:
        rows = max(counts)
        parts = min(math.isqrt(rows), FIRST_SPANS)
        if rows <= SMALL_ROWS:
            return [KeySpan()]
        sampled = self._left if counts[0] >= counts[1] else self._right
        share = min(1.0, parts * SAMPLES / rows)
        self._count_statement()
        bounds = sampled.sample_bounds([KeySpan()], parts, share)[0]
        return split(KeySpan(), bounds)

    def _cut(self, found: Sequence[_Difference]) -> list[tuple[_Difference, list[KeySpan]]]:
        """Each span in up to `WAYS` parts of equal records; one part where keys do not differ."""
        cut = []
        for chunk in self._chunks(found):
            rows = sum(difference.rows for difference in chunk)
            share = min(1.0, len(chunk) * WAYS * SAMPLES / max(rows, 1))
            spans = [difference.span for difference in chunk]
            left, right = self._both(lambda s: s.sample_bounds(spans, WAYS, share))  # noqa: B023
            for difference, ours, theirs in zip(chunk, left, right, strict=True):
                bounds = ours if len(ours) >= len(theirs) else theirs
                cut.append((difference, split(difference.span, bounds)))
        return cut

    def _compare(self, spans: Sequence[KeySpan], rows: int) -> list[_Difference]:
        """The spans whose count or sums differ."""
        per_span = max(rows // max(len(spans), 1), 1)
        size = min(STATEMENT_SPANS, max(STATEMENT_ROWS // per_span, 1))
        size = size if self._indexed else len(spans)
        found = []
        for start in range(0, len(spans), size):
            chunk = spans[start : start + size]
            left, right = self._both(lambda session: session.digests(chunk))  # noqa: B023
            found += _differences(chunk, left, right)
        self.statistics.spans += len(spans)
        self.statistics.differing_spans += len(found)
        return found

    def _decide(
        self, differing: Sequence[_Difference], spans: int
    ) -> tuple[list[_Difference], list[_Difference]]:
        """Which spans to fetch record by record, and which to cut."""
        large = [found for found in differing if found.rows > SMALL_ROWS]
        if self._is_fetched_faster(large, spans):
            return list(differing), []
        return [found for found in differing if found.rows <= SMALL_ROWS], large

    def _is_fetched_faster(self, found: Sequence[_Difference], spans: int) -> bool:
        if not found:
            return True
        rows = sum(difference.rows for difference in found)
        if any(difference.rows > CHUNK_ROWS for difference in found):
            return False
        if self._costs is None:
            return len(found) > max(spans // 100, 1)
        cut = self._costs.spans(len(found), rows) + self._costs.rows(rows // WAYS)
        return self._costs.rows(rows) <= cut

    def _fetch(self, found: Sequence[_Difference]) -> Iterator[pa.Table]:
        """Candidates among the records of these spans."""
        for chunk in self._chunks(found):
            spans = [difference.span for difference in chunk]
            left, right = self._both(lambda s: list(s.row_digests(spans)))  # noqa: B023
            yield self._join(left, right)

    def _chunks(self, found: Sequence[_Difference]) -> Iterator[list[_Difference]]:
        """The spans in their order, in groups that one statement and our memory can take."""
        chunk: list[_Difference] = []
        rows = 0
        for difference in found:
            full = rows + difference.rows > CHUNK_ROWS or len(chunk) >= STATEMENT_SPANS
            if chunk and full:
                yield chunk
                chunk, rows = [], 0
            chunk.append(difference)
            rows += difference.rows
        if chunk:
            yield chunk

    def _join(self, left: Sequence[pa.RecordBatch], right: Sequence[pa.RecordBatch]) -> pa.Table:
        types = [neutral.arrow for neutral in self._keys.types]
        ours = _positional(left, types)
        theirs = _positional(right, types)
        self.statistics.fetched_rows += ours.num_rows + theirs.num_rows
        with open_database(memory_mb=2_048, threads=2) as connection:
            connection.register("l", ours)
            connection.register("r", theirs)
            found = fetch(connection, _join_sql(len(types)))
        settled = found.filter(pc.invert(found.column("young")))
        self.statistics.young += found.num_rows - settled.num_rows
        self.statistics.candidates += settled.num_rows
        return self._as_texts(settled)

    def _as_texts(self, found: pa.Table) -> pa.Table:
        types = {f"k{place}": neutral for place, neutral in enumerate(self._keys.types)}
        orders = (self._keys.left_text, self._keys.right_text)
        texts = [
            encode_keys(found, {f"k{place}": types[f"k{place}"] for place in order})
            for order in orders
        ]
        return pa.table([*texts, found.column("kind").cast(pa.string())], schema=CANDIDATES)

    def _both(self, ask: Callable[[DigestSession], T]) -> tuple[T, T]:
        """Ask both sides at the same time."""
        self._check()
        self._count_statement()
        with ThreadPoolExecutor(max_workers=1) as pool:
            right = pool.submit(ask, self._right)
            left = ask(self._left)
            return left, right.result()

    def _count_statement(self) -> None:
        self.statistics.statements += 1


def split(span: KeySpan, bounds: Sequence[Key]) -> list[KeySpan]:
    """A span cut at ascending keys; those outside of it are passed over."""
    edges = [key for key in bounds if key != span.lower]
    lowers = [span.lower, *edges]
    return [KeySpan(a, b) for a, b in zip(lowers, [*edges, span.upper], strict=True)]


def _differences(
    spans: Sequence[KeySpan], left: Sequence[SpanDigest], right: Sequence[SpanDigest]
) -> list[_Difference]:
    return [
        _Difference(span, max(ours.rows, theirs.rows))
        for span, ours, theirs in zip(spans, left, right, strict=True)
        if ours != theirs
    ]


def _positional(batches: Sequence[pa.RecordBatch], types: Sequence[pa.DataType]) -> pa.Table:
    """Records of one side as k0, k1, ..., digest, young, with keys of these types."""
    names = [*(f"k{place}" for place in range(len(types))), DIGEST, YOUNG]
    schema = pa.schema(zip(names, [*types, pa.binary(), pa.bool_()], strict=True))
    tables = [pa.table(batch.columns, names=names).cast(schema) for batch in batches]
    return pa.concat_tables(tables) if tables else schema.empty_table()


def _join_sql(width: int) -> str:
    """What differs, by key. A key that a side has more than once differs in any case."""
    keys = [f"k{place}" for place in range(width)]
    listed = ", ".join(keys)
    side = (
        f"SELECT {listed}, min(digest) AS digest, bool_or(young) AS young, count(*) AS n "
        "FROM {side} GROUP BY " + listed
    )
    on = " AND ".join(f"a.{key} = b.{key}" for key in keys)
    merged = ", ".join(f"coalesce(a.{key}, b.{key}) AS {key}" for key in keys)
    return (
        f"SELECT {merged}, coalesce(a.young, false) OR coalesce(b.young, false) AS young, "
        f"CASE WHEN b.n IS NULL THEN '{ONLY_LEFT}' WHEN a.n IS NULL THEN '{ONLY_RIGHT}' "
        f"ELSE '{DIFFERS}' END AS kind "
        f"FROM ({side.format(side='l')}) a FULL JOIN ({side.format(side='r')}) b ON {on} "
        "WHERE a.n IS NULL OR b.n IS NULL OR a.n > 1 OR b.n > 1 "
        "OR a.digest IS NULL OR b.digest IS NULL OR a.digest <> b.digest"
    )
