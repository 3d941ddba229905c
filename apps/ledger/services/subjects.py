"""Whom a record is about, and the key that what is kept of it is encrypted with."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from uuid import UUID

import orjson

from apps.core.keys.subjects import (
    SubjectSealer,
    blind_index,
    index_of_nobody_known,
    subject_sealers,
)
from apps.ledger.models import Change, Image
from apps.ledger.selectors.subjects import subject_side
from apps.rules.models import Rule

Record = Mapping[str, str | None]


class Sealers:
    """The keys of the persons whom some left records of a rule are about.

    There are none where the left dataset names no subject, or has no field with a personal-data
    class: what is kept of its records is under the data key.
    """

    def __init__(self, rule_id: UUID, records: Iterable[Record | None]) -> None:
        """records: left records by left field, all that will be asked for."""
        self._field = ""
        self._sealers: dict[str, SubjectSealer] = {}
        rule = Rule.objects.select_related("mapping__left").filter(pk=rule_id).first()
        left = rule.mapping.left if rule is not None else None
        if left is None or not left.subject_field:
            return
        if not left.fields.exclude(personal_data="").exists():
            return
        self._field = left.subject_field
        subjects = {record.get(self._field) for record in records if record is not None}
        self._sealers = subject_sealers(left.pk, {value for value in subjects if value})

    def of(self, record: Record | None) -> SubjectSealer | None:
        """The key of the person whom this record is about; None: it is under the data key."""
        value = record.get(self._field) if record is not None and self._field else None
        return self._sealers.get(value) if value else None


class SubjectIndices:
    """Whom changes of a rule are about, by blind index.

    The subject field is looked for in the record's keys and in the change's image, under its own
    name and under that of the field which is its copy on the other side.
    """

    def __init__(self, rule_id: UUID) -> None:
        rule = Rule.objects.select_related("mapping__left", "mapping__right").get(pk=rule_id)
        mapping = rule.mapping
        self._side = subject_side(mapping)
        if not self._side:
            return
        other = "left" if self._side == "right" else "right"
        dataset = getattr(mapping, self._side)
        self._dataset_id: UUID = dataset.pk
        copies = mapping.fields.filter(**{self._side: dataset.subject_field}, to_right="")
        copied = copies.exclude(**{other: ""}).values_list(other, flat=True).first()
        self._names = {self._side: dataset.subject_field, other: copied or ""}
        self._keys = {"left": mapping.left.key, "right": mapping.key}

    def of(self, change: Change, image: Image | None) -> bytes | None:
        """The index of whom a change with this image is about; None: records are about nobody."""
        if not self._side:
            return None
        value = next(filter(None, self._values(change, image)), "")
        return (
            blind_index(self._dataset_id, value)
            if value
            else index_of_nobody_known(self._dataset_id)
        )

    def _values(self, change: Change, image: Image | None) -> Iterator[str | None]:
        for side, key in (("left", change.left_key), ("right", change.right_key)):
            names, parts = self._keys[side], orjson.loads(key) if key else []
            if len(names) == len(parts):
                yield dict(zip(names, parts, strict=True)).get(self._names[side])
        yield (image or {}).get(self._names[change.side])
