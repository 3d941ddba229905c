"""Sample records, now and after: what the live preview of a mapping shows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import orjson
import pyarrow as pa

from apps.connectors.base import DatasetSchema, ReadBatch
from apps.connectors.types import NeutralType
from apps.engine.codec import decode_images, encode_images
from apps.engine.reconcile import backward_mapping
from apps.engine.sandbox import Limits, Sandbox
from apps.engine.spec import MappingSpec, RuleSpec
from apps.engine.transform import Transformed, compile_transform
from apps.mappings.masking import Mask

PREVIEW_LIMITS = Limits(batch_seconds=5.0)
Image = dict[str, str | None]


@dataclass(frozen=True, slots=True)
class PreviewRow:
    """One sample record: what it is now, and what would be written or why it would not."""

    before: dict[str, str | None]
    after: dict[str, str | None] = field(default_factory=dict)
    problem: str = ""
    left_out: bool = False

    def masked(self, mask: Mask) -> PreviewRow:
        """The same as a face shows it."""
        return replace(
            self,
            before=mask.image(self.before, "left") or {},
            after=mask.image(self.after, "right") or {},
            problem=mask.text(self.problem, "", (self.before, "left"), (self.after, "right")),
        )


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
    *,
    assigned: bool = False,
) -> Preview:
    """Transform the sample in a child process; rows keep the order in which they were read.

    assigned: a key that its side assigns may be empty.
    """
    program = compile_transform(mapping, rule, lookups=set(lookups), assigned=assigned)
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


@dataclass(frozen=True, slots=True)
class BackRow:
    """One right sample record, its left partner now (None: not known), and what it would become."""

    right: Image
    now: Image | None
    after: Image
    problem: str = ""

    def masked(self, mask: Mask) -> BackRow:
        """The same as a face shows it."""
        known = ((self.right, "right"), (self.now, "left"), (self.after, "left"))
        return BackRow(
            mask.image(self.right, "right") or {},
            mask.image(self.now, "left"),
            mask.image(self.after, "left") or {},
            mask.text(self.problem, "", *known),
        )


LeftKey = tuple[str | None, ...]


def preview_back_rows(
    mapping: MappingSpec,
    right: DatasetSchema,
    batches: Sequence[ReadBatch],
    read_left: Callable[[pa.Table], Sequence[ReadBatch]],
    match_left: Callable[[], Sequence[LeftKey | None]],
    lookups: Mapping[str, pa.Table],
) -> list[BackRow]:
    """Run the way back over right sample records, in a child process.

    read_left: reads the left records that have these keys. match_left: for each right record the
    key of the left one that it would be matched with; asked where the key does not flow back.
    Raises ConfigurationError or ExpressionRefused.
    """
    backward = backward_mapping(mapping)
    done = preview_rows(backward, RuleSpec(), right, batches, lookups, assigned=True)
    rows = [row for row in done.rows if row.before]
    key = mapping.left.key
    if set(key) <= {field.right for field in backward.fields}:
        keys: Sequence[LeftKey | None] = [_key_of(row.after, key) for row in rows]
    else:
        keys = match_left()
    types = {field.name: field.neutral_type for field in mapping.left.fields}
    known = _left_records(key, [k for k in keys if k and None not in k], read_left, types)
    return [
        BackRow(right=row.before, now=known.get(k or ()), after=row.after, problem=row.problem)
        for row, k in zip(rows, keys, strict=True)
    ]


def _left_records(
    key: Sequence[str],
    wanted: Sequence[LeftKey],
    read_left: Callable[[pa.Table], Sequence[ReadBatch]],
    types: Mapping[str, NeutralType],
) -> dict[LeftKey, Image]:
    """The left records with these keys, which are canonical texts."""
    if not wanted:
        return {}
    images = [orjson.dumps(dict(zip(key, texts, strict=True))).decode() for texts in set(wanted)]
    table = decode_images(images, {name: types[name] for name in key})
    found: dict[LeftKey, Image] = {}
    for batch in read_left(table):
        fields = {name: types[name] for name in batch.records.schema.names}
        for text in encode_images(pa.Table.from_batches([batch.records]), fields):
            image: Image = orjson.loads(text)
            found[_key_of(image, key)] = image
    return found


def _key_of(image: Image, key: Sequence[str]) -> LeftKey:
    return tuple(image.get(name) for name in key)
