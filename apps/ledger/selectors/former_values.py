"""Finding records by values that they had: those that runs have replaced or removed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from apps.ledger.models import Change, FormerValue
from apps.ledger.selectors.history import changes_by_id
from apps.ledger.selectors.record_family import MOST_ADDRESSES, Address, address_at
from apps.ledger.selectors.words import token, words_of
from apps.rules.models import Rule

MOST_CHANGES = 200
MOST_ASKED = 6  # words of a search


def find_by_former_value(rules: Sequence[Rule], text: str) -> list[Address]:
    """The addresses of records of these rules that had a value with all words of `text`.

    At most MOST_ADDRESSES, those whose values were replaced or removed last.
    """
    by_id = {rule.pk: rule for rule in rules}
    found: dict[Address, None] = {}
    for change in changes_by_id(_changes_with(list(by_id), words_of(text)[:MOST_ASKED])):
        for address in _addresses(by_id[change.rule_id], change):
            found[address] = None
    return list(found)[:MOST_ADDRESSES]


def _changes_with(rule_ids: list[object], words: Sequence[str]) -> list[int]:
    """Ids of changes that replaced or removed a value with all these words, newest first."""
    if not words:
        return []
    first, *others = (FormerValue.objects.filter(token=token(word)) for word in words)
    for other in others:
        first = first.filter(change_id__in=other.values("change_id"))
    rows = first.filter(rule_id__in=rule_ids).order_by("-planned_at", "-change_id")
    return list(rows.values_list("change_id", flat=True)[:MOST_CHANGES])


def _addresses(rule: Rule, change: Change) -> Iterator[Address]:
    for side, key in (("left", change.left_key), ("right", change.right_key)):
        if key:
            yield address_at(rule, side, key)
