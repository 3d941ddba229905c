"""Undo and approval between two PostgreSQL databases with real workers, as `bench.undo` does it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.processes
@pytest.mark.postgresql
def test_undo_is_exact_and_reports_just_what_was_edited_since() -> None:
    command = [sys.executable, "-m", "bench.undo", "--rows", "500"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["holds"] == dict.fromkeys(result["holds"], True), result
    assert len(result["holds"]) == 5
