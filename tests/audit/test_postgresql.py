"""The tests of the audit log once more, and those of its guards, on PostgreSQL."""

from __future__ import annotations

from pathlib import Path

import pytest
from django.db import connection

from tests.on_postgresql import again_on_postgresql

HERE = Path(__file__).parent
AGAIN = (
    "postgresql.py",
    "postgresql_plans.py",
    "test_recording.py",
    "test_verifying.py",
    "test_browsing.py",
)


@pytest.mark.postgresql
@pytest.mark.skipif(connection.vendor == "postgresql", reason="the tests run on it already")
def test_all_of_this_holds_on_postgresql():
    done = again_on_postgresql("audit", *(str(HERE / module) for module in AGAIN))

    assert done.returncode == 0, done.stdout[-3000:]
    assert " passed" in done.stdout
