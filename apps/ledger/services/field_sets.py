"""Field sets: which fields changes write together, each kept once per rule."""

from __future__ import annotations

from collections.abc import Iterable
from uuid import UUID

import orjson

from apps.ledger.models import FieldSet
from apps.ledger.selectors.keys import key_hash

FieldNames = tuple[str, ...]


def field_set_ids(rule_id: UUID, wanted: Iterable[FieldNames]) -> dict[FieldNames, int]:
    """The ids of these field sets, made where they are new."""
    texts = {orjson.dumps(names).decode(): names for names in sorted(set(wanted))}
    known = _known(rule_id, texts)
    missing = [text for text in texts if text not in known]
    if missing:
        FieldSet.objects.bulk_create(
            [FieldSet(rule_id=rule_id, fields=t, fields_hash=key_hash(t)) for t in missing],
            ignore_conflicts=True,
        )
        known |= _known(rule_id, missing)
    return {texts[text]: pk for text, pk in known.items()}


def _known(rule_id: UUID, texts: Iterable[str]) -> dict[str, int]:
    hashes = [key_hash(text) for text in texts]
    found: dict[str, int] = {}
    for start in range(0, len(hashes), 500):
        rows = FieldSet.objects.filter(rule_id=rule_id, fields_hash__in=hashes[start : start + 500])
        found.update(rows.values_list("fields", "pk"))
    return found
