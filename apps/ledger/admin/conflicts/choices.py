"""What a person may decide about each kind of conflict, and what they did decide."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from apps.connectors.errors import ConfigurationError
from apps.connectors.types import NeutralType
from apps.core.templatetags.lockstep import record_key
from apps.engine.transform import canonical_value
from apps.ledger.admin.conflicts.three_way import Proposal
from apps.ledger.admin.sides import SideNames
from apps.ledger.models import Conflict
from apps.ledger.services import Choice as FieldChoice
from apps.ledger.services import Decision

BY_FIELD = (Conflict.Kind.FIELDS, Conflict.Kind.FIRST_CONTACT, Conflict.Kind.UNIQUE)
DELETIONS = (Conflict.Kind.EDIT_DELETE, Conflict.Kind.DELETE)


@dataclass(frozen=True, slots=True)
class Choice:
    """One button that decides the whole record. side: `record` of `Decision`."""

    side: str
    label: str
    icon: str
    consequence: str
    variant: str = ""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A record that this one may be."""

    number: int
    key: str

    @property
    def name(self) -> str:
        return str(record_key(self.key))


def choices(conflict: Conflict, names: SideNames) -> list[Choice]:
    """The whole-record buttons of this kind, the left one first."""
    if not conflict.can_be_decided:
        return []
    if conflict.kind in BY_FIELD:
        return [
            Choice(side, f"All from {names.of(side)}", icon, _take_all(names, side))
            for side, icon in (("left", "arrow_back"), ("right", "arrow_forward"))
        ]
    if conflict.kind in DELETIONS:
        return _deletion(conflict, names)
    if conflict.kind == Conflict.Kind.IN_DOUBT:
        return [_doubtful(names, side) for side in ("left", "right")]
    return []


def _take_all(names: SideNames, side: str) -> str:
    return f"{names.other(side)} gets the values of {names.of(side)} for every open field."


def _deletion(conflict: Conflict, names: SideNames) -> list[Choice]:
    kept = "left" if conflict.sealed_left is not None else "right"
    gone = "right" if kept == "left" else "left"
    keep = Choice(
        kept,
        f"Keep it, as {names.of(kept)} has it",
        "restore_from_trash",
        f"The record comes back in {names.of(gone)}.",
    )
    remove = Choice(
        gone,
        f"Delete it in {names.of(kept)} too",
        "delete",
        f"The record was deleted in {names.of(gone)}; {names.of(kept)} follows.",
        "danger",
    )
    return [keep, remove] if kept == "left" else [remove, keep]


def _doubtful(names: SideNames, side: str) -> Choice:
    return Choice(
        side,
        f"{names.of(side)} is right",
        "fact_check",
        f"The next run takes what {names.of(side)} holds.",
    )


def candidates(conflict: Conflict) -> list[Candidate]:
    """The records that this one may be (kind `match`)."""
    return [Candidate(number, key) for number, key in enumerate(conflict.candidates)]


@dataclass(frozen=True, slots=True)
class Posted:
    """A decision as it was sent, or why it is none; and all of it, to be shown again."""

    decision: Decision | None
    proposal: Proposal
    problem: str = ""


def posted(
    conflict: Conflict, params: Mapping[str, str], types: Mapping[str, NeutralType]
) -> Posted:
    """Read the form of one conflict. types: of the right fields, for values typed by hand."""
    if params.get("side") in ("left", "right"):
        return Posted(Decision(record=params["side"]), Proposal({}, {}, {}))
    if conflict.kind == Conflict.Kind.MATCH:
        return _posted_match(conflict, params.get("match", ""))
    return _posted_fields(conflict, params, types)


def _posted_match(conflict: Conflict, chosen: str) -> Posted:
    proposal = Proposal({"match": chosen}, {}, {})
    if chosen == "none":
        return Posted(Decision(record="insert"), proposal)
    by_number = {str(candidate.number): candidate.key for candidate in candidates(conflict)}
    if chosen not in by_number:
        return Posted(None, proposal, "Choose a record, or say that it is none of them.")
    return Posted(Decision(match=by_number[chosen]), proposal)


def _posted_fields(
    conflict: Conflict, params: Mapping[str, str], types: Mapping[str, NeutralType]
) -> Posted:
    chosen: dict[str, str] = {}
    own: dict[str, str | None] = {}
    errors: dict[str, str] = {}
    values: dict[str, str | None] = {}
    for number, name in enumerate(conflict.field_names):
        chosen[name] = params.get(f"choice-{number}", "")
        typed = params.get(f"own-{number}", "")
        own[name] = None if f"null-{number}" in params else typed
        if chosen[name] == "own":
            values[name], errors[name] = _own_value(own[name], types.get(name))
        elif chosen[name] not in ("left", "right"):
            errors[name] = "Not decided yet."
    errors = {name: text for name, text in errors.items() if text}
    proposal = Proposal(chosen, own, errors)
    if errors:
        return Posted(None, proposal, "Not every open field is decided.")
    fields = {name: FieldChoice(side) for name, side in chosen.items() if side != "own"}
    fields |= {name: FieldChoice("value", value) for name, value in values.items()}
    return Posted(Decision(fields=fields), proposal)


def _own_value(typed: str | None, neutral: NeutralType | None) -> tuple[str | None, str]:
    """The canonical text of what was typed, or what is wrong with it."""
    if typed is None or neutral is None:
        return typed, ""
    try:
        return canonical_value(typed, neutral), ""
    except ConfigurationError as error:
        return None, f"{str(error).rstrip('.')}: the field is {neutral}."


def decision_for_side(conflict: Conflict, wanted: str) -> Decision | None:
    """What `left`, `right`, `keep` or `delete` for many at once means for this one, if anything."""
    if conflict.kind in DELETIONS:
        kept = "left" if conflict.sealed_left is not None else "right"
        gone = "right" if kept == "left" else "left"
        sides = {"keep": kept, "delete": gone, "left": "left", "right": "right"}
        return Decision(record=sides[wanted])
    if conflict.kind in BY_FIELD and conflict.can_be_decided and wanted in ("left", "right"):
        return Decision(record=wanted)
    return None


def decided_words(conflict: Conflict, names: SideNames) -> str:
    """What was decided, as one sentence; empty where nothing was."""
    decided: dict[str, Any] | None = conflict.decision
    if decided is None:
        return ""
    if decided.get("match"):
        return f"It is the record {record_key(decided['match'])}."
    if conflict.kind == Conflict.Kind.MATCH:
        return "It is none of them: a new record."
    if decided.get("record"):
        whole = next((c for c in choices(conflict, names) if c.side == decided["record"]), None)
        return whole.consequence if whole else f"{names.of(decided['record'])} wins."
    parts = [_field_words(name, c["take"], names) for name, c in decided["fields"].items()]
    return f"{', '.join(parts)}."


def _field_words(name: str, take: str, names: SideNames) -> str:
    if take in ("left", "right"):
        return f"{name} from {names.of(take)}"
    return f"{name} with a value of its own"


def again(proposal: Proposal) -> Proposal:
    """The same choices without complaints: proposed anew after a value moved."""
    return replace(proposal, errors={})
