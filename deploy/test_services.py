#!/usr/bin/env python3
"""Runs a command with the servers that the tests want: test_services.py [--install] [-- command].

A server that answers already is used as it is. One that is installed but does not answer is
started on 127.0.0.1, on a free port, with its data in a temporary folder, and stopped afterwards;
its address goes to the command in the environment. For one that is not installed it says how to
get it; `--install` gets it by apt-get.
"""

from __future__ import annotations

import glob
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from apps.console.supervisor import die_with_parent
from tests.services_under_test import SERVICES, Service, missing

START_SECONDS = 60
STOP_SECONDS = 20
AS_ROOT = os.geteuid() == 0
PATIENT_FOLDERS = "/usr/sbin:/usr/local/sbin:/sbin"  # not on everybody's path


class CannotStartError(Exception):
    """Why a server that is installed cannot be started."""


class Server:
    """A private server: its folder, its account, its processes."""

    def __init__(self, service: Service, folder: Path, account: str) -> None:
        self.service = service
        self.folder = folder
        self.account = account if AS_ROOT else ""
        self.port = _free_port()
        self.processes: list[subprocess.Popen[bytes]] = []
        folder.mkdir()
        if self.account:
            try:
                shutil.chown(folder, self.account, pwd.getpwnam(self.account).pw_gid)
            except KeyError:
                raise CannotStartError(f"there is no user {self.account}") from None

    def run(self, *command: str | Path) -> None:
        """Run to the end; raises CannotStartError with the last lines when it fails."""
        process = self._spawn(command, {})
        if process.wait():
            raise CannotStartError(self.last_lines())

    def start(self, *command: str | Path, environment: dict[str, str] | None = None) -> None:
        self.processes.append(self._spawn(command, environment or {}))

    def _spawn(
        self, command: tuple[str | Path, ...], environment: dict[str, str]
    ) -> subprocess.Popen[bytes]:
        with (self.folder / "output.log").open("ab") as log:
            return subprocess.Popen(
                [str(part) for part in command],
                cwd=self.folder,
                env={**os.environ, "HOME": str(self.folder), **environment},
                user=self.account or None,
                group=pwd.getpwnam(self.account).pw_gid if self.account else None,
                extra_groups=[] if self.account else None,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                process_group=0,
                preexec_fn=die_with_parent,
            )

    def last_lines(self) -> str:
        text = (self.folder / "output.log").read_text(errors="replace")
        return "\n".join(text.splitlines()[-5:])

    def stop(self) -> None:
        """Stop what this object started, and nothing else."""
        for process in reversed(self.processes):
            process.send_signal(signal.SIGINT if self.service.marker == "postgresql" else 15)
        for process in reversed(self.processes):
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def start_postgresql(service: Service, folder: Path) -> tuple[Server, str]:
    programs = Path(program("postgresql")).resolve().parent
    server = Server(service, folder, "postgres")
    data = folder / "data"
    server.run(programs / "initdb", "-D", data, "-U", "postgres", "-A", "trust", "--no-sync")
    quick = [f"-c{name}=off" for name in ("fsync", "full_page_writes", "synchronous_commit")]
    place = ["-h", "127.0.0.1", "-p", str(server.port), "-k", folder, "-c", "max_connections=200"]
    server.start(programs / "postgres", "-D", data, *place, *quick)
    return server, f"postgresql://postgres@127.0.0.1:{server.port}/postgres"


def start_mariadb(service: Service, folder: Path) -> tuple[Server, str]:
    server = Server(service, folder, "mysql")
    data = folder / "data"
    install = _which("mariadb-install-db") or _which("mysql_install_db")
    server.run(
        install,
        "--no-defaults",
        f"--datadir={data}",
        "--auth-root-authentication-method=normal",
        "--skip-test-db",
    )
    server.start(
        program("mariadb"),
        "--no-defaults",
        f"--datadir={data}",
        f"--socket={folder / 's'}",
        f"--pid-file={folder / 'pid'}",
        f"--port={server.port}",
        "--bind-address=127.0.0.1",
        "--innodb-flush-log-at-trx-commit=0",
    )
    return server, f"mysql://root:@127.0.0.1:{server.port}/"


def start_redis(service: Service, folder: Path) -> tuple[Server, str]:
    server = Server(service, folder, "")
    place = ["--bind", "127.0.0.1", "--port", str(server.port), "--dir", folder]
    server.start(program("redis"), *place, "--save", "", "--appendonly", "no")
    return server, f"redis://127.0.0.1:{server.port}/15"


def start_rabbitmq(service: Service, folder: Path) -> tuple[Server, str]:
    server = Server(service, folder, "rabbitmq")
    epmd_port = _free_port()
    epmd = _which("epmd") or _first("/usr/lib/erlang/erts-*/bin/epmd")
    server.start(epmd, "-port", str(epmd_port), "-address", "127.0.0.1")
    (folder / "plugins").write_text("[].\n")
    (folder / "rabbitmq.conf").write_text(f"listeners.tcp.1 = 127.0.0.1:{server.port}\n")
    server.start(
        _first("/usr/lib/rabbitmq/bin/rabbitmq-server") or program("rabbitmq"),
        environment={
            "ERL_EPMD_PORT": str(epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": f"lockstep{os.getpid()}@localhost",
            "RABBITMQ_DIST_PORT": str(_free_port()),
            "RABBITMQ_MNESIA_BASE": str(folder / "data"),
            "RABBITMQ_LOG_BASE": str(folder / "log"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
            "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
            "RABBITMQ_CONF_ENV_FILE": str(folder / "no-such-file"),
            "RABBITMQ_PID_FILE": str(folder / "pid"),
        },
    )
    return server, f"amqp://guest:guest@127.0.0.1:{server.port}//"


STARTERS: dict[str, Callable[[Service, Path], tuple[Server, str]]] = {
    "postgresql": start_postgresql,
    "mariadb": start_mariadb,
    "redis": start_redis,
    "rabbitmq": start_rabbitmq,
}


def program(marker: str) -> str:
    """The server's binary, or "" when it is not installed."""
    if marker == "postgresql":
        return _which("postgres") or _first("/usr/lib/postgresql/*/bin/postgres")
    if marker == "browser":
        address = SERVICES[marker].address
        return address if os.access(address, os.X_OK) else ""
    names = {"mariadb": ("mariadbd", "mysqld"), "redis": ("redis-server",)}
    return next(filter(None, map(_which, names.get(marker, ("rabbitmq-server",)))), "")


def install() -> None:
    """Get what is not installed. Needs root and apt-get; says so when they are not there."""
    packages = [service.package for name, service in SERVICES.items() if not program(name)]
    if not packages:
        return
    if not AS_ROOT or not shutil.which("apt-get"):
        say(f"not installed: {' '.join(packages)}; only root can install them, with apt-get")
        return
    say(f"installing {' '.join(packages)}")
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for arguments in (["update"], ["install", "-y", "--no-install-recommends", *packages]):
        subprocess.run(
            ["apt-get", "-qq", *arguments],
            env=quiet,
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )


def start_missing(base: Path, environment: dict[str, str]) -> list[Server]:
    """Start what is installed and does not answer; returns once all of it answers."""
    started: list[tuple[Server, str]] = []
    for marker, service in missing().items():
        if marker not in STARTERS or not program(marker):
            say(f"{marker} is not installed: its tests are left out ({service.remedy})")
            continue
        try:
            started.append(STARTERS[marker](service, base / marker))
        except (CannotStartError, OSError) as reason:
            say(f"{marker} cannot be started, its tests are left out: {reason}")
    deadline = time.monotonic() + START_SECONDS
    for server, url in started:
        if _answers(server, url, deadline):
            environment[server.service.variable] = url
            say(f"{server.service.marker} started for the tests on port {server.port}")
        else:
            say(f"{server.service.marker} does not answer: {server.last_lines()}")
    return [server for server, _ in started]


def _answers(server: Server, url: str, deadline: float) -> bool:
    while time.monotonic() < deadline:
        if any(process.poll() is not None for process in server.processes):
            return False
        try:
            if server.service.is_there(url):
                return True
        except Exception:  # noqa: S110  # nosec B110  # each client has its own errors: not yet
            pass
        time.sleep(0.2)
    return False


def run(command: list[str]) -> int:
    """Run the command beside its servers; returns its exit status."""
    environment = dict(os.environ)
    base = Path(tempfile.mkdtemp(prefix="lockstep-services-"))
    base.chmod(0o711)  # a server's own account must pass through
    servers: list[Server] = []
    signal.signal(signal.SIGTERM, _end)
    try:
        servers = start_missing(base, environment)
        process = subprocess.Popen(command, env=environment)
        return _wait(process)
    finally:
        for server in servers:
            server.stop()
        shutil.rmtree(base, ignore_errors=True)


def _wait(process: subprocess.Popen[bytes]) -> int:
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:
            continue  # Ctrl-C reached the command as well; its end is ours
        except SystemExit:
            process.terminate()


def _end(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


def say(text: str) -> None:
    print(f"test services: {text}", flush=True)


def _which(name: str) -> str:
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:{PATIENT_FOLDERS}") or ""


def _first(pattern: str) -> str:
    return max(glob.glob(pattern), default="")


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def main(arguments: list[str]) -> int:
    if "--install" in arguments[:1]:
        install()
        arguments = arguments[1:]
    if arguments[:1] == ["--"] and arguments[1:]:
        return run(arguments[1:])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
