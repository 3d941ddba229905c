"""Rotation, proof and erasure once more, on PostgreSQL: other locks, another exchange of rows."""

from __future__ import annotations

from pathlib import Path

import pytest
from django.db import connection

from tests.on_postgresql import again_on_postgresql

FOLDER = Path(__file__).parent
MODULES = [str(FOLDER / f"test_{name}.py") for name in ("rotation", "erasure")]
OTHERWISE_THERE = (
    "under_the_new_key or meanwhile or killed or two_do_not or every_process or destroyed or erased"
)
"""Tests of what this database does in its own way."""


@pytest.mark.postgresql
@pytest.mark.skipif(connection.vendor == "postgresql", reason="the tests run on it already")
def test_all_of_this_holds_on_postgresql():
    done = again_on_postgresql("encryption", *MODULES, "-k", OTHERWISE_THERE)

    assert done.returncode == 0, done.stdout[-3000:]
    assert " passed" in done.stdout
