"""Updates of different fields as one batch, which knows of each record what it does not write.

Records that pass a unique value on must be written together, whatever else changes in them. A
field that a record keeps is compared with what it is, so that a unique key is known as a whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import orjson

from apps.connectors.base import DatasetSchema
from apps.ledger.selectors import PlannedChange
from apps.runs.services.reading import live_images
from apps.runs.services.writing import SideWriter


def fields_together(
    side: SideWriter, dataset: DatasetSchema, changes: Sequence[PlannedChange]
) -> list[str]:
    """The fields that any of the updates writes, and the rest of the unique keys they are in.

    dataset: the side's, with all its fields.
    """
    written = {name for change in changes for name in change.fields}
    keys = [names for names in dataset.unique_keys if written.intersection(names)]
    return sorted(written.union(*keys) & side.types.keys())


def widened(
    side: SideWriter, changes: Sequence[PlannedChange], names: Sequence[str]
) -> list[PlannedChange]:
    """The same updates, all of these fields. Reads the records.

    A record that is gone keeps what its change says, and NULL: its write will find it stale.
    """
    types = {name: side.types[name] for name in names}
    live = live_images(side.reader, types, [change.own_key for change in changes])
    found = []
    for change in changes:
        kept = dict.fromkeys(names) | live.get(change.own_key, {})
        before, after = (
            orjson.dumps(kept | orjson.loads(image)).decode()
            for image in (change.before, change.after)
        )
        found.append(replace(change, before=before, after=after, fields=tuple(names)))
    return found
