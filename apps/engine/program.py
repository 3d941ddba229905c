"""A compiled mapping and the outcome of running it, as plain values.

They stand apart from the compiler so that the sandbox's child starts without it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from dataclasses import field as attribute

import pyarrow as pa

from apps.connectors.types import NeutralType
from apps.engine.types_sql import key_text

LEFT_KEY = "__left_key"
RIGHT_KEY = "__right_key"
CARRIED = "__left."
"""What stands before the name of a left field that rides along."""
ROW = "__row"
"""A batch may number its rows, one after the other, to know them again in what becomes of them."""
KEY_MISSING = "record.key_missing"
REQUIRED = "record.required"
EXPRESSION_FAILED = "record.expression_failed"
CHECK_FAILED = "record.check_failed"


@dataclass(frozen=True, slots=True)
class Column:
    """A field of the input or the output.

    `type` is the neutral type's text form, `sql` the name of its column in the queries.
    """

    name: str
    type: str
    sql: str

    @property
    def neutral(self) -> NeutralType:
        return NeutralType.parse(self.type)


@dataclass(frozen=True, slots=True)
class ProblemSpec:
    """What is wrong with a record that has this problem; {value} in the message is filled in."""

    code: str
    message: str
    field: str = ""
    check: str = ""
    stop: bool = False


@dataclass(frozen=True, slots=True)
class TransformProgram:
    """A compiled mapping: everything that running it needs, and nothing else. JSON-serialisable.

    inputs:  left fields that it reads (with key and cursor);
    outputs: right fields that it writes; `canonical_json` are the places among them whose text
             still needs its canonical form;
    lookups: names of the lookup tables it uses;
    trusted: it has no expression of a person, so it can run outside the sandbox;
    left_key: key fields of the left dataset, which are among the inputs;
    carries: records bring their inputs along as `__left.<name>`;
    notes:   what an administrator should know, in sentences.
    """

    inputs: tuple[Column, ...]
    outputs: tuple[Column, ...]
    lookups: tuple[str, ...]
    problems: tuple[ProblemSpec, ...]
    warnings: tuple[str, ...]
    canonical_json: tuple[int, ...]
    fast_sql: str
    careful_sql: str
    trusted: bool
    left_key: tuple[str, ...] = ()
    carries: bool = False
    notes: tuple[str, ...] = ()

    @property
    def left_fields(self) -> tuple[str, ...]:
        """Names of the left fields that a batch must hold."""
        return tuple(column.name for column in self.inputs)

    @property
    def right_types(self) -> dict[str, NeutralType]:
        """Types of the right fields in `Transformed.records`."""
        return {column.name: column.neutral for column in self.outputs}

    @property
    def records_schema(self) -> pa.Schema:
        """Schema of `Transformed.records`."""
        fields = [pa.field(column.name, column.neutral.arrow) for column in self.outputs]
        keys = [(LEFT_KEY, pa.string()), (RIGHT_KEY, pa.string())]
        carried = [(f"{CARRIED}{column.name}", column.neutral.arrow) for column in self.carried]
        return pa.schema([*fields, *keys, *carried])

    @property
    def carried(self) -> tuple[Column, ...]:
        """The left fields that ride along in `Transformed.records`."""
        return self.inputs if self.carries else ()

    def left_key_of(self, record: Mapping[str, str | None]) -> str | None:
        """The left key of a record of canonical texts, None where it cannot be told."""
        values = [record[name] for name in self.left_key]
        return key_text(values) if values and None not in values else None

    def to_json(self) -> str:
        return json.dumps(asdict(self), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> TransformProgram:
        data = json.loads(text)
        return cls(
            inputs=tuple(Column(**item) for item in data["inputs"]),
            outputs=tuple(Column(**item) for item in data["outputs"]),
            problems=tuple(ProblemSpec(**item) for item in data["problems"]),
            **{
                name: tuple(data[name])
                for name in ("lookups", "warnings", "canonical_json", "left_key", "notes")
            },
            fast_sql=data["fast_sql"],
            careful_sql=data["careful_sql"],
            trusted=data["trusted"],
            carries=data["carries"],
        )


@dataclass(frozen=True, slots=True)
class RecordRejection:
    """A record that is kept out, and why.

    record: canonical texts; row: the number that the batch gave it, if it numbers its rows.
    """

    left_key: str | None
    right_key: str | None
    code: str
    message: str
    field: str = ""
    check: str = ""
    record: dict[str, str | None] = attribute(default_factory=dict)
    row: int | None = None


KEYS_SCHEMA = pa.schema([(LEFT_KEY, pa.string()), (RIGHT_KEY, pa.string())])


@dataclass(frozen=True, slots=True)
class Transformed:
    """The outcome of one batch.

    records:  right fields in their storage, `__left_key`, `__right_key`, what rides along (see
              `TransformProgram.carries`); no particular order;
    rejected: records kept out; stops: records whose check says that the run must stop;
    warnings: number of records per check that only warns;
    left_out: `__left_key`, `__right_key` of the records that the filter leaves out.
    Where the batch numbered its rows (`__row`), records and left_out have the numbers, too.
    """

    records: pa.Table
    rejected: list[RecordRejection]
    warnings: dict[str, int]
    stops: list[RecordRejection]
    left_out: pa.Table
