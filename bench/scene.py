"""The scene of a measurement: two PostgreSQL databases, a platform of its own, real workers.

Everything lives in scratch databases and a temporary folder, and is removed afterwards.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import psycopg
import redis
from psycopg import sql

SERVER = os.environ.get(
    "LOCKSTEP_TEST_POSTGRESQL_URL", "postgresql://postgres@127.0.0.1:5432/postgres"
)
RABBITMQ = os.environ.get("LOCKSTEP_TEST_RABBITMQ_URL", "amqp://guest:guest@127.0.0.1:5672//")
REDIS = os.environ.get("LOCKSTEP_TEST_REDIS_URL", "redis://127.0.0.1:6379/0")


@dataclass(frozen=True)
class Table:
    """A table that both databases have; `fill` makes the rows 1 to %(rows)s. Its key is `id`."""

    name: str
    ddl: str
    fill: str


CUSTOMERS = Table(
    "customers",
    """
    CREATE TABLE customers (
        id bigint PRIMARY KEY, token uuid NOT NULL, name text NOT NULL, email text,
        country char(2), balance numeric(12,2), score double precision, active boolean,
        born date, created_at timestamptz, updated_at timestamp, tags jsonb
    )
    """,
    """
    INSERT INTO customers SELECT n, md5(n::text)::uuid, 'Customer ' || n,
        CASE WHEN n % 10 = 0 THEN NULL ELSE 'c' || n || '@example.org' END,
        (ARRAY['DE','FR','US','JP','BR'])[1 + n % 5], (n % 100000) / 100.0, n * 0.37,
        n % 3 = 0, date '1950-01-01' + (n % 20000)::int,
        timestamptz '2026-01-01 00:00:00Z' + n * interval '1 second',
        timestamp '2026-01-01' + n * interval '1 millisecond',
        jsonb_build_object('tier', n % 4, 'tags', jsonb_build_array('a', n % 7))
    FROM generate_series(1, %(rows)s) AS n
    """,
)


@dataclass
class Scene:
    """Where things are; `environment` is what platform processes get."""

    folder: Path
    left: str
    right: str
    environment: dict[str, str]
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self, *command: str) -> subprocess.Popen[bytes]:
        """Start a platform process in a group of its own; its output goes to a file."""
        log = (self.folder / f"{command[-1]}.log").open("ab")
        process = subprocess.Popen(
            [sys.executable, "-m", *command],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        self.workers.append(process)
        return process

    def start_worker(self, *, processes: int = 2) -> subprocess.Popen[bytes]:
        number = str(processes)
        quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat"]
        return self.start("celery", "-A", "config", "worker", "-c", number, *quiet, "-l", "INFO")

    def start_beat(self) -> subprocess.Popen[bytes]:
        return self.start("celery", "-A", "config", "beat", "-l", "WARNING")

    def kill(self, process: subprocess.Popen[bytes], how: int = signal.SIGKILL) -> None:
        """Kill a process with all its children."""
        with suppress(ProcessLookupError):
            os.killpg(process.pid, how)
        process.wait()


def database_url(name: str) -> str:
    parts = urlsplit(SERVER)
    return urlunsplit(parts._replace(path=f"/{name}"))


@contextmanager
def scratch_databases(*roles: str) -> Iterator[dict[str, str]]:
    """New PostgreSQL databases by role, dropped afterwards."""
    tag = uuid.uuid4().hex[:8]
    names = {role: f"lockstep_bench_{role}_{tag}" for role in roles}
    with psycopg.connect(SERVER, autocommit=True) as server:
        for name in names.values():
            server.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        try:
            yield names
        finally:
            for name in names.values():
                drop = sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)")
                server.execute(drop.format(sql.Identifier(name)))


@contextmanager
def scratch_redis() -> Iterator[str]:
    """An unused database of the Redis server, emptied afterwards: queues are not shared."""
    for number in range(1, 16):
        url = urlunsplit(urlsplit(REDIS)._replace(path=f"/{number}"))
        client = redis.Redis.from_url(url)
        if client.dbsize() == 0 and client.set("lockstep-bench", os.getpid(), nx=True):
            try:
                yield url
            finally:
                client.flushdb()
            return
    raise SystemExit("all databases of the Redis server are in use")


@contextmanager
def scene(
    *,
    broker: str,
    platform: str,
    rows: int,
    table: Table = CUSTOMERS,
    both: bool = False,
    **settings: str,
) -> Iterator[Scene]:
    """A left database with the table and its rows, a right one with the table, and a platform.

    broker: embedded, redis or rabbitmq; platform: sqlite or postgresql; both: the right table has
    the same rows; settings: LOCKSTEP_….
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))  # everything is removed
    roles = ["left", "right"] + (["platform"] if platform == "postgresql" else [])
    with ExitStack() as stack:
        names = stack.enter_context(scratch_databases(*roles))
        folder = stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True))
        environment = {k: v for k, v in os.environ.items() if not k.startswith("LOCKSTEP_")}
        environment |= {
            "DJANGO_SETTINGS_MODULE": "config.settings",
            "LOCKSTEP_DATA_DIR": f"{folder}/data",
            "PYTHONPATH": str(Path(__file__).resolve().parent.parent),
            **{f"LOCKSTEP_{name.upper()}": value for name, value in settings.items()},
        }
        if platform == "postgresql":
            environment["DATABASE_URL"] = database_url(names["platform"])
        if broker == "rabbitmq":
            environment["BROKER_URL"] = RABBITMQ
        if broker == "redis":
            environment["REDIS_URL"] = stack.enter_context(scratch_redis())
        made = Scene(Path(folder), names["left"], names["right"], environment)
        _make_table(made.left, table, rows)
        _make_table(made.right, table, rows if both else 0)
        try:
            yield made
        finally:
            for process in made.workers:
                made.kill(process)


def _make_table(database: str, table: Table, rows: int) -> None:
    with psycopg.connect(database_url(database), autocommit=True) as connection:
        connection.execute(table.ddl)
        if rows:
            connection.execute(table.fill.replace("%(rows)s", str(int(rows))))
        connection.execute(f"ANALYZE {table.name}")


def digest(name: str, table: Table = CUSTOMERS) -> tuple[int, Any]:
    """Number of rows and an order-free checksum of the table."""
    query = f"SELECT count(*), sum(hashtextextended(t::text, 0)) FROM {table.name} AS t"
    with psycopg.connect(database_url(name)) as connection:
        row = connection.execute(query).fetchone()
        return (int(row[0]), row[1]) if row else (0, None)


def enter_platform(made: Scene) -> None:
    """Make this process one of the scene's platform: settings, migrations."""
    os.environ.update(made.environment)
    import django

    django.setup()
    from django.core.management import call_command

    call_command("migrate", verbosity=0)


def finish(run: Any, timeout: float = 3_600.0, *, poll_seconds: float = 0.1) -> Any:
    """Wait until workers have finished the run, or its plan waits for a person; returns it."""
    deadline = time.monotonic() + timeout
    while run.is_active and not run.is_waiting and time.monotonic() < deadline:
        time.sleep(poll_seconds)
        run.refresh_from_db()
    return run


def build_rule(
    made: Scene,
    table: Table = CUSTOMERS,
    policies: Mapping[str, str] | None = None,
    checks: Sequence[Any] = (),
    **facts: Any,
) -> Any:
    """Two sources and a rule that copies every field of the table.

    policies: of a two-way rule, by field; facts: of the rule.
    """
    from apps.engine.spec import FieldMappingSpec, FieldPolicy, FieldPolicySpec
    from apps.mappings.models import Mapping
    from apps.mappings.services import save_mapping
    from apps.rules.models import Rule
    from apps.rules.services import save_rule
    from apps.sources.models import Source
    from apps.sources.services import discover, save_source

    parts = urlsplit(SERVER)
    datasets = []
    for role, name in (("left", made.left), ("right", made.right)):
        values = {
            "host": parts.hostname or "127.0.0.1",
            "port": parts.port or 5432,
            "user": parts.username or "postgres",
            "password": parts.password or "",
            "database": name,
        }
        source = save_source(Source(name=role, connector="postgresql"), values, actor=None)
        discover(source, actor=None)
        datasets.append(source.datasets.get(name=table.name))
    mapping = Mapping(name=table.name, left=datasets[0], right=datasets[1])
    names = [field.name for field in datasets[0].fields.all()]
    fields = [FieldMappingSpec(right=name, left=name) for name in names]
    save_mapping(mapping, fields, ["id"], actor=None)
    rule = Rule(name=table.name, mapping=mapping, **facts)
    specs = [
        FieldPolicySpec(field=name, policy=FieldPolicy(policy))
        for name, policy in (policies or {}).items()
    ]
    save_rule(rule, checks, specs, actor=None)
    return rule
