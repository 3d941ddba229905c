"""The sandbox: same results as in this process, and nothing of the child's troubles outside."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from apps.connectors.errors import SandboxDied
from apps.engine.execution import Runner
from apps.engine.sandbox import Limits, Sandbox
from apps.engine.sandbox_spawning import ROOT
from apps.engine.spec import CheckSpec, RuleSpec
from apps.engine.transform import compile_transform
from tests.engine.specs import batch_of, dataset, mapped
from tests.memory import peak_mib

LEFT = dataset("l", id="integer", name="text", v="text")
RIGHT = dataset("r", id="integer", name="text", v="text")
SMALL = Limits(memory_mb=300, duckdb_memory_mb=200, batch_seconds=2)


def program_of(expression: str, rule: RuleSpec | None = None):
    mapping = mapped(LEFT, RIGHT, "id", "name", {"right": "v", "to_right": expression})
    return compile_transform(mapping, rule or RuleSpec(), lookups=["names"])


def rows(*names: str):
    return [{"id": place, "name": name, "v": "1"} for place, name in enumerate(names)]


def test_the_sandbox_gives_what_this_process_gives():
    rule = RuleSpec(
        filter="id < 8",
        checks=(
            CheckSpec(name="w", kind="set", field="name", values=("a",), severity="warn"),
            CheckSpec(name="s", kind="set", field="name", values=("a", "b", "5"), severity="stop"),
        ),
    )
    program = program_of("lookup('names', cast(name as integer))", rule)
    lookups = {"names": pa.table({"key": ["5"], "value": ["five"]})}
    batch = batch_of(program, rows("5", "x", "7", "5", "5", "5", "5", "5", "5", "5"))
    with Sandbox(program, lookups) as sandbox, Runner(program, lookups) as runner:
        here, there = runner.run(batch), sandbox.run(batch)
    assert there.records.sort_by("id").equals(here.records.sort_by("id"))
    assert there.left_out.sort_by("__left_key").equals(here.left_out.sort_by("__left_key"))
    assert there.rejected == here.rejected
    assert there.stops == here.stops
    assert there.warnings == here.warnings == {"w": 6}
    assert len(here.rejected) == len(here.stops) == 1


def test_many_batches_and_an_empty_one():
    program = program_of("upper(name)")
    with Sandbox(program) as sandbox:
        assert sandbox.run(batch_of(program, [])).records.num_rows == 0
        for _ in range(3):
            done = sandbox.run(batch_of(program, rows("a", "b")))
            assert done.records.column("v").to_pylist() == ["A", "B"]


def test_a_record_that_kills_the_child_is_rejected_and_the_others_pass():
    program = program_of("replace(replace(name, 'a', name), 'a', name)")
    names = ["x"] * 3 + ["a" * 20_000]
    limits = replace(SMALL, batch_seconds=20)
    with Sandbox(program, limits=limits) as sandbox:
        done = sandbox.run(batch_of(program, rows(*names)))
    assert sorted(done.records.column("id").to_pylist()) == [0, 1, 2]
    assert [(r.code, r.left_key) for r in done.rejected] == [("expression.died", '["3"]')]
    assert done.rejected[0].record["id"] == "3"
    assert "memory" in done.rejected[0].message


def test_a_record_that_takes_too_long_is_rejected():
    program = program_of("cast(levenshtein(name, reverse(name)) as text)")
    limits = Limits(batch_seconds=0.5)
    names = ["x", "ab" * 100_000]
    with Sandbox(program, limits=limits) as sandbox:
        start = time.monotonic()
        done = sandbox.run(batch_of(program, rows(*names)))
        assert time.monotonic() - start < 30
    assert [(r.code, r.record["id"]) for r in done.rejected] == [("expression.died", "1")]
    assert done.records.column("id").to_pylist() == [0]


def test_too_many_deadly_records_are_a_fault_of_the_expression():
    program = program_of("replace(replace(name, 'a', name), 'a', name)")
    limits = Limits(memory_mb=300, duckdb_memory_mb=200, deaths=0)
    batch = batch_of(program, rows(*["a" * 20_000] * 2))
    with pytest.raises(SandboxDied), Sandbox(program, limits=limits) as sandbox:
        sandbox.run(batch)


HURTFUL = [
    ("regexp_replace(name, '', name, 'g')", "a" * 100_000),
    ("regexp_extract(name, '(a+)+b')", "a" * 100_000),
    ("cast(regexp_matches(name, '(a|aa)+$') as text)", "a" * 100_000),
    ("cast(regexp_full_match(name, '(x+x+)+y') as text)", "x" * 100_000),
    ("concat(" + ", ".join(["name"] * 70) + ")", "a" * 8_000_000),
    ("regexp_extract(name, name)", "((a{1,100}){1,100}){1,100}"),
    ("json_extract_string(name, '$" + ".a" * 500 + "')", "[" * 200_000),
    ("json_extract_string(name, '$..*')", "[" * 50_000 + "]" * 50_000),
    ("cast(json_valid(name) as text)", '{"a":' * 200_000),
    ("strptime(name, '" + "%c" * 200 + "')::text", "x" * 10_000),
    ("cast(cast(name as decimal(38,10)) as text)", "9" * 1_000_000),
    ("cast(cast(name as timestamp) as text)", "9" * 1_000_000),
    ("url_encode(url_encode(url_encode(name)))", "%" * 8_000_000),
    ("chr(cast(name as integer))", "-1"),
    ("chr(cast(name as integer))", "55296"),
    ("substring(name, -9223372036854775807, 9223372036854775807)", "abc"),
    ("left(name, -9223372036854775807)", "abc"),
    ("cast(pow(10, cast(name as integer)) as text)", "100000"),
    ("cast(cast(name as bigint) * cast(name as bigint) as text)", "9223372036854775807"),
    ("cast(date '2024-01-01' + to_years(cast(name as integer)) as text)", "2147483647"),
    ("cast(-9223372036854775808 // cast(name as bigint) as text)", "-1"),
    ("cast(7 % cast(name as bigint) as text)", "0"),
    ("translate(name, name, name)", "abcdefgh" * 100_000),
    ("strip_accents(name)", "é" * 1_000_000),
    ("nfc_normalize(name)", "e" + "\u0301" * 1_000_000),
]


@pytest.fixture(scope="module")
def before():
    return peak_mib()


@pytest.mark.parametrize(("expression", "name"), HURTFUL, ids=lambda text: text[:30])
def test_what_an_expression_does_at_run_time_stays_in_the_child(expression, name, before):
    program = program_of(expression)
    with Sandbox(program, limits=SMALL) as sandbox:
        try:
            done = sandbox.run(batch_of(program, rows(name)))
        except SandboxDied:
            return
    assert done.records.num_rows + len(done.rejected) == 1
    assert peak_mib() - before < 1_500


def test_the_child_has_no_environment_of_ours(monkeypatch):
    monkeypatch.setenv("LOCKSTEP_SECRET", "hunter2")
    with Sandbox(program_of("name")) as sandbox:
        environment = Path(f"/proc/{sandbox._child.process.pid}/environ").read_bytes()
    assert b"hunter2" not in environment


def test_the_child_is_limited_by_the_operating_system():
    with Sandbox(program_of("name"), limits=SMALL) as sandbox:
        limits = Path(f"/proc/{sandbox._child.process.pid}/limits").read_text()
        files = os.listdir(f"/proc/{sandbox._child.process.pid}/fd")
    found = {line[:26].strip(): line[26:].split()[0] for line in limits.splitlines()}
    assert found["Max file size"] == "0"
    assert found["Max processes"] == "0"
    assert int(found["Max open files"]) <= 16
    assert int(found["Max address space"]) == 1_000 * 1_048_576
    assert len(files) <= 8


def test_the_child_ends_with_the_sandbox():
    with Sandbox(program_of("name")) as sandbox:
        child = sandbox._child.process.pid
        assert _runs(child)
    assert _ends(child)


def test_the_child_dies_with_its_parent():
    script = (
        "import sys, time\n"
        "from tests.engine.test_sandbox import program_of\n"
        "from apps.engine.sandbox import Sandbox\n"
        "box = Sandbox(program_of('name')).__enter__()\n"
        "print(box._child.process.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    assert _ends(child)


def _ends(pid: int) -> bool:
    """Whether a process ends within ten seconds."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and _runs(pid):
        time.sleep(0.05)
    return not _runs(pid)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split(") ")[1][0] != "Z"
    except FileNotFoundError:
        return False


def test_a_child_that_is_killed_between_batches_is_replaced():
    program = program_of("upper(name)")
    with Sandbox(program) as sandbox:
        os.kill(sandbox._child.process.pid, signal.SIGKILL)
        done = sandbox.run(batch_of(program, rows("a", "b", "c")))
    assert sorted(done.records.column("v").to_pylist()) == ["A", "B", "C"]


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[1])


def test_children_come_from_one_server_and_hold_nothing_of_each_other():
    with Sandbox(program_of("upper(name)")) as first, Sandbox(program_of("lower(name)")) as second:
        pids = [sandbox._child.process.pid for sandbox in (first, second)]
        assert _parent(pids[0]) == _parent(pids[1]) != os.getpid()
        files = [{os.readlink(f) for f in Path(f"/proc/{pid}/fd").iterdir()} for pid in pids]
        assert files[0] & files[1] <= {"/dev/null"}


def test_a_server_that_is_lost_is_replaced():
    program = program_of("upper(name)")
    with Sandbox(program) as sandbox:
        child = sandbox._child.process.pid
        server = _parent(child)
        os.kill(server, signal.SIGKILL)
        assert _ends(child)
        done = sandbox.run(batch_of(program, rows("a", "b")))
        assert _parent(sandbox._child.process.pid) != server
    assert done.records.column("v").to_pylist() == ["A", "B"]


def test_many_threads_at_once_get_a_child_each():
    program = program_of("upper(name)")

    def transformed(name: str) -> list[str]:
        with Sandbox(program) as sandbox:
            return sandbox.run(batch_of(program, rows(name))).records.column("v").to_pylist()

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(transformed, "abcdefghijkl")) == [[x] for x in "ABCDEFGHIJKL"]


def test_a_forked_process_has_a_server_of_its_own():
    with Sandbox(program_of("name")) as sandbox:
        server = _parent(sandbox._child.process.pid)
        told, tell = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                with Sandbox(program_of("name")) as other:
                    os.write(tell, str(_parent(other._child.process.pid)).encode())
            finally:
                os._exit(0)
        os.close(tell)
        with os.fdopen(told) as answer:
            other_server = int(answer.read())
        os.waitpid(pid, 0)
        assert other_server != server
        assert _ends(other_server)
        assert _runs(sandbox._child.process.pid)
