"""Merge one value that both sides changed: counters, sets, texts, and numbers of any size.

Everything here works on canonical texts (see `types_sql`), None is NULL. Each merge gives the same
result whichever side is called left, and the value itself where both sides hold the same one
(but for counters: two equal deltas are two). Where there is no answer that loses nothing, the
answer is ASK.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from decimal import Context, Decimal
from difflib import SequenceMatcher
from enum import Enum
from itertools import pairwise

from apps.connectors.canonical import canonical_decimal, dump_json, load_json
from apps.connectors.types import Kind, NeutralType
from apps.engine.spec import FieldPolicy, FieldPolicySpec

MOST_LINES = 20_000
_EXACT = Context(prec=10_000)
_INTEGERS = range(-(2**63), 2**63)


class Ask(Enum):
    """The one value that says: a person decides."""

    ASK = "ask"


ASK = Ask.ASK
Merged = str | None | Ask

IN_DOUBT = "?"
"""The base of a counter whose last write may or may not have got through: no number at all."""


@dataclass(frozen=True, slots=True)
class Values:
    """The three values of a field, as canonical texts."""

    left: str | None
    right: str | None
    base: str | None


def merge_value(spec: FieldPolicySpec, neutral: NeutralType, values: Values) -> Merged:
    """What both sides get by this policy. Policies that pick a side by time are not for here."""
    if values.left == values.right and spec.policy is not FieldPolicy.COUNTER:
        return values.left
    merges: dict[FieldPolicy, Callable[[], Merged]] = {
        FieldPolicy.COUNTER: lambda: merge_counter(neutral, values),
        FieldPolicy.SET: lambda: merge_set(neutral, values, spec.separator),
        FieldPolicy.TEXT: lambda: merge_lines(neutral, values),
        FieldPolicy.HIGHEST: lambda: _extreme(values, max),
        FieldPolicy.LOWEST: lambda: _extreme(values, min),
    }
    merge = merges.get(spec.policy)
    return merge() if merge else ASK


def merge_counter(neutral: NeutralType, values: Values) -> Merged:
    """The base plus what each side added to it; an empty base counts as zero.

    From a base IN_DOUBT nobody can count on.
    """
    if values.base == IN_DOUBT or values.left is None or values.right is None:
        return ASK
    if neutral.kind is Kind.FLOAT:
        left, right, base = (float(text or 0) for text in (values.left, values.right, values.base))
        total = ((left - base) + (right - base)) + base
        return repr(total) if math.isfinite(total) else ASK
    if neutral.kind not in (Kind.INTEGER, Kind.DECIMAL):
        return ASK
    start = Decimal(values.base or 0)
    sides = _EXACT.add(Decimal(values.left), Decimal(values.right))
    sum_ = _EXACT.subtract(sides, start)
    return canonical_decimal(sum_) if _fits(sum_, neutral) else ASK


def merge_set(neutral: NeutralType, values: Values, separator: str) -> Merged:
    """What either side added, and of the base what neither side removed.

    Members kept stand in the order of the base, added ones after them in their own order.
    """
    split, join = _set_form(neutral, values, separator)
    try:
        left, right, base = (split(text) for text in (values.left, values.right, values.base))
    except ValueError:
        return ASK
    kept = [member for member in base if member in left and member in right]
    added = sorted((left.keys() | right.keys()) - base.keys())
    merged = join([*kept, *added])
    if not merged and (values.left is None or values.right is None):
        return None
    return merged if _short_enough(merged, neutral) else ASK


def merge_lines(neutral: NeutralType, values: Values) -> Merged:
    """A three-way merge of lines; edits that overlap or touch at an insertion are asked about."""
    if values.left is None or values.right is None:
        return ASK
    left, right, base = (
        (text or "").splitlines(keepends=True) for text in (values.left, values.right, values.base)
    )
    if max(len(left), len(right), len(base)) > MOST_LINES:
        return ASK
    hunks = sorted({*_hunks(base, left), *_hunks(base, right)})
    if any(one.meets(other) for one, other in pairwise(hunks)):
        return ASK
    merged: list[str] = []
    place = 0
    for hunk in hunks:
        merged += [*base[place : hunk.start], *hunk.lines]
        place = hunk.end
    text = "".join([*merged, *base[place:]])
    return text if _short_enough(text, neutral) else ASK


@dataclass(frozen=True, slots=True, order=True)
class _Hunk:
    """Lines that take the place of base[start:end]."""

    start: int
    end: int
    lines: tuple[str, ...]

    def meets(self, later: _Hunk) -> bool:
        """Whether both change the same lines, or one inserts where the other changes."""
        if later.start < self.end:
            return True
        inserts = self.start == self.end or later.start == later.end
        return later.start == self.end and inserts


def _hunks(base: Sequence[str], edited: Sequence[str]) -> Iterable[_Hunk]:
    for tag, start, end, first, last in SequenceMatcher(None, base, edited).get_opcodes():
        if tag != "equal":
            yield _Hunk(start, end, tuple(edited[first:last]))


def _extreme(values: Values, choose: Callable[[Iterable[Decimal]], Decimal]) -> Merged:
    """The highest (lowest) of two numbers; any number beats NULL."""
    numbers = [Decimal(text) for text in (values.left, values.right) if text is not None]
    return canonical_decimal(choose(numbers)) if numbers else None


Members = dict[str, None]


def _set_form(
    neutral: NeutralType, values: Values, separator: str
) -> tuple[Callable[[str | None], Members], Callable[[Sequence[str]], str]]:
    """How a set is written in this type: a way to split it and one to join it."""
    if neutral.kind is Kind.JSON:
        return _json_members, lambda members: f"[{','.join(members)}]"
    if neutral.kind is Kind.ARRAY:
        return _array_members, lambda members: f"[{','.join(members)}]"
    spaced = f"{separator} "
    texts = [text for text in (values.left, values.right) if text and separator in text]
    glue = spaced if texts and all(spaced in text for text in texts) else separator
    return lambda text: _text_members(text, separator), glue.join


def _text_members(text: str | None, separator: str) -> Members:
    parts = (text or "").split(separator) if separator else [text or ""]
    return dict.fromkeys(part.strip() for part in parts if part.strip())


def _json_members(text: str | None) -> Members:
    items = load_json(text) if text is not None else []
    if items is None:
        return {}
    if not isinstance(items, list):
        raise ValueError("not a JSON array")
    return dict.fromkeys(dump_json(item) for item in items)


def _array_members(text: str | None) -> Members:
    """Items as JSON: canonical texts of arrays hold texts and nulls."""
    items = json.loads(text) if text is not None else []
    return dict.fromkeys(json.dumps(item, ensure_ascii=False) for item in items)


def _fits(number: Decimal, neutral: NeutralType) -> bool:
    if neutral.kind is Kind.INTEGER:
        return int(number) in _INTEGERS
    if neutral.precision is None:
        return True
    whole_digits = neutral.precision - (neutral.scale or 0)
    return abs(number) < Decimal(10) ** whole_digits


def _short_enough(text: str, neutral: NeutralType) -> bool:
    return neutral.length is None or len(text) <= neutral.length
