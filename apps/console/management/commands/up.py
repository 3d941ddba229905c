"""`manage.py up`: everything that Lockstep is, as one process in the foreground."""

from __future__ import annotations

import os
import time
from typing import Any

from django.conf import settings
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import connections

from apps.accounts.services import create_administrator
from apps.console import instance, startup
from apps.console.supervisor import Supervisor

PATIENCE = 60.0  # seconds until a slow start is worth a word


class Command(BaseCommand):
    help = "Prepare the data folder, then run web, worker and scheduler until Ctrl-C."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--host", default="127.0.0.1")
        parser.add_argument("--port", type=int, default=8000)
        parser.add_argument("--no-demo", action="store_true", help="Do not load the demo.")
        parser.add_argument(
            "--workers", type=int, default=settings.LOCKSTEP["WORKER_PROCESSES"], metavar="N"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        host, port = options["host"], options["port"]
        address = instance.address_of(host, port)
        try:
            with instance.held(settings.DATA_DIR, address):
                instance.refuse_if_port_is_taken(host, port)
                demo_is_new = self._prepare(with_demo=not options["no_demo"])
                supervisor = self._supervisor(host, port, options["workers"])
                supervisor.run(self._starting(supervisor, address, demo_is_new))
        except instance.CannotStartError as reason:
            raise CommandError(str(reason)) from None
        except KeyboardInterrupt:
            pass
        self.stdout.write("Lockstep has stopped.")

    def _prepare(self, *, with_demo: bool) -> bool:
        """Database, static files, demo; whether the demo is new."""
        self._say("Preparing the database")
        call_command("migrate", interactive=False, verbosity=0)
        if startup.collect_static():
            self._say("Static files collected")
        demo = startup.load_demo_if_empty() if with_demo else ""
        if demo:
            self._say(f"Demo: {demo}")
        connections.close_all()
        return demo == "loaded"

    def _supervisor(self, host: str, port: int, workers: int) -> Supervisor:
        environment = dict(os.environ)
        environment["LOCKSTEP_ALLOWED_HOSTS"] = ",".join(startup.allowed_hosts(host))
        environment["PYTHONUNBUFFERED"] = "1"
        self._say(f"Starting web, worker (x{workers}) and scheduler")
        return Supervisor(
            startup.programs(host, port, workers),
            environment=environment,
            folder=settings.BASE_DIR,
        )

    def _starting(self, supervisor: Supervisor, address: str, demo_is_new: bool) -> Any:
        began = time.monotonic()
        warned = False

        def serves() -> bool:
            nonlocal warned
            if not startup.is_ready(address):
                if not warned and time.monotonic() - began > PATIENCE:
                    warned = True
                    supervisor.say("still not ready; the lines above say why")
                return False
            _, password = create_administrator()
            first_sync = startup.first_sync() if demo_is_new else None
            if first_sync is not None:
                supervisor.add(first_sync)
            connections.close_all()
            self._say(_welcome(address, password))
            return True

        return serves

    def _say(self, text: str) -> None:
        self.stdout.write(text)
        self.stdout.flush()


def _welcome(address: str, password: str | None) -> str:
    lines = [f"Lockstep runs at {address}", "", "Sign in as           admin"]
    if password:
        lines += [
            f"One-time password    {password}",
            "                     shown this once; next come your own password and a code",
            "                     from an authenticator app on your phone",
        ]
    else:
        lines += ["Forgot the password  .venv/bin/python manage.py one_time_password admin"]
    lines += [
        "",
        "Worth a look         Overview: what is in step and what is not",
        "                     Runs: live progress, and what each run did",
        "                     Rejections: correct a bad record and replay it",
        "                     Rules, Dry run: see every change before it is made",
        "",
        "Stop                 Ctrl-C; `make run` goes on where it stopped",
    ]
    return _boxed(lines)


def _boxed(lines: list[str]) -> str:
    width = max(map(len, lines))
    edge = "-" * (width + 2)
    body = "\n".join(f"| {line:<{width}} |" for line in lines)
    return f"\n+{edge}+\n{body}\n+{edge}+\n"
