"""The one interface behind which every kind of source stands.

A connector is a cheap object: its settings and nothing else. Each operation opens what it needs
and closes it. Rows travel as Arrow record batches in the storage of their neutral types
(`types.NeutralType.arrow`), never as one Python object per row across this interface.

Reading never fails for one bad record: what cannot be represented is handed over as a
`RawRejection` beside the batch. Writing never fails for one either: each row of a `ChangeBatch`
has an outcome. Failures of the whole operation are raised as classes of `errors`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, ClassVar, Generic, TypeVar

import pyarrow as pa
from pydantic import BaseModel, ConfigDict

from apps.connectors.types import NeutralType

Fence = Callable[[], None]
"""Raises `errors.LeaseLost` when the caller no longer owns the work. Called before each commit."""


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a connector can do. The engine asks here, never for a connector's name."""

    read: bool = True
    write: bool = False
    keys: bool = True  # enforces or knows keys
    cursor: bool = False  # can read only what lies after a cursor value
    key_lookup: bool = False  # can read given keys without a full scan
    key_ranges: bool = False  # can read a range of an integer key cheaply
    transactions: bool = False  # a ChangeBatch is applied whole or not at all
    bulk_load: bool = False
    checksum: bool = False
    log: bool = False
    target_lock: bool = False  # writers exclude each other through the target itself
    server_assigned_keys: bool = False  # an insert may leave the key to the target
    returns_stored: bool = False  # a write gives back what the target made of it
    delete: bool = False
    create_dataset: bool = False
    inferred_types: bool = False  # types come from values; a reader is told which ones to use
    batch_rows: int = 5_000  # rows per ChangeBatch that suit this connector


class ConnectorSettings(BaseModel):
    """Base of each connector's settings.

    Fields of type `pydantic.SecretStr` are secrets: stored encrypted, write-only everywhere.
    Field titles and descriptions are what forms show. `json_schema_extra={"advanced": True}`
    folds a field away.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=True)


@dataclass(frozen=True, slots=True)
class FieldSchema:
    """One field of a dataset as the source describes it."""

    name: str
    type: NeutralType
    native_type: str = ""
    nullable: bool = True
    has_default: bool = False
    server_assigned: bool = False  # serial, identity, auto_increment
    generated: bool = False  # computed: can never be written


@dataclass(frozen=True, slots=True)
class Reference:
    """A foreign key: these fields hold the key of a record in another dataset."""

    fields: tuple[str, ...]
    dataset: str
    target_fields: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class DatasetSchema:
    """A table, view or set of files as the source describes it."""

    name: str
    fields: tuple[FieldSchema, ...]
    key: tuple[str, ...] = ()
    unique_keys: tuple[tuple[str, ...], ...] = ()  # beside `key`
    references: tuple[Reference, ...] = ()
    row_count: int | None = None  # exact where cheap, else the source's estimate
    size_bytes: int | None = None
    format: str = "table"  # table, view, csv, jsonl, json, parquet
    writable: bool = True

    def field(self, name: str) -> FieldSchema:
        """The field of that name. Raises KeyError."""
        for candidate in self.fields:
            if candidate.name == name:
                return candidate
        raise KeyError(name)

    @property
    def field_names(self) -> tuple[str, ...]:
        return tuple(f.name for f in self.fields)


class StepStatus(StrEnum):
    OK = "ok"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class CheckStep:
    """One step of a connection test: resolve, connect, tls, sign_in, read, write."""

    name: str
    status: StepStatus
    message: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class KeyRange:
    """Half open range [lower, upper) over one integer key field; None is open-ended."""

    field: str
    lower: int | None
    upper: int | None


@dataclass(frozen=True, slots=True)
class CursorWindow:
    """Records whose cursor is >= `after` (ties are read again), and those whose cursor is NULL.

    `after` is an int, str, date or datetime fitting the field's neutral type; None reads all.
    """

    field: str
    after: Any = None


@dataclass(frozen=True, slots=True)
class ReadRequest:
    """What to read. At most one of `key_range`, `cursor`, `keys` is set.

    keys: a table whose columns are named like the fields of a key (any unique fields);
    records that match are returned, those without a match are simply absent.
    """

    dataset: DatasetSchema
    fields: tuple[str, ...]
    key_range: KeyRange | None = None
    cursor: CursorWindow | None = None
    keys: pa.Table | None = None
    limit: int | None = None
    batch_rows: int = 20_000


@dataclass(frozen=True, slots=True)
class RawRejection:
    """A record that could not be read.

    position: where it stands ("line 17", "row 3 of part-1.parquet", a key);
    raw: its text as far as known, at most 10,000 characters;
    key: values of the dataset's key fields if they could be read, else None.
    """

    position: str
    code: str
    message: str
    raw: str = ""
    key: dict[str, Any] | None = None
    field: str = ""


@dataclass(frozen=True, slots=True)
class ReadBatch:
    """Records with exactly the requested fields, in that order, in neutral storage."""

    records: pa.RecordBatch
    rejected: tuple[RawRejection, ...] = ()


class Operation(StrEnum):
    INSERT = "insert"
    UPDATE = "update"
    DELETE = "delete"


@dataclass(frozen=True, slots=True)
class ChangeBatch:
    """Changes of one operation to the same fields.

    key:    table of the key fields, one row per change (these address the record). An insert
            whose key has no columns leaves the key to the target (`assigns_key`);
    before: table of the fields compared before the write (the precondition); for a delete or an
            update. Same number of rows as `key`;
    after:  table of the fields written; for an update, without unchanged fields; for an insert,
            with the key fields unless the target assigns them. Same number of rows as `key`.

    The rest is for inserts whose key the target assigns:

    match:    fields of `after` that identify a record. One that has the same values is the
              record: ALREADY when it equals `after`, else STALE. A change without a value in one
              of them is looked for by nothing;
    in_doubt: an earlier attempt may have got through. A record that equals `after` in all its
              fields, and that no other change of the batch equals, is that attempt's: ALREADY.
              Several such records are IN_DOUBT, for a person to decide.
    """

    operation: Operation
    key: pa.Table
    before: pa.Table | None = None
    after: pa.Table | None = None
    match: tuple[str, ...] = ()
    in_doubt: bool = False

    @property
    def assigns_key(self) -> bool:
        """Whether the target gives the records their keys."""
        return self.operation is Operation.INSERT and self.key.num_columns == 0

    @property
    def num_rows(self) -> int:
        if self.assigns_key and self.after is not None:
            return int(self.after.num_rows)
        return int(self.key.num_rows)


class WriteStatus(StrEnum):
    APPLIED = "applied"
    ALREADY = "already"  # the record is as it should be: an earlier attempt got through
    STALE = "stale"  # the record is neither as before nor as after: somebody moved it
    REJECTED = "rejected"  # the target refused this record
    IN_DOUBT = "in_doubt"  # several records could be what an earlier attempt wrote


@dataclass(frozen=True, slots=True)
class WriteProblem:
    """Why one row of a ChangeBatch was not simply applied."""

    status: WriteStatus
    code: str = ""
    message: str = ""
    field: str = ""


@dataclass(frozen=True, slots=True)
class WriteResult:
    """Outcome of a ChangeBatch: every row is APPLIED but those in `exceptions` (by row index).

    stored: where `returning` named fields, a table of these, one row per change, in neutral
            storage: the record as the target held it at the end of the batch's transaction, for
            a change that is APPLIED or ALREADY. All NULL for the others and for deletes;
    keys:   where the target assigned the keys, a table of the dataset's key fields, likewise.
    """

    num_rows: int
    exceptions: dict[int, WriteProblem] = field(default_factory=dict)
    bytes_written: int = 0
    stored: pa.Table | None = None
    keys: pa.Table | None = None


class WriteSession(ABC):
    """Exclusive right to write one dataset on behalf of one partition.

    Holds the target's lock from entering to leaving. `apply` is idempotent: applying a batch
    twice reports ALREADY the second time. Compare-and-set per row:
    insert: no record has the key, else ALREADY when it equals `after`, else STALE;
    update: the record's `before` fields are not distinct from `before`, else ALREADY when its
            `after` fields equal `after`, else STALE (also when it is gone). Where `after` moves
            the key, the record may stand under the new one: ALREADY when it is as after the
            change and, in the other fields of `before`, as before it;
    delete: as update; ALREADY when the record is gone.
    A row that the target refuses (constraint, range, length) is REJECTED and the others go on.
    Comparison is exact: case, accents, trailing blanks, signs of zero aside, NULL equal to NULL.

    Changes of one batch may refer to one another in any order (a record to its parent in the
    same dataset), in a circle too where the target checks references no earlier than at the end
    of a statement.
    """

    @abstractmethod
    def __enter__(self) -> WriteSession: ...

    @abstractmethod
    def __exit__(self, *exc_info: object) -> None: ...

    @abstractmethod
    def apply(
        self, batch: ChangeBatch, fence: Fence, *, returning: Sequence[str] = ()
    ) -> WriteResult:
        """Write one batch in one transaction; `fence` is called last, before the commit.

        returning: fields to give back as `WriteResult.stored`; only where
        `capabilities.returns_stored`. A change is taken back and REJECTED when what the target
        made of it cannot be told: `record.key_changed` (a trigger moved or removed the record),
        `record.unreadable` (a value has no neutral form), `record.ambiguous` (several records
        have the key now).

        An insert without key columns needs `capabilities.server_assigned_keys`. Raises
        KeyMissing when the dataset has no key, or the target cannot say which key it gave.
        """


S = TypeVar("S", bound=ConnectorSettings)


class Connector(ABC, Generic[S]):
    """One kind of source. Subclasses set the class variables and implement the operations."""

    name: ClassVar[str]
    label: ClassVar[str]
    settings_model: ClassVar[type[ConnectorSettings]]
    capabilities: ClassVar[Capabilities]

    def __init__(self, settings: S) -> None:
        self.settings = settings

    @abstractmethod
    def check(self) -> Iterator[CheckStep]:
        """Test the connection step by step; stops after the first failed step. Never raises."""

    @abstractmethod
    def discover(self) -> list[DatasetSchema]:
        """All datasets that this source's user can read, sorted by name."""

    @abstractmethod
    def describe(self, dataset: str) -> DatasetSchema:
        """One dataset as it is now. Raises DatasetMissing."""

    @abstractmethod
    def count(self, dataset: DatasetSchema) -> int:
        """Exact number of records."""

    @abstractmethod
    def read(self, request: ReadRequest) -> Iterator[ReadBatch]:
        """Read records, in no particular order, in bounded memory, from one snapshot.

        Raises FieldMissing or SchemaMismatch when the dataset no longer fits the request.
        """

    def split(self, dataset: DatasetSchema, field: str, parts: int) -> Sequence[int]:
        """Up to `parts - 1` ascending bounds that cut the integer key into equal shares.

        Only where `capabilities.key_ranges`.
        """
        raise NotImplementedError(f"{self.name} cannot split key ranges")

    def write_session(
        self, dataset: DatasetSchema, *, lock: str, lease_seconds: Callable[[], float]
    ) -> AbstractContextManager[WriteSession]:
        """Begin writing. `lock` names the exclusive right; `lease_seconds()` is what is left of
        the caller's lease: statement deadlines stay below it. Only where `capabilities.write`.

        Waits for the lock for at most what is left of the lease, then raises TargetBusy.
        """
        raise NotImplementedError(f"{self.name} cannot write")

    def create_dataset(self, schema: DatasetSchema) -> None:
        """Create a dataset with these fields (by neutral type) and key.

        Raises ConfigurationError if it exists. Only where `capabilities.create_dataset`.
        """
        raise NotImplementedError(f"{self.name} cannot create datasets")
