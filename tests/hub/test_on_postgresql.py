"""The hub's tests once more, with its records on PostgreSQL."""

from __future__ import annotations

from pathlib import Path

import pytest
from django.db import connection

from tests.on_postgresql import again_on_postgresql

HERE = Path(__file__).parent
MODULES = [
    str(HERE / f"test_{name}.py")
    for name in ("commit_order", "convergence", "housekeeping", "pulling", "pushing")
]


@pytest.mark.postgresql
@pytest.mark.skipif(connection.vendor == "postgresql", reason="the tests run on it already")
def test_the_hub_works_on_postgresql():
    done = again_on_postgresql("hub", *MODULES, "-k", "not although and not acknowledged")

    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
