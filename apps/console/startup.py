"""What happens between `manage.py up` and a page that opens. Each step may run any number of times.

The demo lives in `apps.console.services`; it is looked up when it is needed, because a platform
without a demo starts as well.
"""

from __future__ import annotations

import hashlib
import socket
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from django.conf import settings
from django.contrib.staticfiles.finders import get_finders
from django.core.management import call_command

from apps.console.supervisor import Program
from apps.sources.models import Source

WILDCARD_HOSTS = ("0.0.0.0", "::")  # noqa: S104  # nosec B104  # read, not bound to


def collect_static() -> bool:
    """Static files into the data folder, unless they are there already; whether it had to."""
    stamp = Path(settings.STATIC_ROOT) / ".collected"
    fingerprint = _static_fingerprint()
    if stamp.exists() and stamp.read_text(encoding="ascii") == fingerprint:
        return False
    call_command("collectstatic", interactive=False, verbosity=0)
    stamp.write_text(fingerprint, encoding="ascii")
    return True


def _static_fingerprint() -> str:
    digest = hashlib.sha256(repr(settings.STORAGES["staticfiles"]).encode())
    for finder in get_finders():
        for name, storage in finder.list([]):
            status = Path(storage.path(name)).stat()
            digest.update(f"{name}|{status.st_size}|{status.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def load_demo_if_empty() -> str:
    """Load the demo on a new platform; says what happened, "" when there was nothing to do.

    A platform whose sources are gone, the demo's as well, had somebody who wanted them gone.
    """
    if Source.objects.exists() or Source.history.exists():
        return ""
    load = _demo_function("load_demo")
    if load is None:
        return "there is no demo in this version"
    load()
    return "loaded"


def first_sync() -> Program | None:
    """The demo's first runs, beside everything else, so that people can watch them."""
    if _demo_function("run_demo_once") is None:
        return None
    command = [sys.executable, "manage.py", "first_sync"]
    return Program("demo", command, delay=1.0, once=True)


def _demo_function(name: str) -> Callable[[], object] | None:
    try:
        services = import_module("apps.console.services")
    except ModuleNotFoundError as error:
        if error.name != "apps.console.services":
            raise
        return None
    function: Callable[[], object] | None = getattr(services, name, None)
    return function


def programs(host: str, port: int, workers: int) -> list[Program]:
    """Web, worker and scheduler; web first, because it is what people wait for."""
    python = sys.executable
    web = [python, "-m", "uvicorn", "config.asgi:application", "--host", host, "--port", str(port)]
    # Whose address counts is for `core.addresses` to say, not for a header from next door.
    web += ["--no-proxy-headers", "--timeout-graceful-shutdown", "5", "--log-level", "warning"]
    celery = [python, "-m", "celery", "--quiet", "-A", "config"]
    worker = [*celery, "worker", "--pool", "prefork", "--concurrency", str(workers)]
    worker += ["--hostname", "lockstep@%h"]
    if settings.CELERY_BROKER_URL.startswith("filesystem:"):
        # Workers of one folder have nobody to talk to; talking costs a file each time.
        worker += ["--without-gossip", "--without-mingle", "--without-heartbeat"]
    beat = [*celery, "beat", "--pidfile="]
    return [Program("web", web), Program("worker", worker, 2.0), Program("beat", beat, 3.0)]


def allowed_hosts(host: str) -> list[str]:
    """The allowed hosts, with the one that the person asked to listen on."""
    if host in WILDCARD_HOSTS:
        more = [socket.gethostname(), socket.getfqdn()]
    else:
        more = [f"[{host}]" if ":" in host else host]
    return list(dict.fromkeys([*settings.ALLOWED_HOSTS, *more]))


def is_ready(address: str) -> bool:
    """Whether `/readyz` says that it can serve."""
    name = next((h for h in settings.ALLOWED_HOSTS if not h.startswith((".", "*"))), "localhost")
    request = urllib.request.Request(f"{address}readyz", headers={"Host": name})  # noqa: S310  # http:// of our own
    try:
        with urllib.request.urlopen(request, timeout=2) as answer:  # noqa: S310  # nosec B310  # http:// of our own
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False
