"""Tests once more, with the platform's own database on PostgreSQL: in a pytest of its own."""

from __future__ import annotations

import os
import subprocess
import sys

from config.environment import BASE_DIR
from tests.servers import postgresql_connection, postgresql_server
from tests.services_under_test import SERVICES

OWN_TO_A_WORKER = ("PYTEST_XDIST_WORKER", "PYTEST_XDIST_TESTRUNUID", "LOCKSTEP_TEST_DATA_DIR")


def again_on_postgresql(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run pytest with these arguments. name: part of the name of the database that is made.

    The database goes in the end, also where a thread of a test still holds on to it.
    """
    environment = {k: v for k, v in os.environ.items() if k not in OWN_TO_A_WORKER}
    address = SERVICES["postgresql"].address.rpartition("/")[0]
    database = f"lockstep_{name}_{os.getpid()}"
    environment["LOCKSTEP_TEST_DATABASE_URL"] = f"{address}/{database}"
    command = [sys.executable, "-m", "pytest", *arguments, "-q"]
    done = subprocess.run(
        command, cwd=BASE_DIR, env=environment, capture_output=True, text=True, check=False
    )
    with postgresql_connection(postgresql_server()) as connection:
        connection.execute(f"DROP DATABASE IF EXISTS test_{database} WITH (FORCE)")
    return done
