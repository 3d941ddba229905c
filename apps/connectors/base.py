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

from apps.connectors.types import Kind, NeutralType

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
    key_ranges: bool = False  # can read a range of a key of one integer cheaply
    key_spans: bool = False  # can read a range of any key of kinds that all platforms order alike
    key_shares: bool = False  # can read the records whose key has some hash
    transactions: bool = False  # a ChangeBatch is applied whole or not at all
    bulk_load: bool = False
    checksum: bool = False  # computes digests of records where they are stored
    log: bool = False
    load: bool = False  # can fill an empty dataset in one transaction
    exact_load: bool = False  # what it is loaded with as bytes is refused where it would be altered
    exports: frozenset[str] = frozenset()  # wire formats in which records can be handed on
    target_lock: bool = False  # writers exclude each other through the target itself
    server_assigned_keys: bool = False  # an insert may leave the key to the target
    returns_stored: bool = False  # a write gives back what the target made of it
    exchanges: bool = False  # updates of one batch may pass unique values on in a circle
    transaction_status: bool = False  # says afterwards whether a transaction was committed
    delete: bool = False
    compare_and_set: bool = True  # no other writer comes between the comparison and the write
    create_dataset: bool = False
    inferred_types: bool = False  # types come from values; a reader is told which ones to use
    batch_rows: int = 5_000  # rows per ChangeBatch that suit this connector


class ConnectorSettings(BaseModel):
    """Base of each connector's settings.

    Fields of type `pydantic.SecretStr` are secrets: stored encrypted, write-only everywhere.
    Field titles and descriptions are what forms show. `json_schema_extra={"advanced": True}`
    folds a field away.
    """

    location: ClassVar[tuple[str, ...]] = ()
    """The settings that say where the data is: with other values of these it is other data."""

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
    """Half open range [lower, upper) of a key's values, ordered as in `KeySpan`.

    A record whose key is NULL, which only a key of one field may be, is in the first range: so
    the ranges of a key hold all records together.
    """

    fields: tuple[str, ...]
    lower: Key | None = None
    upper: Key | None = None


@dataclass(frozen=True, slots=True)
class KeyShare:
    """One of `shares` parts of about equal size: `number` is 0 to shares - 1.

    A record belongs to a share by a hash of its key's texts (`digests.share_text`). fields: with
    forms (`digests.Form`) whose text both sides write alike.
    """

    fields: tuple[DigestField, ...]
    number: int
    shares: int


@dataclass(frozen=True, slots=True)
class KeyBounds:
    """Ascending keys that cut a dataset; indexed: whether a range is found through an index.

    Where it is not, whoever reads a range lets the source look at every record.
    """

    bounds: tuple[Key, ...]
    indexed: bool


@dataclass(frozen=True, slots=True)
class CursorWindow:
    """Records whose cursor is >= `after` (ties are read again), and those whose cursor is NULL.

    `after` is an int, str, date or datetime fitting the field's neutral type; None reads all.
    """

    field: str
    after: Any = None


@dataclass(frozen=True, slots=True)
class ReadRequest:
    """What to read. At most one of `part`, `cursor`, `keys` is set.

    keys: a table whose columns are named like the fields of a key (any unique fields);
    records that match are returned, those without a match are simply absent.
    """

    dataset: DatasetSchema
    fields: tuple[str, ...]
    part: KeyRange | KeyShare | None = None
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
            with the key fields unless the target assigns them. Same number of rows as `key`;
    written: of an update whose rows do not write all fields of `after`, those of each row. Its
            other fields are compared, and are in `after` what they are in `before`. Only for a
            connector that has `exchanges`.

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
    written: tuple[tuple[str, ...], ...] = ()

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
    keys:   where the target assigned the keys, a table of the dataset's key fields, likewise;
    transaction: what `WriteSession.committed` knows the batch's transaction by; empty where the
            target cannot say, and where nobody takes note.
    """

    num_rows: int
    exceptions: dict[int, WriteProblem] = field(default_factory=dict)
    bytes_written: int = 0
    stored: pa.Table | None = None
    keys: pa.Table | None = None
    transaction: str = ""


Note = Callable[[WriteResult], None]
"""Is told what a batch comes to just before its commit; what it raises takes the batch back."""


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
        self,
        batch: ChangeBatch,
        fence: Fence,
        *,
        returning: Sequence[str] = (),
        note: Note | None = None,
    ) -> WriteResult:
        """Write one batch in one transaction; `fence` is called last, before the commit.

        note: is told the result before `fence` is called. Whoever takes over from a worker that
        is lost knows by it what the write made of each record, and that what was not noted was
        not written.

        returning: fields to give back as `WriteResult.stored`; only where
        `capabilities.returns_stored`. A change is taken back and REJECTED when what the target
        made of it cannot be told: `record.key_changed` (a trigger moved or removed the record),
        `record.unreadable` (a value has no neutral form), `record.ambiguous` (several records
        have the key now).

        An insert without key columns needs `capabilities.server_assigned_keys`. Raises
        KeyMissing when the dataset has no key, or the target cannot say which key it gave.
        """

    def committed(self, transaction: str) -> bool | None:
        """Whether a transaction of an earlier session was committed; None: cannot be told.

        transaction: from `WriteResult.transaction`; not empty. The session's lock makes sure that
        the earlier one is over.
        """
        return None


class LoadRefused(Exception):
    """Records cannot be loaded this way; nothing of the load stays. The stream lane takes over.

    reason: a clause for people, without a value of a record ("the target has a trigger").
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class WireFormat:
    """How a target takes records as bytes.

    name: "postgresql-binary" (COPY BINARY), "mysql-text" (LOAD DATA with its default escapes);
    columns: the target's native type of each field, in the order of the session's fields, as the
    target spells it without what would cut a value in silence (a length, a scale).
    """

    name: str
    columns: tuple[str, ...]


class LoadSession(ABC):
    """Fills an empty dataset in one transaction: readers see all of its records, or none.

    From entering to leaving nobody else writes the dataset, by the named lock and by what the
    platform itself offers. Leaving without `commit` takes everything back. One of `write` (often)
    and `relay` (once) is used, then `finish`, then `commit`. Whatever is in doubt raises
    LoadRefused: a warning, a value that the target altered, a count that differs. A record that
    is refused may be any of them, so no record is named.
    """

    @abstractmethod
    def __enter__(self) -> LoadSession:
        """Raises LoadRefused when the dataset is not empty, or something acts on what is written
        to it; TargetBusy when the lock is not to be had within the lease."""

    @abstractmethod
    def __exit__(self, *exc_info: object) -> None: ...

    @property
    @abstractmethod
    def wire(self) -> WireFormat | None:
        """The format that `relay` takes; None where there is none."""

    @abstractmethod
    def write(self, records: pa.RecordBatch) -> None:
        """Load records: the session's fields, in their order, in neutral storage."""

    @abstractmethod
    def relay(self, chunks: Iterator[bytes]) -> None:
        """Load a whole export in the format `wire`, piece by piece."""

    @abstractmethod
    def finish(self) -> int:
        """No more records come: how many the dataset holds now."""

    @abstractmethod
    def commit(self, fence: Fence) -> None:
        """Make it visible; `fence` is called last before."""


SEEN_KEYS = frozenset({Kind.INTEGER, Kind.TEXT, Kind.UUID})
"""The kinds of key fields that an export tells of."""


@dataclass(frozen=True, slots=True)
class ExportPiece:
    """A mebibyte or so of an export: whole records as bytes, and their keys in neutral storage."""

    data: bytes
    keys: pa.RecordBatch


class Export(ABC):
    """All records of a dataset in a wire format, from one snapshot."""

    @abstractmethod
    def greatest(self, field: str) -> pa.RecordBatch:
        """One record with the greatest value of a field, in neutral storage; NULL: there is none.

        Before `pieces`. Raises LoadRefused where it has no neutral form.
        """

    @abstractmethod
    def pieces(self) -> Iterator[ExportPiece]:
        """The export from its first byte to its last, once.

        Raises LoadRefused where a value has no exact form, or a key none that is seen.
        """


class DigestsRefused(Exception):
    """A dataset cannot be compared by digests; it is compared by reading.

    reason: a clause for people, without a value of a record ("the key field 'b' may be empty").
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


Key = tuple[Any, ...]
"""The values of a key's fields, as Arrow's `to_pylist` gives them."""


@dataclass(frozen=True, slots=True)
class KeySpan:
    """Half open range [lower, upper) of keys; None is open-ended.

    Keys are ordered field by field: numbers and times by value, texts by their UTF-8 bytes,
    whatever their collation, so that every platform puts a key into the same span.
    """

    lower: Key | None = None
    upper: Key | None = None


@dataclass(frozen=True, slots=True)
class DigestField:
    """A field that takes part, and the form of its text (`digests.Form`) that both sides agreed on.

    Of a key field the form says nothing; its type decides its order.
    """

    name: str
    form: str = ""


@dataclass(frozen=True, slots=True)
class DigestRequest:
    """What to take digests of.

    key:    the fields that order the records and cut them into spans. None may be NULL;
    fields: what is compared, in an order that both sides share;
    lag:    a cursor field and a moment of it: records that lie after it are told apart by
            `row_digests`, because transactions that began before may still be open.
    """

    dataset: DatasetSchema
    key: tuple[str, ...]
    fields: tuple[DigestField, ...]
    lag: CursorWindow | None = None


@dataclass(frozen=True, slots=True)
class SpanDigest:
    """The records of a span: how many, and two independent sums of their digests.

    A record's digest is the MD5 of its encoding (`digests`): `first` sums the first 64 bits of
    each, `second` the last 64, both modulo 2^64. Sums, unlike XOR, do not cancel duplicates.
    """

    rows: int = 0
    first: int = 0
    second: int = 0


class DigestSession(ABC):
    """Digests of one dataset, computed where it is stored, over one connection.

    snapshot: names the snapshot that all answers come from; empty where the source has none, so
    that answers may come from different moments;
    indexed:  whether the source finds a span through an index. Where not, each call that names
    spans reads the whole dataset once, however many spans it names.

    Every call is one statement, so it costs a few round trips, not some per span.
    """

    snapshot: str = ""
    indexed: bool = True

    @abstractmethod
    def __enter__(self) -> DigestSession:
        """Raises DigestsRefused where the dataset or server does not suit."""

    @abstractmethod
    def __exit__(self, *exc_info: object) -> None: ...

    @abstractmethod
    def ping(self) -> None:
        """A statement that costs nothing but its round trips."""

    @abstractmethod
    def count(self) -> int:
        """Exact number of records."""

    @abstractmethod
    def sample_bounds(
        self, spans: Sequence[KeySpan], parts: int, share: float
    ) -> list[tuple[Key, ...]]:
        """Per span up to `parts - 1` ascending keys that cut its records into equal shares.

        They are quantiles of a random sample of that share (0 to 1] of the records, so gaps and
        skew do no harm.
        """

    @abstractmethod
    def digests(self, spans: Sequence[KeySpan]) -> list[SpanDigest]:
        """The digest of each span. `spans` are ascending and do not overlap.

        Raises DigestsRefused when a record has no digest (its encoding is too large).
        """

    @abstractmethod
    def row_digests(self, spans: Sequence[KeySpan]) -> Iterator[pa.RecordBatch]:
        """The records of the spans, in no particular order.

        Columns: the key fields in neutral storage, `digest` (binary, 16 bytes; NULL where there
        is none) and `young` (bool; after the request's lag).
        """

    @abstractmethod
    def read_sample(self, limit: int) -> tuple[int, int]:
        """Read that many records with all fields: how many came, and their bytes."""

    @abstractmethod
    def digest_sample(self, limit: int) -> int:
        """Take the digest of that many records: how many there were."""


S = TypeVar("S", bound=ConnectorSettings)


class Connector(ABC, Generic[S]):
    """One kind of source. Subclasses set the class variables and implement the operations."""

    name: ClassVar[str]
    label: ClassVar[str]
    settings_model: ClassVar[type[ConnectorSettings]]
    capabilities: Capabilities
    """Of a class: what it can do at most. Of a connector: what it can do with its settings."""

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

    def split(self, dataset: DatasetSchema, key: Sequence[str], parts: int) -> KeyBounds:
        """Up to `parts - 1` bounds that cut the dataset into ranges of about equal numbers of rows.

        They are quantiles of a sample, so gaps and skew do no harm. With one part it only says
        whether the key can be cut. Only where `capabilities.key_ranges`, for a key of one
        integer, or `capabilities.key_spans`. Raises DigestsRefused where this source does not
        order the key as others do.
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

    def load_session(
        self,
        dataset: DatasetSchema,
        fields: Sequence[str],
        *,
        lock: str,
        lease_seconds: Callable[[], float],
    ) -> AbstractContextManager[LoadSession]:
        """Begin to fill an empty dataset with these fields. `lock` and `lease_seconds` as for
        `write_session`; statement deadlines follow the lease while it is renewed. Only where
        `capabilities.load`.
        """
        raise NotImplementedError(f"{self.name} cannot load")

    def export(
        self, dataset: DatasetSchema, fields: Sequence[str], wire: WireFormat, *, key: Sequence[str]
    ) -> AbstractContextManager[Export]:
        """All records with these fields, in the order of `wire.columns`, cast to them.

        key: the first of the fields. Raises LoadRefused where a value might not come out as it
        is, or a key might not be seen. Only for formats in `capabilities.exports`.
        """
        raise NotImplementedError(f"{self.name} cannot export")

    def digest_forms(self, field: FieldSchema) -> tuple[str, ...]:
        """The forms (`digests.Form`) that the text of a field's values can have, best first.

        None: the field cannot be compared by digests. Only where `capabilities.checksum`.
        """
        return ()

    def digest_session(self, request: DigestRequest) -> AbstractContextManager[DigestSession]:
        """Begin to take digests. Only where `capabilities.checksum`."""
        raise NotImplementedError(f"{self.name} cannot take digests")

    def create_dataset(self, schema: DatasetSchema) -> None:
        """Create a dataset with these fields (by neutral type) and key.

        Raises ConfigurationError if it exists. Only where `capabilities.create_dataset`.
        """
        raise NotImplementedError(f"{self.name} cannot create datasets")
