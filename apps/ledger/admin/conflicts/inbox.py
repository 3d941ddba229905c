"""What the inbox shows: the filter in its address, the chips with their counts, one page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

import orjson
from django.db.models import Count, QuerySet

from apps.core.admin import Chip
from apps.ledger.models import Conflict
from apps.ledger.selectors import ConflictFilter, conflicts

PAGE = 25
MOST_CHIPS = 12


@dataclass(frozen=True, slots=True)
class InboxFilter:
    """Which conflicts somebody looks at; lives in the address."""

    state: str = Conflict.State.OPEN.value
    rule: UUID | None = None
    kind: str = ""
    field: str = ""
    run: UUID | None = None
    search: str = ""

    @classmethod
    def of(cls, params: Mapping[str, str]) -> InboxFilter:
        """From an address; what makes no sense does not narrow."""
        state, kind = params.get("state", ""), params.get("kind", "")
        return cls(
            state=state if state in Conflict.State.values else Conflict.State.OPEN.value,
            rule=_uuid(params.get("rule", "")),
            kind=kind if kind in Conflict.Kind.values else "",
            field=params.get("field", ""),
            run=_uuid(params.get("run", "")),
            search=params.get("q", "").strip(),
        )

    @property
    def narrows(self) -> bool:
        return replace(self, state=Conflict.State.OPEN.value) != InboxFilter()

    def query(self, **changes: Any) -> str:
        """The query string, without `?`; empty where everything open is shown."""
        wanted = replace(self, **changes)
        state = "" if wanted.state == Conflict.State.OPEN else wanted.state
        params = {
            "state": state,
            "rule": wanted.rule,
            "kind": wanted.kind,
            "field": wanted.field,
            "run": wanted.run,
            "q": wanted.search,
        }
        return urlencode({name: str(value) for name, value in params.items() if value})

    def rows(self, actor: Any) -> QuerySet[Conflict]:
        """The conflicts that pass, newest first."""
        wanted = ConflictFilter(
            state=self.state,
            rule_ids=(self.rule,) if self.rule else (),
            kind=self.kind,
            run_id=self.run,
            search=self.search,
        )
        rows = wanted.applied(conflicts(actor))
        if self.field:
            rows = rows.filter(fields__contains=orjson.dumps(self.field).decode())
        return rows.order_by("-pk")


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text) if text else None
    except ValueError:
        return None


@dataclass(frozen=True, slots=True)
class Facets:
    """Counts of the conflicts in a state, by rule, kind and open field."""

    rules: Counter[UUID]
    kinds: Counter[str]
    fields: Counter[str]


def facets(actor: Any, wanted: InboxFilter) -> Facets:
    """Each count under the other conditions of the filter, not under its own."""
    wide = replace(wanted, rule=None, kind="", field="")
    found: tuple[Counter[Any], ...] = (Counter(), Counter(), Counter())
    groups = wide.rows(actor).order_by().values_list("rule_id", "kind", "fields")
    for rule, kind, text, n in groups.annotate(n=Count("pk")):
        names = orjson.loads(text)
        of_rule = wanted.rule in (None, rule)
        of_kind = wanted.kind in ("", kind)
        of_field = not wanted.field or wanted.field in names
        if of_kind and of_field:
            found[0][rule] += n
        if of_rule and of_field:
            found[1][kind] += n
        if of_rule and of_kind:
            found[2].update(dict.fromkeys(names, n))
    return Facets(*found)


@dataclass(frozen=True, slots=True)
class ChipRow:
    label: str
    chips: list[Chip]


def chip_rows(
    wanted: InboxFilter, counted: Facets, rule_names: Mapping[UUID, str]
) -> list[ChipRow]:
    """The filters above the list, each with its count; a row of one chip says nothing."""
    rules = [
        _chip(rule_names.get(pk, "removed rule"), n, wanted, "rule", pk)
        for pk, n in counted.rules.most_common(MOST_CHIPS)
    ]
    kinds = [
        _chip(Conflict.Kind(kind).label, n, wanted, "kind", kind)
        for kind, n in counted.kinds.most_common()
    ]
    fields = [
        _chip(name, n, wanted, "field", name) for name, n in counted.fields.most_common(MOST_CHIPS)
    ]
    rows = (ChipRow("Rule", rules), ChipRow("Kind", kinds), ChipRow("Field", fields))
    return [row for row in rows if len(row.chips) > 1 or any(chip.active for chip in row.chips)]


def _chip(label: str, count: int, wanted: InboxFilter, name: str, value: Any) -> Chip:
    """A chip that narrows, or, where it does already, widens again."""
    active = getattr(wanted, name) == value
    empty = None if name == "rule" else ""
    return Chip(f"{label} {count}", wanted.query(**{name: empty if active else value}), active)


@dataclass(frozen=True, slots=True)
class InboxPage:
    """A window of the list around the conflict that is looked at."""

    shown: list[Conflict]
    selected: Conflict | None
    before: Conflict | None  # the one above the selected
    after: Conflict | None  # the one below
    total: int

    @property
    def more(self) -> bool:
        return self.total > len(self.shown)


def inbox_page(actor: Any, wanted: InboxFilter, selected: Conflict | None = None) -> InboxPage:
    """The newest that pass; a selected one further down stands in the middle of its window."""
    rows = wanted.rows(actor)
    total = rows.count()
    if selected is None:
        selected = rows.first()
    if selected is None:
        return InboxPage([], None, None, None, total)
    newer = list(rows.filter(pk__gt=selected.pk).order_by("pk")[:PAGE])[::-1]
    older = list(rows.filter(pk__lt=selected.pk)[:PAGE])
    passes = rows.filter(pk=selected.pk).exists()
    window = [*newer, *([selected] if passes else []), *older]
    begin = 0 if len(newer) < PAGE else max(0, len(newer) - PAGE // 2)
    return InboxPage(
        window[begin : begin + PAGE],
        selected,
        newer[-1] if newer else None,
        older[0] if older else None,
        total,
    )


def next_conflict(actor: Any, wanted: InboxFilter, done: Conflict) -> Conflict | None:
    """Where to go after one was decided: the one below it, else the newest."""
    rows = wanted.rows(actor).exclude(pk=done.pk)
    return rows.filter(pk__lt=done.pk).first() or rows.first()


def last_conflict_at(actor: Any) -> datetime | None:
    """When the last conflict was closed, or met."""
    last = conflicts(actor).order_by("-updated_at").first()
    return last.updated_at if last else None
