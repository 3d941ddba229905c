"""The child process of `sandbox`: limits itself, then transforms batches until its input ends.

Forked by `sandbox_server`. It speaks the frames of `sandbox` on its standard input and output, and
leaves with status 3 when memory runs out.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
from dataclasses import asdict
from typing import Any, BinaryIO

import duckdb
import pyarrow as pa

from apps.engine.execution import Runner
from apps.engine.program import TransformProgram
from apps.engine.sandbox import (
    BATCH,
    HEADER,
    LEFT_OUT,
    LOOKUP,
    OUTCOME,
    READY,
    RECORDS,
    START,
    from_ipc,
    to_ipc,
)

OUT_OF_MEMORY = 3
PR_SET_PDEATHSIG = 1
PR_SET_NO_NEW_PRIVS = 38
LIBRARY_MB = 700


def die_with_parent(parent: int) -> None:
    """Be killed when the parent dies; leave at once if it is dead already."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(0)


def limit_memory(memory_mb: int) -> None:
    """Bound the address space, and forbid core dumps and files."""
    size = (LIBRARY_MB + memory_mb) * 1_048_576
    resource.setrlimit(resource.RLIMIT_AS, (size, size))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


def limit_reach() -> None:
    """No more descriptors, processes or threads than there are now."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (16, 16))
    resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))


def limit_time(seconds: float) -> None:
    """So much processor time from now on."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    soft = int(used.ru_utime + used.ru_stime + seconds) + 2
    resource.setrlimit(resource.RLIMIT_CPU, (soft, resource.RLIM_INFINITY))


def read_frame(stream: BinaryIO, kind: bytes) -> bytes | None:
    """The payload of the next frame, None at the end of the input."""
    header = stream.read(HEADER.size)
    if len(header) < HEADER.size:
        return None
    got, length = HEADER.unpack(header)
    if got != kind:
        raise ValueError(f"expected a frame {kind!r}, got {got!r}")
    return stream.read(length)


def write_frame(stream: BinaryIO, kind: bytes, payload: bytes) -> None:
    stream.write(HEADER.pack(kind, len(payload)))
    stream.write(payload)
    stream.flush()


def serve(requests: BinaryIO, answers: BinaryIO) -> None:
    """Read the program and its lookups, then answer batches."""
    start = read_frame(requests, START)
    if start is None:
        return
    settings: dict[str, Any] = json.loads(start)
    limits = settings["limits"]
    limit_memory(limits["memory_mb"])
    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    lookups = {}
    for name in settings["lookups"]:
        lookups[name] = from_ipc(read_frame(requests, LOOKUP) or b"")
    program = TransformProgram.from_json(settings["program"])
    with Runner(
        program, lookups, memory_mb=limits["duckdb_memory_mb"], threads=limits["threads"]
    ) as runner:
        runner.run(_empty_batch(program))
        limit_reach()
        write_frame(answers, READY, b"")
        while (payload := read_frame(requests, BATCH)) is not None:
            limit_time(limits["batch_seconds"])
            answer(runner, from_ipc(payload), answers)


def answer(runner: Runner, table: pa.Table, answers: BinaryIO) -> None:
    """Transform one batch and send its outcome."""
    batches = table.combine_chunks().to_batches() or [_empty_batch(runner.program)]
    outcome = runner.run(batches[0])
    summary = {
        "rejected": [asdict(rejection) for rejection in outcome.rejected],
        "stops": [asdict(stop) for stop in outcome.stops],
        "warnings": outcome.warnings,
    }
    write_frame(answers, OUTCOME, json.dumps(summary).encode())
    write_frame(answers, RECORDS, to_ipc(outcome.records))
    write_frame(answers, LEFT_OUT, to_ipc(outcome.left_out))


def _empty_batch(program: TransformProgram) -> pa.RecordBatch:
    schema = pa.schema([(column.name, column.neutral.arrow) for column in program.inputs])
    return pa.RecordBatch.from_pylist([], schema=schema)


def main(parent: int) -> None:
    """What a child does in its life. Never returns."""
    die_with_parent(parent)
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    try:
        serve(requests, answers)
    except (MemoryError, duckdb.OutOfMemoryException, pa.ArrowMemoryError):
        os._exit(OUT_OF_MEMORY)
    os._exit(0)
