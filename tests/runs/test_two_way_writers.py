"""Writers on both sides, runs and killed workers at the same time: nothing is lost."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 20


def disturbed(*options: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "bench.writers", "--seconds", str(SECONDS), "--rows", "400"]
    command += ["--kill-every", "7", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout, done.stderr
    said = [line for line in done.stderr.splitlines() if "Written(" in line or "{'key'" in line]
    print("\n".join(said))  # pytest shows it beside a failure
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


@pytest.mark.processes
@pytest.mark.postgresql
@pytest.mark.parametrize(
    ("broker", "platform"),
    [
        ("embedded", "sqlite"),
        pytest.param("redis", "postgresql", marks=pytest.mark.redis),
    ],
)
def test_nothing_is_lost_while_four_writers_edit_and_workers_are_killed(
    broker: str, platform: str
) -> None:
    result = disturbed("--broker", broker, "--platform", platform)
    assert result["equal"], result
    for name in ("lost", "forgotten", "wrong_points", "unexplained"):
        assert result[name] == 0, (name, result)
    assert result["open_conflicts"] == 0, result
    assert set(result["runs"]) <= {"succeeded", "partial"}, result
    assert result["kills"] >= 1, result
    assert result["observed"] > 100, result
