"""Other tools at the same jobs, each in a virtual environment of its own, with its best settings.

`PEERS=1 make bench` installs those that the package registry has as runnable wheels, and runs them
in turn with ours. Telemetry is switched off. What cannot be installed is left out and named.
"""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from bench.scene import database_url
from bench.suite.platforms import Platform, psql, seconds

ROOT = Path(__file__).resolve().parents[2] / ".venv-peers"
PACKAGES: dict[str, tuple[str, ...]] = {
    "dlt": (
        "dlt[sql_database,postgres,parquet]==1.31.0", "connectorx==0.4.6", "psycopg2-binary",
        "pyarrow", "pymysql", "adbc-driver-postgresql", "adbc-driver-manager",
    ),
    "sling": ("sling==1.4.11", "sling-linux-amd64==1.4.11"),
    "ingestr": ("ingestr==0.15.9",),
    "reladiff": ("reladiff[postgresql]==0.6.0",),
}  # fmt: skip
QUIET = {
    "RUNTIME__DLTHUB_TELEMETRY": "false",
    "RUNTIME__LOG_LEVEL": "ERROR",
    "SLING_DISABLE_TELEMETRY": "true",
    "DISABLE_TELEMETRY": "true",
    "INGESTR_DISABLE_TELEMETRY": "true",
}
DLT_TUNED = {
    "NORMALIZE__WORKERS": "2",
    "LOAD__WORKERS": "4",
    "EXTRACT__DATA_WRITER__FILE_MAX_ITEMS": "250000",
    "NORMALIZE__DATA_WRITER__FILE_MAX_ITEMS": "250000",
    "EXTRACT__DATA_WRITER__BUFFER_MAX_ITEMS": "50000",
    "NORMALIZE__DATA_WRITER__BUFFER_MAX_ITEMS": "50000",
    "NORMALIZE__DATA_WRITER__DISABLE_COMPRESSION": "true",
}
_DLT = """
    import sys
    import dlt
    from dlt.sources.sql_database import sql_table
    source, target, how = sys.argv[1:4]
    more = {"incremental": dlt.sources.incremental("updated_at")} if how == "merge" else {}
    table = sql_table(
        credentials=source.replace("postgresql://", "postgresql+psycopg2://"),
        table="customers", schema="public", backend="connectorx", chunk_size=100_000,
        backend_kwargs={"conn": source, "return_type": "arrow_stream"}, **more,
    )
    table.apply_hints(primary_key="id")
    if target.startswith("mysql"):
        to = dlt.destinations.sqlalchemy(target)
    else:
        to = dlt.destinations.postgres(target)
    pipeline = dlt.pipeline(pipeline_name="bench_" + how, destination=to, dataset_name="peer_dlt")
    wish = {"disposition": "merge", "strategy": "delete-insert"} if how == "merge" else "replace"
    form = "csv" if how == "merge" else "parquet"
    options = {} if target.startswith("mysql") else {"loader_file_format": form}
    pipeline.run(table, write_disposition=wish, **options)
"""


def install(say: Callable[[str], None]) -> set[str]:
    """Install the peers that can be; returns their names."""
    there = set()
    for name, packages in PACKAGES.items():
        home = ROOT / name
        if not (home / "done").exists():
            say(f"Installing {name} ...")
            subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
            pip = [str(home / "bin/pip"), "install", "-q", *packages]
            if subprocess.run(pip, check=False).returncode:
                say(f"{name} cannot be installed here and is left out")
                continue
            (home / "done").touch()
        there.add(name)
    return there


@dataclass
class Peers:
    """The peers at hand, by job."""

    platform: Platform
    names: set[str] = field(default_factory=set)

    def of(self, job: str) -> dict[str, Callable[[], float]]:
        """What a job's peers take, in seconds of their whole process, by name."""
        makers: dict[str, dict[str, Callable[[], list[str]]]] = {
            "full": {
                "dlt": lambda: self._dlt("replace"),
                "sling": lambda: self._sling("full-refresh", self._postgres_target()),
                "ingestr": lambda: self._ingestr("replace", self._postgres_target()),
            },
            "mariadb": {
                "dlt": lambda: self._dlt("replace", self._mariadb_target(dlt=True)),
                "sling": lambda: self._sling("full-refresh", self._mariadb_target()),
            },
            "incremental": {
                "dlt": lambda: self._dlt("merge"),
                "sling": lambda: self._sling("incremental", self._postgres_target()),
                "ingestr": lambda: self._ingestr("merge", self._postgres_target()),
            },
            "differences": {
                "reladiff": lambda: self._reladiff(),
                "reladiff (tuned)": lambda: self._reladiff(
                    "-j", "4", "--bisection-factor", "64", "--bisection-threshold", "60000",
                    "--assume-unique-key",
                ),
            },
        }  # fmt: skip
        found = makers.get(job, {})
        return {
            name: self._timer(command)
            for name, command in found.items()
            if name.partition(" ")[0] in self.names
        }

    def begin_incremental(self) -> None:
        """Each peer's own target holds all records before the edits come."""
        for peer in self.of("incremental").values():
            peer()

    def begin_differences(self) -> None:
        """reladiff compares columns of the same names."""
        if "reladiff" in self.names:
            columns = "client_id AS id, full_name AS name, mail AS email, amount AS balance"
            self.platform.on(
                "right", f"CREATE OR REPLACE VIEW as_customers AS SELECT {columns} FROM clients"
            )

    def _timer(self, command: Callable[[], list[str]]) -> Callable[[], float]:
        def run() -> float:
            made = command()
            return seconds(lambda: subprocess.run(
                made, check=True, env=self._environment(),
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            ))  # fmt: skip

        return run

    def _environment(self) -> dict[str, str]:
        folder = self.platform.made.folder
        binary = next(ROOT.glob("sling/lib/*/site-packages/sling_linux_amd64/bin/*"), None)
        return {
            **os.environ, **QUIET, **DLT_TUNED,
            "HOME": str(folder),
            "DLT_DATA_DIR": str(folder / "dlt"),
            "SLING_BINARY": str(binary or ""),
            "SRC": self._source(), "DST": self._postgres_target(), "MY": self._mariadb_target(),
        }  # fmt: skip

    def _source(self) -> str:
        return database_url(self.platform.made.left).replace("postgresql:", "postgres:") + _NO_TLS

    def _postgres_target(self) -> str:
        return database_url(self.platform.made.right).replace("postgresql:", "postgres:") + _NO_TLS

    def _mariadb_target(self, *, dlt: bool = False) -> str:
        values = self.platform.mariadb
        secret = f":{values['password']}" if values.get("password") else ""
        kind = "mysql+pymysql" if dlt else "mysql"
        where = f"{values['user']}{secret}@{values['host']}:{values['port']}"
        return f"{kind}://{where}/{values['database']}"

    def _dlt(self, how: str, target: str = "") -> list[str]:
        made = self.platform.made
        to = target or database_url(made.right)
        program = textwrap.dedent(_DLT)
        return [str(ROOT / "dlt/bin/python"), "-c", program, database_url(made.left), to, how]

    def _sling(self, mode: str, target: str) -> list[str]:
        to = "MY" if target.startswith("mysql") else "DST"
        own = f"{self.platform.mariadb['database']}.peer_sling" if to == "MY" else "peer.sling"
        keys = ["--primary-key", "id", *(["--update-key", "updated_at"] if mode[0] == "i" else [])]
        return [
            str(ROOT / "sling/bin/sling"), "run", "--src-conn", "SRC", "--src-stream",
            "public.customers", "--tgt-conn", to, "--tgt-object", own, "--mode", mode, *keys,
        ]  # fmt: skip

    def _ingestr(self, strategy: str, target: str) -> list[str]:
        since = self._last_seen() if strategy == "merge" else ""
        return [
            str(ROOT / "ingestr/bin/ingestr"), "ingest", "--source-uri", self._source(),
            "--source-table", "public.customers", "--columns", "token:string", "--dest-uri",
            target, "--dest-table", "peer.ingestr", "--incremental-strategy", strategy,
            "--primary-key", "id", "--yes",
            *(["--incremental-key", "updated_at"] if strategy == "merge" else []),
            *(["--interval-start", since] if since else []),
        ]  # fmt: skip

    def _last_seen(self) -> str:
        """Without an interval this release reads the whole table again."""
        query = (
            'SELECT to_char(max(updated_at), \'YYYY-MM-DD"T"HH24:MI:SS.US"Z"\') FROM peer.ingestr'
        )
        command = [*psql(self.platform.made.right, query), "-At"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return done.stdout.strip()

    def _reladiff(self, *options: str) -> list[str]:
        made = self.platform.made
        columns = [part for name in ("name", "email", "balance") for part in ("-c", name)]
        return [
            str(ROOT / "reladiff/bin/reladiff"), database_url(made.left), "customers",
            database_url(made.right), "as_customers", "-k", "id", *columns, "-s", *options,
        ]  # fmt: skip


_NO_TLS = "?sslmode=disable"
