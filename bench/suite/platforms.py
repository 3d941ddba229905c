"""The scene of the suite: databases, a warm worker, rules, and what resets them between pairs."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pymysql

from bench.memory import PeakMemory
from bench.scene import SERVER, Scene, database_url, finish
from bench.suite.measuring import Timed

WARM_SECONDS = 5


@dataclass
class Platform:
    """What the jobs of one scene share."""

    made: Scene
    mariadb: dict[str, Any]
    worker: subprocess.Popen[bytes] | None = None
    flame_graphs: Path | None = None  # where to keep one of each run
    sources: dict[str, Any] = field(default_factory=dict)

    def start(self) -> None:
        """A worker that is warm, and a beat."""
        self.made.start_beat()
        self.worker = self.made.start_worker()
        time.sleep(WARM_SECONDS)

    def source(self, role: str) -> Any:
        """The source of a role (left, right, mariadb), its tables discovered anew."""
        from apps.sources.models import Source
        from apps.sources.services import discover, save_source

        if role not in self.sources:
            connector = "mysql" if role == "mariadb" else "postgresql"
            made = Source(name=role, connector=connector)
            self.sources[role] = save_source(made, self._settings(role), actor=None)
        discover(self.sources[role], actor=None)
        return self.sources[role]

    def _settings(self, role: str) -> dict[str, Any]:
        if role == "mariadb":
            return self.mariadb
        parts = urlsplit(SERVER)
        return {
            "host": parts.hostname or "127.0.0.1",
            "port": parts.port or 5432,
            "user": parts.username or "postgres",
            "password": parts.password or "",
            "database": self.made.left if role == "left" else self.made.right,
        }

    def rule(
        self,
        name: str,
        left: tuple[str, str],
        right: tuple[str, str],
        fields: Mapping[str, str],
        expressions: Mapping[str, str] | None = None,
        checks: tuple[Any, ...] = (),
        **facts: Any,
    ) -> Any:
        """A rule between two tables (source role, table); fields: right field -> left field."""
        from apps.engine.spec import FieldMappingSpec
        from apps.mappings.models import Mapping as FieldMapping
        from apps.mappings.services import save_mapping
        from apps.rules.models import Rule
        from apps.rules.services import save_rule

        texts = expressions or {}
        specs = [
            FieldMappingSpec(right=own, to_right=texts[own])
            if own in texts
            else FieldMappingSpec(right=own, left=other)
            for own, other in fields.items()
        ]
        datasets = [self.source(role).datasets.get(name=table) for role, table in (left, right)]
        mapping = FieldMapping(name=name, left=datasets[0], right=datasets[1])
        key = next(own for own, other in fields.items() if other == "id")
        save_mapping(mapping, specs, [key], actor=None)
        rule = Rule(name=name, mapping=mapping, **facts)
        save_rule(rule, checks, actor=None)
        return rule

    def timed(self, rule: Any, **options: Any) -> Timed:
        """One run from request to done."""
        from apps.runs.selectors import run_phases
        from apps.runs.services import request_run

        assert self.worker is not None
        with self._recorded(rule.name), PeakMemory(self.worker.pid) as memory:
            began = time.monotonic()
            run = finish(request_run(rule, actor=None, **options), poll_seconds=0.01)
            seconds = time.monotonic() - began
        if run.status not in ("succeeded", "planned"):
            raise SystemExit(f"{run.status}: {run.cause} {run.remedy}")
        phases = {phase.name: round(phase.seconds or 0, 2) for phase in run_phases(run)}
        return Timed(seconds, memory.peak_mb, {**phases, "lane": run.lane})

    @contextmanager
    def _recorded(self, name: str) -> Iterator[None]:
        """A flame graph of the worker and its processes while the body goes on, if wanted."""
        if self.flame_graphs is None or self.worker is None:
            yield
            return
        self.flame_graphs.mkdir(parents=True, exist_ok=True)
        picture = self.flame_graphs / f"{name.replace(' ', '-')}.svg"
        recorder = subprocess.Popen(
            [
                "py-spy", "record", "--subprocesses", "--rate", "200", "--nonblocking",
                "--pid", str(self.worker.pid), "--output", str(picture),
            ],
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        time.sleep(1)
        try:
            yield
        finally:
            recorder.send_signal(signal.SIGINT)
            recorder.wait()

    def forget(self, rule: Any) -> None:
        """The rule has never run: its links, history and checkpoint are gone."""
        from apps.ledger.services import forget_rule
        from apps.runs.models import Checkpoint, Run

        forget_rule(rule.pk)
        Checkpoint.objects.filter(rule=rule).delete()
        Run.objects.filter(rule=rule).delete()

    def retire(self) -> None:
        """Remove the rules of earlier jobs, which keep the same tables in step."""
        from apps.rules.models import Rule

        for rule in Rule.objects.all():
            self.forget(rule)
            rule.delete()

    def on(self, role: str, *statements: str) -> None:
        """Run statements on the left or the right database."""
        name = self.made.left if role == "left" else self.made.right
        with psycopg.connect(database_url(name), autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement)

    def on_mariadb(self, *statements: str) -> None:
        with pymysql.connect(**self.mariadb, autocommit=True) as connection:
            for statement in statements:
                connection.cursor().execute(statement)

    def settle_down(self) -> None:
        """Let the servers write out what earlier measurements left in their buffers."""
        self.on("left", "CHECKPOINT")


def seconds(work: Callable[[], Any]) -> float:
    began = time.monotonic()
    work()
    return time.monotonic() - began


def pipe(first: list[str], second: list[str]) -> None:
    """`first | second`; both must succeed."""
    out = subprocess.Popen(first, stdout=subprocess.PIPE)
    subprocess.run(second, stdin=out.stdout, check=True, stdout=subprocess.DEVNULL)
    if out.wait():
        raise SystemExit(f"{first[0]} failed")


def psql(database: str, *commands: str) -> list[str]:
    command = ["psql", "-qX", "-v", "ON_ERROR_STOP=1", database_url(database)]
    for text in commands:
        command += ["-c", text]
    return command
