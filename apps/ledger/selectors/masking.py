"""Handing rows of the ledger to faces: with the personal values of their rule masked."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar
from uuid import UUID

from apps.ledger.models import Change, Conflict, Rejection
from apps.mappings.masking import HIDDEN, Mask, masks_of
from apps.rules.models import Rule

Row = TypeVar("Row", Change, Conflict, Rejection)


def rule_masks(rule_ids: Iterable[UUID]) -> dict[UUID, Mask]:
    """The mask of each rule, as its mapping and the classes of fields are now.

    Everything is hidden of a rule that is not there any more.
    """
    wanted = set(rule_ids)
    sides = ("mapping__left", "mapping__right")
    rows = Rule.objects.filter(pk__in=wanted).select_related(*sides).order_by()
    mapping_of = {rule.pk: rule.mapping for rule in rows}
    masks = masks_of(mapping_of.values())
    return {pk: masks[mapping_of[pk].pk] if pk in mapping_of else HIDDEN for pk in wanted}


def masked(rows: Iterable[Row], *, revealed: bool = False) -> list[Row]:
    """The same rows as a face shows them: two queries, whatever their number.

    revealed: a person has asked for the values, with a reason (`services.reveal`).
    """
    found = list(rows)
    if found and not revealed:
        masks = rule_masks(row.rule_id for row in found)
        for row in found:
            row.mask = masks[row.rule_id]
    return found
