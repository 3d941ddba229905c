"""A test whose service is missing is named, and fails the whole where none may be left out."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from config.environment import BASE_DIR

TEST = "tests/core/test_bulk.py::test_all_of_this_holds_on_postgresql"


def _run_without_postgresql(**more: str) -> subprocess.CompletedProcess[str]:
    unwanted = ("PYTEST_", "LOCKSTEP_", "DJANGO_")
    environment = {n: v for n, v in os.environ.items() if not n.startswith(unwanted)}
    environment["LOCKSTEP_TEST_POSTGRESQL_URL"] = "postgresql://nobody@127.0.0.1:1/nothing"
    command = [sys.executable, "-m", "pytest", TEST, "tests/core/keys/test_providers.py", "-q"]
    return subprocess.run(
        [*command, "-k", "postgresql or order"],
        cwd=BASE_DIR,
        env={**environment, **more},
        capture_output=True,
        text=True,
    )


def test_what_was_left_out_is_named_with_the_remedy():
    done = _run_without_postgresql()

    assert done.returncode == pytest.ExitCode.OK, done.stdout
    assert "1 tests were left out" in done.stdout
    assert f"  {TEST}\n" in done.stdout
    assert "apt-get install postgresql" in done.stdout


def test_where_nothing_may_be_left_out_it_is_a_failure():
    done = _run_without_postgresql(LOCKSTEP_FORBID_SKIPS="1")

    assert done.returncode == pytest.ExitCode.TESTS_FAILED, done.stdout
    assert f"  {TEST}\n" in done.stdout
