"""Run a program in a disposable child process that a hostile expression can only harm itself.

DuckDB's own limits do not hold against every expression, so the child has hard limits of the
operating system: address space, processor time, no files to write, no environment, and it dies
with its parent. Each batch has a time-out. A child that dies or exceeds it is replaced and the
batch halved, until the single records that are to blame are found; they become rejections.

Frames on the pipes are a kind of one byte, a length of eight bytes (little endian), and the
payload: JSON or an Arrow IPC stream.
"""

from __future__ import annotations

import json
import os
import select
import struct
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import Self

import pyarrow as pa

from apps.connectors.errors import SandboxDied
from apps.engine.execution import left_texts, merged, nothing_but, without_numbers
from apps.engine.program import ROW, RecordRejection, Transformed, TransformProgram
from apps.engine.sandbox_spawning import SpawnFailed, spawn

HEADER = struct.Struct("<cQ")
START, LOOKUP, BATCH, OUTCOME, RECORDS, LEFT_OUT, READY = (
    b"S", b"L", b"B", b"O", b"R", b"K", b"Y"
)  # fmt: skip
EXPRESSION_DIED = "expression.died"


@dataclass(frozen=True, slots=True)
class Limits:
    """What one child may use.

    memory_mb: address space beyond what the libraries need (some 700 MB);
    duckdb_memory_mb: DuckDB's own limit; batch_seconds: wall clock and processor time per batch;
    start_seconds: until the child is ready; deaths: records that may kill it before it is enough.
    """

    memory_mb: int = 1_024
    duckdb_memory_mb: int = 384
    threads: int = 1
    batch_seconds: float = 30.0
    start_seconds: float = 30.0
    deaths: int = 20
    answer_mb: int = 1_024


class _ChildLost(Exception):
    """The child died, stopped answering or answered nonsense."""


class Sandbox:
    """A child process for one program. Not for two threads at once.

    lookups: by name, tables with text columns `key` and `value`.
    Raises SandboxDied when the child cannot start, or when too many records kill it.
    """

    def __init__(
        self,
        program: TransformProgram,
        lookups: Mapping[str, pa.Table] | None = None,
        limits: Limits | None = None,
    ) -> None:
        self.program = program
        self.lookups = {name: (lookups or {})[name] for name in program.lookups}
        self.limits = limits or Limits()
        self._child: _Child | None = None
        self._deaths = 0

    def __enter__(self) -> Self:
        self._started()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the child; the next `run` would start another."""
        if self._child is not None:
            self._child.end()
            self._child = None

    def run(self, batch: pa.RecordBatch) -> Transformed:
        """Transform one batch. Raises SandboxDied."""
        number = [ROW] if ROW in batch.schema.names else []
        batch = batch.select([*self.program.left_fields, *number])
        return self._run(batch, self.limits.batch_seconds)

    def _run(self, batch: pa.RecordBatch, seconds: float) -> Transformed:
        try:
            return self._started().transform(batch, seconds)
        except _ChildLost as loss:
            self.close()
            if batch.num_rows <= 1:
                return self._buried(batch, str(loss))
        half = batch.num_rows // 2
        less = max(seconds / 2, min(1.0, self.limits.batch_seconds))
        parts = [self._run(batch.slice(0, half), less), self._run(batch.slice(half), less)]
        return merged(parts)

    def _started(self) -> _Child:
        if self._child is None:
            try:
                self._child = _Child(self.program, self.lookups, self.limits)
            except _ChildLost as loss:
                raise SandboxDied(f"the sandbox did not start: {loss}") from None
        return self._child

    def _buried(self, batch: pa.RecordBatch, reason: str) -> Transformed:
        self._deaths += 1
        if self._deaths > self.limits.deaths or not batch.num_rows:
            raise SandboxDied(f"the expressions fail on record after record: {reason}")
        record = left_texts(batch, self.program)[0]
        rejection = RecordRejection(
            left_key=self.program.left_key_of(record),
            right_key=None,
            code=EXPRESSION_DIED,
            message=f"the expressions could not finish on this record: {reason}",
            record=record,
            row=batch.column(ROW)[0].as_py() if ROW in batch.schema.names else None,
        )
        outcome = nothing_but(self.program, [rejection])
        return outcome if ROW in batch.schema.names else without_numbers(outcome)


class _Child:
    """One process and the conversation with it. Every failure is a _ChildLost."""

    def __init__(
        self, program: TransformProgram, lookups: Mapping[str, pa.Table], limits: Limits
    ) -> None:
        self.program = program
        self.most = limits.answer_mb * 1_048_576
        try:
            self.process = spawn(limits.start_seconds)
        except SpawnFailed as error:
            raise _ChildLost(str(error)) from None
        self.to_child, self.from_child = self.process.to_child, self.process.from_child
        try:
            self._greet(lookups, limits)
        except BaseException:
            self.end()
            raise

    def _greet(self, lookups: Mapping[str, pa.Table], limits: Limits) -> None:
        deadline = time.monotonic() + limits.start_seconds
        start = {
            "program": self.program.to_json(),
            "limits": asdict(limits),
            "lookups": list(lookups),
        }
        self._send(START, json.dumps(start).encode(), deadline)
        for table in lookups.values():
            self._send(LOOKUP, to_ipc(table.select(["key", "value"])), deadline)
        self._receive(READY, deadline)

    def transform(self, batch: pa.RecordBatch, seconds: float) -> Transformed:
        deadline = time.monotonic() + seconds
        self._send(BATCH, to_ipc(pa.Table.from_batches([batch])), deadline)
        outcome = json.loads(self._receive(OUTCOME, deadline))
        records = from_ipc(self._receive(RECORDS, deadline))
        left_out = from_ipc(self._receive(LEFT_OUT, deadline))
        return Transformed(
            records=records,
            rejected=[RecordRejection(**item) for item in outcome["rejected"]],
            warnings=outcome["warnings"],
            stops=[RecordRejection(**item) for item in outcome["stops"]],
            left_out=left_out,
        )

    def end(self) -> None:
        self.process.end()

    def _send(self, kind: bytes, payload: bytes, deadline: float) -> None:
        for part in (HEADER.pack(kind, len(payload)), payload):
            view = memoryview(part)
            while view:
                self._wait(self.to_child, select.POLLOUT, deadline)
                try:
                    view = view[os.write(self.to_child, view[:1_048_576]) :]
                except BlockingIOError:
                    continue
                except OSError:
                    raise _ChildLost(self._epitaph()) from None

    def _receive(self, kind: bytes, deadline: float) -> bytes:
        got, length = HEADER.unpack(self._read(HEADER.size, deadline))
        if got != kind or length > self.most:
            raise _ChildLost("the sandbox gave an answer that is no answer")
        return self._read(length, deadline)

    def _read(self, length: int, deadline: float) -> bytes:
        data = bytearray()
        while len(data) < length:
            self._wait(self.from_child, select.POLLIN, deadline)
            try:
                part = os.read(self.from_child, min(length - len(data), 1_048_576))
            except BlockingIOError:
                continue
            if not part:
                raise _ChildLost(self._epitaph())
            data += part
        return bytes(data)

    def _wait(self, descriptor: int, event: int, deadline: float) -> None:
        left = deadline - time.monotonic()
        poll = select.poll()
        poll.register(descriptor, event)
        if left <= 0 or not poll.poll(left * 1000):
            raise _ChildLost("they took too long")

    def _epitaph(self) -> str:
        """How the child ended, in words."""
        status = self.process.status(seconds=2)
        if status is None:
            return "the sandbox closed its pipes"
        return _ENDINGS.get(status, f"the sandbox ended with status {status}")


_ENDINGS = {
    3: "they used too much memory",
    -6: "they used too much memory",
    -9: "the sandbox was killed",
    -24: "they used too much processor time",
    -25: "they tried to write a file",
}


def to_ipc(table: pa.Table) -> bytes:
    """A table as an Arrow IPC stream."""
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(use_threads=False)
    with pa.ipc.new_stream(sink, table.schema, options=options) as writer:
        writer.write_table(table)
    data: bytes = sink.getvalue().to_pybytes()
    return data


def from_ipc(data: bytes) -> pa.Table:
    """The table of an Arrow IPC stream."""
    options = pa.ipc.IpcReadOptions(use_threads=False)
    with pa.ipc.open_stream(pa.py_buffer(data), options=options) as reader:
        return reader.read_all()
