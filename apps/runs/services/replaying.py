"""Replaying rejections: the record as its source holds it now, with a person's corrections on top.

A rejection may be old. Replaying the values it was rejected with would bring back what has been
edited since; so the source is asked first, and only the fields that a person changed replace what
it says. A record that the source cannot give by key is replayed as it was kept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import orjson
import pyarrow as pa

from apps.connectors.base import ReadBatch
from apps.connectors.types import NeutralType
from apps.engine.codec import decode_images, encode_images, encode_keys
from apps.ledger.models import Rejection
from apps.runs.services.context import RunContext
from apps.runs.services.reading import Batches, Image

ReadByKey = Callable[[list[str]], Batches]


def replayed_batches(
    context: RunContext, rejection_ids: Sequence[str], read_by_key: ReadByKey
) -> Batches:
    """The left records of these rejections, and what still cannot be read of them."""
    rejections = list(Rejection.objects.filter(pk__in=rejection_ids))
    types = {name: context.left.field(name).type for name in context.left_fields}
    current: dict[str, Image] = {}
    for batch in read_by_key(sorted({r.left_key for r in rejections if r.left_key})):
        current |= _by_key(context, batch.records, types)
        if batch.rejected:
            yield ReadBatch(batch.records.slice(0, 0), batch.rejected)
    images = [image for r in rejections if (image := _replayed(r, current, types)) is not None]
    if images:
        table = decode_images([orjson.dumps(image).decode() for image in images], types)
        for made in table.combine_chunks().to_batches():
            yield ReadBatch(made)


def _by_key(
    context: RunContext, records: pa.RecordBatch, types: dict[str, NeutralType]
) -> dict[str, Image]:
    table = pa.Table.from_batches([records])
    keys = encode_keys(table, {name: types[name] for name in context.left.key})
    images = [orjson.loads(text) for text in encode_images(table, types)]
    return dict(zip(keys, images, strict=True))


def _replayed(
    rejection: Rejection, current: dict[str, Image], types: dict[str, NeutralType]
) -> Image | None:
    """The record to replay; None where nothing holds all the fields that it needs."""
    kept, edit = rejection.record() or {}, rejection.edit() or {}
    corrected = {name: value for name, value in edit.items() if kept.get(name) != value}
    base = current.get(rejection.left_key, kept)
    image = {**base, **corrected}
    return {name: image[name] for name in types} if types.keys() <= image.keys() else None
