"""Links of records that are equal when two platforms meet: nothing was written, so no change tells.

A million of them as rows would take longer than reading both sides. They are the base of both
sides alike, so they go to segments like the links of a load: typed columns, no rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from django.conf import settings

from apps.connectors.types import NeutralType
from apps.core.clock import now
from apps.engine.codec import decode_images, image_hashes
from apps.ledger.models import Change, Operation, Side
from apps.ledger.segments.files import Typed, constant
from apps.ledger.segments.writing import cut, write_links
from apps.ledger.services.links import refresh_links
from apps.ledger.services.work import WorkIdentity


def store_found_links(
    work: WorkIdentity,
    batches: Iterable[pa.Table],
    types: Mapping[str, NeutralType],
    *,
    transaction: Callable[[], AbstractContextManager[None]],
) -> None:
    """Link records that were found to be equal, for a rule that has no links yet.

    batches: as `links.refresh_links` takes them; types: of the mapped right fields; transaction:
    what each write is wrapped in (a lease's). If a worker dies here, the next one finds them.
    """
    limit = int(settings.LOCKSTEP["LEDGER_ROWS_LIMIT"])
    for table in cut(batches):
        rows = table
        if table.num_rows > limit:
            even, values, rows = _parted(table, types)
            if even.num_rows:
                content = _as_file(work, even, values, types)
                with transaction():
                    write_links(work.rule_id, content)
        with transaction():
            refresh_links(work, rows, first_links=True)


def _parted(
    table: pa.Table, types: Mapping[str, NeutralType]
) -> tuple[pa.Table, pa.Table, pa.Table]:
    """The links whose two images are the same whole record, its values, and the other links.

    An image that lacks a field (it waits for a person, and has no base) is not what its values
    would tell.
    """
    same = pc.fill_null(pc.equal(table["base_left"], table["base_right"]), fill_value=False)
    even = table.filter(same)
    values = decode_images(even.column("base_left").to_pylist(), types)
    hashes = pa.array(image_hashes(values, types), pa.string())
    whole = pc.equal(even.column("left_image"), hashes)
    others = pa.concat_tables([table.filter(pc.invert(same)), even.filter(pc.invert(whole))])
    return even.filter(whole), values.filter(whole), others


def _as_file(
    work: WorkIdentity, links: pa.Table, values: pa.Table, types: Mapping[str, NeutralType]
) -> pa.Table:
    """Links as `segments.files` keeps them: like applied inserts, whose changes are forgotten."""
    rows, typed = links.num_rows, Typed(types, based=True)
    schema = typed.schema()
    same: dict[str, Any] = {
        "run_id": str(work.run_id),
        "partition_id": str(work.partition_id),
        "sequence": 0,
        "side": Side.RIGHT.value,
        "operation": Operation.INSERT.value,
        "cause": Change.Cause.NEW.value,
        "outcome": Change.Outcome.APPLIED.value,
        "planned_at": now(),
    }
    told = dict(zip(typed.columns, values.columns, strict=True))
    told |= {"id": pa.arange(0, rows)}
    told |= {name: links.column(name) for name in ("left_key", "right_key")}
    columns: list[Any] = []
    for field in schema:
        if field.name in same:
            columns.append(constant(same[field.name], field.type, rows))
        elif field.name in told:
            columns.append(told[field.name].cast(field.type))
        else:
            columns.append(pa.nulls(rows, field.type))
    return pa.table(columns, names=schema.names).replace_schema_metadata(schema.metadata)
