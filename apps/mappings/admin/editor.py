"""The mapping editor: one row per right field, parsed from and shown as a form.

The same component serves the mapping's page and the new-sync wizard. Input names carry the row's
number (`map-3-source`), so that a form around it can hold others. `source` says where the value
comes from: nothing, `field:<left field>`, `expression` or `constant`. Where the mapping works both
ways, `back` is the expression over right fields and `back-to` the left field that gets its value.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from apps.connectors.types import Kind, NeutralType
from apps.engine.spec import DatasetSpec, FieldMappingSpec, MappingSpec, MatchFieldSpec
from apps.engine.suggest import compatible_types
from apps.mappings.admin.matching import MatchLine, match_lines, posted_match
from apps.mappings.services import suggest
from apps.sources.models import Dataset

PREFIX = "map"


@dataclass(slots=True)
class EditorRow:
    """What the editor shows about one right field."""

    number: int
    right: str
    type: str
    required: bool = False
    writable: bool = True
    source: str = ""
    expression: str = ""
    expression_back: str = ""
    back_to: str = ""
    constant: str = ""
    default: str = ""
    is_key: bool = False
    warning: str = ""
    errors: list[str] = field(default_factory=list)
    suggestion: str = ""
    reason: str = ""

    @property
    def is_mapped(self) -> bool:
        return bool(self.source)

    @property
    def left(self) -> str:
        return self.source.removeprefix("field:") if self.source.startswith("field:") else ""

    @property
    def lacks_value(self) -> bool:
        return self.required and not self.is_mapped

    @property
    def takes_back(self) -> bool:
        """Whether an edit on the right can be written to the left at all."""
        return self.source == "expression" or bool(self.left)

    @property
    def is_derived(self) -> bool:
        """Whether values flow left to right only."""
        return self.is_mapped and not (self.left or (self.takes_back and self.expression_back))

    def spec(self) -> FieldMappingSpec:
        """Raises pydantic's ValidationError where an expression is chosen but empty."""
        back = self.expression_back if self.takes_back else ""
        return FieldMappingSpec(
            right=self.right,
            left=self.left or (self.back_to if back else ""),
            to_right=self.expression if self.source == "expression" else "",
            to_left=back,
            constant=self.constant if self.source == "constant" else None,
            default=self.default or None,
        )


@dataclass(slots=True)
class Editor:
    """Both datasets, one row for each right field, and the match fields.

    both_ways: whether the way back is shown; it is kept either way.
    """

    left: Dataset
    right: Dataset
    rows: list[EditorRow]
    left_fields: list[tuple[str, str]]  # name, type
    match: tuple[MatchFieldSpec, ...] = ()
    both_ways: bool = False

    @property
    def key(self) -> tuple[str, ...]:
        return tuple(row.right for row in self.rows if row.is_key)

    @property
    def unmapped_required(self) -> list[EditorRow]:
        return [row for row in self.rows if row.lacks_value]

    @property
    def shown_rows(self) -> list[EditorRow]:
        """Required fields without a value first, then the key, then the order of the dataset."""
        return sorted(self.rows, key=lambda row: (not row.lacks_value, not row.is_key))

    @property
    def suggestions(self) -> int:
        return sum(1 for row in self.rows if row.suggestion)

    def row(self, right: str) -> EditorRow | None:
        return next((row for row in self.rows if row.right == right), None)

    @property
    def match_lines(self) -> list[MatchLine]:
        """The match fields, and empty lines for further ones."""
        return match_lines(self.match)

    @property
    def right_names(self) -> list[str]:
        return [row.right for row in self.rows]

    def specs(self) -> list[FieldMappingSpec]:
        """The field mappings as typed; empty expressions become errors of their rows."""
        specs = []
        for row in self.rows:
            if row.source == "expression" and not row.expression:
                row.errors.append("Write an expression, or choose where the value comes from.")
            elif row.source == "expression" and row.expression_back and not row.back_to:
                row.errors.append("Choose the left field that gets the value on the way back.")
            elif row.is_mapped:
                specs.append(row.spec())
        return specs

    def mapping_spec(self, without: frozenset[str] = frozenset()) -> MappingSpec:
        return MappingSpec(
            left=DatasetSpec.of(self.left.schema()),
            right=DatasetSpec.of(self.right.schema()),
            fields=tuple(spec for spec in self.specs() if spec.right not in without),
            key=self.key,
            match=self.match,
        )

    def place_error(self, error: Exception) -> EditorRow | None:
        """The row whose field the error names, if there is one; the error is put there."""
        text = f"{getattr(error, 'where', '')} {error}"
        for row in sorted(self.rows, key=lambda row: -len(row.right)):
            if re.search(rf"(?<!\w){re.escape(row.right)}(?!\w)", text):
                row.errors.append(getattr(error, "message", str(error)))
                return row
        return None


def editor_for(
    left: Dataset,
    right: Dataset,
    fields: Sequence[FieldMappingSpec] = (),
    key: Sequence[str] = (),
    match: Sequence[MatchFieldSpec] = (),
    *,
    both_ways: bool = False,
) -> Editor:
    """The editor as stored; for a new mapping, with the right dataset's own key chosen."""
    known = {spec.right: spec for spec in fields}
    chosen = set(key) if fields or key else set(right.key)
    rows = []
    for number, described in enumerate(right.schema().fields):
        spec = known.get(described.name)
        rows.append(
            EditorRow(
                number=number,
                right=described.name,
                type=str(described.type),
                required=_is_required(described),
                writable=not described.generated,
                is_key=described.name in chosen,
                **(_values(spec) if spec else {}),
            )
        )
    editor = Editor(left, right, rows, _left_fields(left), tuple(match), both_ways)
    return _checked(editor)


def posted_editor(left: Dataset, right: Dataset, data: Mapping[str, Any]) -> Editor:
    """The editor as it was typed."""
    editor = editor_for(left, right)
    names = {name for name, _ in editor.left_fields}
    for row in editor.rows:

        def value(part: str, number: int = row.number) -> str:
            return str(data.get(f"{PREFIX}-{number}-{part}", "")).strip()

        source = value("source")
        known = source in ("expression", "constant") or source.removeprefix("field:") in names
        row.source = source if known and row.writable else ""
        row.expression = value("expression")
        row.expression_back = value("back")
        row.back_to = value("back-to") if value("back-to") in names else ""
        row.constant = str(data.get(f"{PREFIX}-{row.number}-constant", ""))
        row.default = value("default")
        row.is_key = bool(value("key"))
    editor.match = posted_match(data, [row.right for row in editor.rows])
    editor.both_ways = bool(data.get("both_ways"))
    return _checked(editor)


def add_suggestions(editor: Editor, actor: Any) -> None:
    """Propose a left field for each right field that has no value; people confirm each."""
    proposed = {pair.right: pair for pair in suggest(editor.left, editor.right, actor=actor)}
    for row in editor.rows:
        pair = proposed.get(row.right)
        if pair is not None and not row.is_mapped and row.writable:
            row.suggestion = pair.left
            row.reason = pair.reason


def incompatibility(left: NeutralType, right: NeutralType) -> str:
    """Why values of `left` do not fit `right` as they are; empty when they do."""
    if not compatible_types(left, right):
        return f"{left} does not convert to {right}: use an expression"
    if _is_longer(left, right):
        return f"texts longer than {right.length} characters are rejected"
    return ""


def _is_longer(left: NeutralType, right: NeutralType) -> bool:
    if left.kind is not Kind.TEXT or right.length is None:
        return False
    return left.length is None or left.length > right.length


def _is_required(described: Any) -> bool:
    given = described.has_default or described.server_assigned or described.generated
    return not described.nullable and not given


def _left_fields(left: Dataset) -> list[tuple[str, str]]:
    return [(described.name, str(described.type)) for described in left.schema().fields]


def _values(spec: FieldMappingSpec) -> dict[str, Any]:
    if spec.to_right:
        source = "expression"
    elif spec.constant is not None:
        source = "constant"
    else:
        source = f"field:{spec.left}"
    return {
        "source": source,
        "expression": spec.to_right,
        "expression_back": spec.to_left,
        "back_to": spec.left if spec.to_right else "",
        "constant": spec.constant or "",
        "default": spec.default or "",
    }


def _checked(editor: Editor) -> Editor:
    types = {name: NeutralType.parse(text) for name, text in editor.left_fields}
    for row in editor.rows:
        row.warning = ""
        if row.left in types:
            row.warning = incompatibility(types[row.left], NeutralType.parse(row.type))
        elif row.left:
            row.errors.append(f"the left field '{row.left}' is no longer there")
    return editor
