"""Whom a record is about, and the key that what is kept of it is encrypted with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from uuid import UUID

from apps.core.keys.subjects import SubjectSealer, subject_sealers
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
