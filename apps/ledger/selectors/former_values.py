"""Finding records by values that they had: those that runs have replaced or removed.

Of the words that are asked for the rarest leads: its changes are walked by their time, newest
first, and the others looked up for each, so that common words cost no more than there are changes
to look at. The changes are opened, to say in which field the value was; what a field that is
searchable no more held is not found.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from django.db.models import QuerySet

from apps.core.protected import ProtectedValueError
from apps.ledger.models import Change, FormerValue
from apps.ledger.selectors.history import changes_by_id
from apps.ledger.selectors.record_family import MOST_ADDRESSES, Address, address_at
from apps.ledger.selectors.words import token, words_of
from apps.mappings.marking import Sides, searched_sides
from apps.rules.models import Rule

MOST_CHANGES = 200
MOST_ASKED = 6  # words of a search
COUNTED = 1_000  # rows of a word, to find the rarest
MOST_WALKED = 100_000  # rows of the rarest word
FIRST_CHUNK = 500  # of them at a time; each is twice the one before
LARGEST_CHUNK = 5_000

Place = tuple[datetime, int]
"""When a change was planned, and its id: by these a word's rows are read in order."""


@dataclass(frozen=True, slots=True)
class FormerHit:
    """A record and the fields that had words of the value, until a run replaced or removed it."""

    address: Address
    fields: tuple[str, ...]
    until: datetime


@dataclass(frozen=True, slots=True)
class Found:
    """Hits, the latest first. is_cut: there may be more; unreadable: changes, not to be opened."""

    hits: list[FormerHit] = field(default_factory=list)
    is_cut: bool = False
    unreadable: int = 0


def find_by_former_value(rules: Sequence[Rule], text: str) -> Found:
    """Records of these rules that had a value with all words of `text`.

    At most MOST_ADDRESSES of them, those whose values were replaced or removed last.
    """
    by_id = {rule.pk: rule for rule in rules}
    words = frozenset(words_of(text)[:MOST_ASKED])
    ids, is_cut = _changes_with(list(by_id), words)
    changes = changes_by_id(ids, skip_unreadable=True)
    searched = searched_sides(by_id[rule_id].mapping for rule_id in {c.rule_id for c in changes})
    hits: dict[Address, FormerHit] = {}
    unreadable = len(ids) - len(changes)
    for change in changes:
        rule = by_id[change.rule_id]
        try:
            fields = _fields_with(change, searched[rule.mapping_id], words)
        except ProtectedValueError:
            unreadable += 1
            continue
        address = _address(rule, change)
        if fields and address not in hits:
            hits[address] = FormerHit(address, fields, change.settled_at or change.planned_at)
    is_cut = is_cut or len(hits) > MOST_ADDRESSES
    return Found(list(hits.values())[:MOST_ADDRESSES], is_cut, unreadable)


def _changes_with(rule_ids: Sequence[UUID], words: frozenset[str]) -> tuple[list[int], bool]:
    """Ids of changes that replaced or removed a value with all these words, newest first, and
    whether there may be more of them: at most MOST_CHANGES, among the MOST_WALKED newest.
    """
    tokens = [token(word) for word in sorted(words)]
    if not tokens:
        return [], False
    first, *others = sorted(tokens, key=_frequency) if len(tokens) > 1 else tokens
    found: list[int] = []
    walked = 0
    for chunk in _walk(FormerValue.objects.filter(token=first, rule_id__in=rule_ids)):
        kept = _with_all(others, chunk)
        found += [change_id for _, change_id in chunk if change_id in kept]
        walked += len(chunk)
        if len(found) > MOST_CHANGES or walked >= MOST_WALKED:
            return found[:MOST_CHANGES], True
    return found, False


def _walk(rows: QuerySet[FormerValue]) -> Iterator[list[Place]]:
    """The places of all rows, newest first, in chunks: one join of two common words is a plan
    that sorts all of both."""
    size, page = FIRST_CHUNK, rows.order_by("-planned_at", "-change_id")
    while chunk := list(page.values_list("planned_at", "change_id")[:size]):
        yield chunk
        if len(chunk) < size:
            return
        size = min(size * 2, LARGEST_CHUNK)
        planned_at, change_id = chunk[-1]
        page = rows.filter(planned_at__lte=planned_at).order_by("-planned_at", "-change_id")
        page = page.exclude(planned_at=planned_at, change_id__gte=change_id)


def _with_all(tokens: Sequence[bytes], chunk: Sequence[Place]) -> set[int]:
    """The changes among these that have all these words."""
    kept = {change_id for _, change_id in chunk}
    for other in tokens:
        rows = FormerValue.objects.filter(token=other, change_id__in=kept)
        rows = rows.filter(planned_at__gte=chunk[-1][0], planned_at__lte=chunk[0][0])
        kept = set(rows.values_list("change_id", flat=True))
    return kept


def _frequency(token: bytes) -> int:
    """How many changes have a word; no more than COUNTED are counted."""
    return FormerValue.objects.filter(token=token)[:COUNTED].count()


def _fields_with(change: Change, searched: Sides, words: frozenset[str]) -> tuple[str, ...]:
    """The searchable fields whose old values have these words; none where one is missing."""
    before, _ = change.images_in_clear()
    names = searched.left if change.side == "left" else searched.right
    found = {
        name: words.intersection(words_of(value))
        for name, value in (before or {}).items()
        if value and name in names
    }
    has_all = words == frozenset().union(*found.values())
    return tuple(name for name, some in found.items() if some) if has_all else ()


def _address(rule: Rule, change: Change) -> Address:
    """Where the record was that had the values."""
    other = "right" if change.side == "left" else "left"
    own_key, other_key = (getattr(change, f"{side}_key") for side in (change.side, other))
    return address_at(rule, change.side, own_key) if own_key else address_at(rule, other, other_key)
