"""What the SQL connectors share on the way in: names, sizes, keys, rejections, connection tests."""

from __future__ import annotations

import socket
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol, TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from apps.connectors.base import (
    CheckStep,
    DatasetSchema,
    FieldSchema,
    RawRejection,
    ReadBatch,
    ReadRequest,
    StepStatus,
)
from apps.connectors.errors import FieldMissing, LockstepError, Unreachable
from apps.connectors.outbound import Purpose, find_route, open_socket, require_sockets
from apps.connectors.sql_values import decode

T = TypeVar("T")

BATCH_BYTES = 32 * 1024 * 1024
KEYS_PER_QUERY = 5_000
_RAW_CHARACTERS = 10_000

Probe = Callable[[], str | CheckStep]
"""One step of a connection test: gives its message or itself, raises a LockstepError."""


class TlsMode(StrEnum):
    """How a connection is protected."""

    DISABLE = "disable"
    PREFER = "prefer"
    REQUIRE = "require"
    VERIFY_FULL = "verify-full"


def find_fields(current: DatasetSchema, names: Iterable[str]) -> list[FieldSchema]:
    """The named fields as they are now, in that order. Raises FieldMissing, naming all gone."""
    by_name = {field.name: field for field in current.fields}
    wanted = list(names)
    missing = [name for name in wanted if name not in by_name]
    if missing:
        listed = ", ".join(f"'{name}'" for name in missing)
        raise FieldMissing(f"the dataset has no field {listed}", where=current.name)
    return [by_name[name] for name in wanted]


def decode_batch(
    raw: Mapping[str, pa.Array],
    fields: Sequence[FieldSchema],
    *,
    key: Sequence[str],
    already_bad: Mapping[int, str] | None = None,
    ready: Collection[str] = (),
) -> ReadBatch:
    """Bring raw columns (named like the fields) into neutral storage, rejecting bad rows.

    already_bad: rows that are known to be unreadable, with the field that is the cause;
    ready: fields that the source gives in neutral storage, each of its values a valid one.
    """
    columns: list[pa.Array] = []
    bad: dict[int, str] = dict(already_bad or {})
    for field in fields:
        if field.name in ready:
            columns.append(raw[field.name])
            continue
        decoded = decode(raw[field.name], field.type)
        columns.append(decoded.values)
        for row in decoded.bad:
            bad.setdefault(row, field.name)
    arrow_schema = pa.schema([(field.name, field.type.arrow) for field in fields])
    records = pa.RecordBatch.from_arrays(columns, schema=arrow_schema)
    if not bad:
        return ReadBatch(records)
    types = {field.name: field for field in fields}
    rejected = tuple(_reject(records, raw, row, types[bad[row]], key=key) for row in sorted(bad))
    keep = pc.invert(pc.is_in(pa.array(range(len(records))), pa.array(sorted(bad), pa.int64())))
    return ReadBatch(records.filter(keep), rejected)


def _reject(
    records: pa.RecordBatch,
    raw: Mapping[str, pa.Array],
    row: int,
    field: FieldSchema,
    *,
    key: Sequence[str],
) -> RawRejection:
    known = set(records.schema.names)
    key_values: dict[str, Any] | None = None
    if key and set(key) <= known:
        key_values = {name: records.column(name)[row].as_py() for name in key}
        if any(value is None for value in key_values.values()):
            key_values = None
    position = (
        ", ".join(f"{name}={value}" for name, value in key_values.items())
        if key_values
        else "a record whose key could not be read"
    )
    text = "\n".join(f"{name}: {_raw_text(column[row])}" for name, column in raw.items())
    return RawRejection(
        position=position,
        code="record.malformed",
        message=f"the value is not a valid {field.type}",
        raw=text[:_RAW_CHARACTERS],
        key=key_values,
        field=field.name,
    )


def _raw_text(scalar: Any) -> str:
    try:
        return str(scalar.as_py())
    except (ValueError, OverflowError):
        return "a date or time outside the years 1 to 9999"


def requested_key_chunks(request: ReadRequest, current: DatasetSchema) -> Iterator[pa.Table]:
    """The distinct complete keys of a lookup, in chunks, in the storage of their fields' types.

    Keys that no record of such a type can have are left out.
    """
    if request.keys is None or request.keys.num_rows == 0:
        return
    fields = find_fields(current, request.keys.column_names)
    columns = {}
    usable = pa.array([True] * request.keys.num_rows)
    for field in fields:
        decoded = decode(request.keys.column(field.name), field.type)
        columns[field.name] = decoded.values
        usable = pc.and_(usable, pc.is_valid(decoded.values))
    table = pa.table(columns).filter(usable)
    table = table.group_by(table.column_names).aggregate([]).select(table.column_names)
    for start in range(0, table.num_rows, KEYS_PER_QUERY):
        yield table.slice(start, KEYS_PER_QUERY)


def run_steps(steps: Sequence[tuple[str, Probe]], *, secret: str = "") -> Iterator[CheckStep]:
    """Run the probes in order; after the first failure the rest are skipped. Never raises."""
    failed = False
    for name, probe in steps:
        if failed:
            yield CheckStep(name, StepStatus.SKIPPED, "An earlier step failed.")
            continue
        try:
            outcome = probe()
            if isinstance(outcome, str):
                outcome = CheckStep(name, StepStatus.OK, outcome)
            yield outcome
        except LockstepError as error:
            failed = True
            yield CheckStep(
                name, StepStatus.FAILED, without_secret(str(error), secret), error.remedy
            )
        except Exception as error:
            # A connection test that breaks must still say where.
            failed = True
            yield CheckStep(
                name,
                StepStatus.FAILED,
                f"This step failed unexpectedly ({type(error).__name__}).",
                LockstepError.default_remedy,
            )


class ServerSettings(Protocol):
    """What every server's settings tell of how to reach it."""

    @property
    def host(self) -> str: ...
    @property
    def port(self) -> int: ...
    @property
    def connect_timeout(self) -> int: ...
    @property
    def secret(self) -> str: ...


def check_server(
    purpose: Purpose,
    settings: ServerSettings,
    *,
    tls: Callable[[], str],
    sign_in: Probe,
    read: Probe,
    write: Probe,
) -> Iterator[CheckStep]:
    """Test the connection to a server: its address, the network, TLS, the user and its rights."""
    host, port, timeout = settings.host, settings.port, settings.connect_timeout
    address = (purpose, host, port)
    return run_steps(
        [
            ("resolve", lambda: unreachable(lambda: resolve_host(*address), host)),
            ("connect", lambda: unreachable(lambda: connect_host(*address, timeout), host)),
            ("tls", lambda: unreachable(tls, host)),
            ("sign_in", sign_in),
            ("read", read),
            ("write", write),
        ],
        secret=settings.secret,
    )


def without_secret(text: str, secret: str) -> str:
    """The text with the secret blotted out, should a driver ever repeat it."""
    return text.replace(secret, "•••") if secret else text


def unreachable(step: Callable[[], T], host: str) -> T:
    """Run a step on the network. Raises Unreachable with a remedy that fits what went wrong."""
    try:
        return step()
    except socket.gaierror:
        raise Unreachable(
            "the host name is not known",
            where=host,
            remedy="Check the spelling of the host, and the workers' name servers.",
        ) from None
    except FileNotFoundError:
        raise Unreachable("there is no such socket", where=host) from None
    except TimeoutError:
        raise Unreachable(
            "no answer in time",
            where=host,
            remedy="Check firewalls between the workers and the server, and the port.",
        ) from None
    except ConnectionRefusedError:
        raise Unreachable(
            "nothing listens on this port",
            where=host,
            remedy="Check the port, and that the server is up and listens on this address.",
        ) from None
    except OSError as error:
        raise Unreachable(error.strerror or type(error).__name__, where=host) from None


def resolve_host(purpose: Purpose, host: str, port: int) -> str:
    """Look a host name up. Raises OutboundRefused, OSError."""
    if is_socket(host):
        require_sockets(host)
        if not Path(host).exists():
            raise FileNotFoundError(host)
        return f"The socket directory {host} exists."
    addresses = find_route(purpose, host, port).addresses
    return f"{host} is {', '.join(sorted(addresses))}."


def connect_host(purpose: Purpose, host: str, port: int, timeout: float) -> str:
    """Open and close a plain connection. Raises OutboundRefused, OSError."""
    if is_socket(host):
        return "A local socket needs no network."
    open_socket(find_route(purpose, host, port), timeout).close()
    return f"{host} answers on port {port}."


def is_socket(host: str) -> bool:
    """Whether this is the path of a socket, or its name in the abstract namespace."""
    return host.startswith(("/", "@"))
