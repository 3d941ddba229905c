"""Short ways to write datasets, mappings and batches in tests."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from apps.engine.execution import Runner
from apps.engine.spec import DatasetSpec, FieldMappingSpec, FieldSpec, MappingSpec, RuleSpec
from apps.engine.transform import Transformed, TransformProgram, compile_transform


def dataset(name: str, key: tuple[str, ...] = ("id",), /, **types: str) -> DatasetSpec:
    """A dataset; a type that ends with '!' is not nullable."""
    return DatasetSpec(
        name=name,
        key=key,
        fields=tuple(
            FieldSpec(name=field, type=text.rstrip("!"), nullable=not text.endswith("!"))
            for field, text in types.items()
        ),
    )


def mapped(left: DatasetSpec, right: DatasetSpec, *fields: Any, key: tuple[str, ...] = ("id",)):
    """A mapping; a field is a name (copied), or the keywords of a FieldMappingSpec."""
    specs = [
        FieldMappingSpec(right=f, left=f) if isinstance(f, str) else FieldMappingSpec(**f)
        for f in fields
    ]
    return MappingSpec(left=left, right=right, fields=tuple(specs), key=key)


def batch_of(program: TransformProgram, rows: list[dict[str, Any]]) -> pa.RecordBatch:
    schema = pa.schema([(column.name, column.neutral.arrow) for column in program.inputs])
    return pa.RecordBatch.from_pylist(rows, schema=schema)


def transform(
    mapping: MappingSpec,
    rows: list[dict[str, Any]],
    rule: RuleSpec | None = None,
    lookups: dict[str, pa.Table] | None = None,
) -> Transformed:
    """Compile and run in this process."""
    program = compile_transform(mapping, rule or RuleSpec(), lookups=lookups or {})
    with Runner(program, lookups) as runner:
        return runner.run(batch_of(program, rows))


def one_value(source: str, target: str, value: Any, **spec: Any) -> Any:
    """What becomes of one value: the right value, or the code of the rejection."""
    left = dataset("l", id="integer", v=source)
    right = dataset("r", id="integer", v=target)
    field = {"right": "v", "left": "v", **spec}
    result = transform(mapped(left, right, "id", field), [{"id": 1, "v": value}])
    if result.rejected:
        return result.rejected[0].code
    return result.records.column("v")[0].as_py()
