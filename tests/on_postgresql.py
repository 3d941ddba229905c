"""Tests once more, with the platform's own database on PostgreSQL: in a pytest of its own."""

from __future__ import annotations

import os
import subprocess
import sys

from config.environment import BASE_DIR
from tests.services_under_test import SERVICES

OWN_TO_A_WORKER = ("PYTEST_XDIST_WORKER", "PYTEST_XDIST_TESTRUNUID", "LOCKSTEP_TEST_DATA_DIR")


def again_on_postgresql(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run pytest with these arguments. name: part of the name of the database that is made."""
    environment = {k: v for k, v in os.environ.items() if k not in OWN_TO_A_WORKER}
    address = SERVICES["postgresql"].address.rpartition("/")[0]
    environment["LOCKSTEP_TEST_DATABASE_URL"] = f"{address}/lockstep_{name}_{os.getpid()}"
    command = [sys.executable, "-m", "pytest", *arguments, "-q"]
    return subprocess.run(
        command, cwd=BASE_DIR, env=environment, capture_output=True, text=True, check=False
    )
