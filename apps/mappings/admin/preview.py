"""The live preview of an unsaved mapping: sample values now → after, beside each row."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
from django.core.exceptions import PermissionDenied

from apps.connectors.errors import ExpressionRefused, LockstepError
from apps.core.admin import explain
from apps.engine.spec import MappingSpec, RuleSpec
from apps.ledger.selectors import link_count, link_lookup, link_table
from apps.mappings.admin.editor import Editor, EditorRow
from apps.mappings.matching import MatchReport
from apps.mappings.preview import BackRow
from apps.mappings.selectors import linked_rules, mapping_expressions
from apps.mappings.services import Preview, check_matches, preview, preview_back
from apps.mappings.validation import left_target
from apps.rules.selectors import rules

SAMPLES = 3
MOST_LINKS = 50_000
ATTEMPTS = 6


@dataclass(slots=True)
class Sample:
    """One value of one sample record."""

    before: str
    after: str | None = None
    problem: str = ""


@dataclass(slots=True)
class BackSample:
    """One right value, and the left value that it would replace. known: whether that was found."""

    right: str
    now: str
    after: str
    known: bool
    problem: str = ""


@dataclass(slots=True)
class PreviewCells:
    """What stands beside each row, and what concerns the whole mapping."""

    by_row: dict[int, list[Sample]] = field(default_factory=dict)
    back_by_row: dict[int, list[BackSample]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def preview_cells(editor: Editor, actor: Any) -> PreviewCells:
    """Run what can be run: a row that does not compile shows its error, the others go on."""
    cells = PreviewCells()
    broken: frozenset[str] = frozenset()
    for _ in range(ATTEMPTS):
        for row in editor.rows:
            row.errors.clear() if row.right not in broken else None
        try:
            spec = editor.mapping_spec(without=broken)
            if not spec.fields:
                cells.notes.append("Map a field to see sample values.")
                return cells
            cells.notes.clear()
            links = _links(spec, cells, actor)
            found = preview(
                spec,
                RuleSpec(),
                editor.left,
                right=editor.right,
                actor=actor,
                limit=SAMPLES,
                links=links,
            )
        except PermissionDenied as error:
            cells.problems.append(explain(error).removeprefix("Not saved: ").capitalize())
            return cells
        except LockstepError as error:
            row = editor.place_error(error)
            if row is None or row.right in broken or row.is_key or not _concerns_row(error, row):
                cells.problems.append(explain(error))
                return cells
            broken |= {row.right}
            continue
        _fill(cells, editor, found, broken)
        if editor.both_ways:
            _add_way_back(cells, editor, spec, actor, links)
        return cells
    return cells


def _add_way_back(
    cells: PreviewCells,
    editor: Editor,
    spec: MappingSpec,
    actor: Any,
    links: dict[str, pa.Table],
) -> None:
    """Right sample values, with what stands on the left now and would stand there after."""
    try:
        rows = preview_back(
            spec, editor.left, editor.right, actor=actor, limit=SAMPLES, links=links
        )
    except (LockstepError, PermissionDenied) as error:
        if isinstance(error, PermissionDenied) or editor.place_error(error) is None:
            cells.notes.append(f"The way back cannot be shown: {explain(error)}")
        return
    targets = {field.right: left_target(field) for field in spec.fields}
    for row in editor.rows:
        target = targets.get(row.right)
        if target and row.expression_back:
            cells.back_by_row[row.number] = [_back_sample(row.right, target, r) for r in rows]
    problems = {row.problem for row in rows if row.problem}
    cells.notes += [f"On the way back: {problem}" for problem in sorted(problems)]


def _back_sample(right: str, target: str, row: BackRow) -> BackSample:
    return BackSample(
        right=_text(row.right.get(right)),
        now=_text((row.now or {}).get(target)),
        after=_text(row.after.get(target)),
        known=row.now is not None,
        problem=row.problem,
    )


def match_report(editor: Editor, actor: Any) -> MatchReport:
    """Which records the unsaved editor would match. Raises LockstepError or PermissionDenied."""
    spec = editor.mapping_spec()
    cells = PreviewCells()
    links = _links(spec, cells, actor)
    return check_matches(spec, editor.left, editor.right, actor=actor, links=links)


def _links(spec: MappingSpec, cells: PreviewCells, actor: Any) -> dict[str, pa.Table]:
    """The links that link() looks up; those of a huge rule are left out, and said to be."""
    names = linked_rules(*mapping_expressions(spec))
    found = {}
    for rule in rules(actor).filter(name__in=names):
        if link_count(rule.pk) > MOST_LINKS:
            found[rule.name] = link_table([]).rename_columns(["key", "value"])
            cells.notes.append(f"link('{rule.name}') has too many links to be shown here.")
        else:
            found[rule.name] = link_lookup(rule.pk)
    return found


def _concerns_row(error: LockstepError, row: EditorRow) -> bool:
    return isinstance(error, ExpressionRefused) or row.is_mapped


def _fill(cells: PreviewCells, editor: Editor, found: Preview, broken: frozenset[str]) -> None:
    samples = [row for row in found.rows if row.before][:SAMPLES]
    unreadable = [row.problem for row in found.rows if not row.before]
    if unreadable:
        cells.notes.append(f"{len(unreadable)} records cannot be read: {unreadable[0]}")
    if not found.rows:
        cells.notes.append(f"{editor.left.name} holds no records to show.")
    for row in editor.rows:
        if row.is_mapped and row.right not in broken:
            cells.by_row[row.number] = [
                Sample(
                    _before(row, sample.before),
                    sample.after.get(row.right),
                    sample.problem if row.right in sample.problem else "",
                )
                for sample in samples
            ]
    problems = {sample.problem for sample in samples if sample.problem}
    cells.problems += sorted(problems)


def _before(row: EditorRow, record: dict[str, str | None]) -> str:
    if row.left:
        return _text(record.get(row.left))
    if row.source == "expression":
        words = set(re.findall(r"\w+", row.expression))
        return ", ".join(_text(value) for name, value in record.items() if name in words)
    return ""


def _text(value: str | None) -> str:
    return "NULL" if value is None else value[:60]
