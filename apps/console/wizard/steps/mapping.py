"""Where the value of each right field comes from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from django.core.exceptions import PermissionDenied
from django.http import HttpRequest

from apps.connectors.errors import LockstepError
from apps.console.wizard import draft as drafts
from apps.console.wizard.steps.common import Context, Problems, both_datasets
from apps.core.admin import explain
from apps.engine.spec import FieldMappingSpec
from apps.mappings.admin.editor import add_suggestions, editor_for, posted_editor
from apps.mappings.services import (
    AUTHOR_PERMISSION,
    require_author,
    validate_mapping,
)
from apps.rules.models import SyncDraft
from apps.rules.services import save_draft


def show_mapping(request: HttpRequest, draft: SyncDraft) -> Context:
    left, right = both_datasets(request, draft)
    if request.method == "POST":
        editor = posted_editor(left, right, request.POST)
        for problem in getattr(request, "row_errors", []):
            editor.place_error(problem)
    else:
        editor = editor_for(
            left,
            right,
            drafts.draft_fields(draft),
            draft.data.get("key") or (),
            drafts.draft_match(draft),
            both_ways=drafts.is_two_way(draft),
        )
    if not draft.data.get("mapping_begun"):
        add_suggestions(editor, request.user)
    return {
        "editor": editor,
        "left": left,
        "right": right,
        "may_save": True,
        "may_author": request.user.has_perm(AUTHOR_PERMISSION),
    }


def keep_mapping(request: HttpRequest, draft: SyncDraft) -> Problems:
    left, right = both_datasets(request, draft)
    editor = posted_editor(left, right, request.POST)
    specs = editor.specs()
    if any(row.errors for row in editor.rows):
        return ["Some rows are not complete: they are marked."]
    if editor.unmapped_required:
        names = ", ".join(row.right for row in editor.unmapped_required)
        return [f"Required fields without a value: {names}. Every new record would be refused."]
    try:
        require_author(request.user, [], [*_expressions(specs)])  # type: ignore[arg-type]
        validate_mapping(editor.mapping_spec())
    except (LockstepError, PermissionDenied) as error:
        request.row_errors = [error]  # type: ignore[attr-defined]
        return [explain(error)]
    fields = [field.model_dump(mode="json") for field in specs]
    save_draft(
        draft,
        actor=request.user,  # type: ignore[arg-type]
        fields=fields,
        key=list(editor.key),
        match=[spec.model_dump(mode="json") for spec in editor.match],
        mapping_begun=True,
    )
    return []


def _expressions(specs: Sequence[FieldMappingSpec]) -> Iterator[str]:
    for spec in specs:
        yield from (spec.to_right, spec.to_left)
