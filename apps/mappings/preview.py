"""Sample records, now and after: what the live preview of a mapping shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import orjson
import pyarrow as pa

from apps.connectors.base import DatasetSchema, ReadBatch
from apps.connectors.types import NeutralType
from apps.engine.codec import encode_images
from apps.engine.sandbox import Limits, Sandbox
from apps.engine.spec import MappingSpec, RuleSpec
from apps.engine.transform import Transformed, compile_transform

PREVIEW_LIMITS = Limits(batch_seconds=5.0)
Image = dict[str, str | None]


@dataclass(frozen=True, slots=True)
class PreviewRow:
    """One sample record: what it is now, and what would be written or why it would not."""

    before: dict[str, str | None]
    after: dict[str, str | None] = field(default_factory=dict)
    problem: str = ""
    left_out: bool = False


@dataclass(frozen=True, slots=True)
class Preview:
    rows: tuple[PreviewRow, ...]
    warnings: dict[str, int]


def preview_rows(
    mapping: MappingSpec,
    rule: RuleSpec,
    schema: DatasetSchema,
    batches: Sequence[ReadBatch],
    lookups: Mapping[str, pa.Table],
) -> Preview:
    """Transform the sample in a child process; rows keep the order in which they were read."""
    program = compile_transform(mapping, rule, lookups=set(lookups))
    left_types = {field.name: field.type for field in schema.fields}
    right_types = {f.right: mapping.right.field(f.right).neutral_type for f in mapping.fields}
    rows: list[PreviewRow] = []
    warnings: dict[str, int] = {}
    with Sandbox(program, lookups, PREVIEW_LIMITS) as sandbox:
        for batch in batches:
            rows += [PreviewRow(before={}, problem=item.message) for item in batch.rejected]
            for index in range(batch.records.num_rows):
                one = batch.records.slice(index, 1)
                done = sandbox.run(one)
                before = _image(pa.Table.from_batches([one]), left_types)
                rows.append(_row(before, done, right_types))
                for name, count in done.warnings.items():
                    warnings[name] = warnings.get(name, 0) + count
    return Preview(tuple(rows), warnings)


def _row(before: Image, done: Transformed, types: Mapping[str, NeutralType]) -> PreviewRow:
    problems = [item.message for item in (*done.rejected, *done.stops)]
    if problems:
        return PreviewRow(before, problem="; ".join(problems))
    if done.left_out.num_rows:
        return PreviewRow(before, left_out=True)
    return PreviewRow(before, _image(done.records.select(list(types)), types))


def _image(table: pa.Table, types: Mapping[str, NeutralType]) -> Image:
    image: Image = orjson.loads(encode_images(table, types)[0])
    return image
