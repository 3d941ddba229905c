"""A worker that is killed with SIGKILL in any phase: the run completes by itself."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROWS = 12_000


def survive(phase: str, broker: str, platform: str, way: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "bench.survival", "--rows", str(ROWS), "--way", way]
    command += ["--phase", phase, "--broker", broker, "--platform", platform, "--timeout", "120"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout, done.stderr
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


@pytest.mark.processes
@pytest.mark.postgresql
@pytest.mark.parametrize(
    ("way", "phase"),
    [
        ("load", "prepare"),
        ("records", "plan"),
        ("records", "apply"),
        ("load", "apply"),
        ("records", "verify"),
    ],
)
def test_a_killed_worker_loses_nothing_embedded(way: str, phase: str) -> None:
    assert_whole(survive(phase, "embedded", "sqlite", way))


@pytest.mark.processes
@pytest.mark.postgresql
@pytest.mark.redis
@pytest.mark.parametrize(
    ("way", "phase"),
    [
        ("records", "prepare"),
        ("load", "plan"),
        ("records", "apply"),
        ("load", "apply"),
        ("load", "verify"),
    ],
)
def test_a_killed_worker_loses_nothing_with_redis(way: str, phase: str) -> None:
    assert_whole(survive(phase, "redis", "postgresql", way))


@pytest.mark.processes
@pytest.mark.postgresql
@pytest.mark.rabbitmq
def test_rabbitmq_works_as_the_broker_too() -> None:
    assert_whole(survive("apply", "rabbitmq", "postgresql", "records"))


def assert_whole(result: dict[str, Any]) -> None:
    """The run completed, both sides are equal, nothing was done twice."""
    assert result["status"] == "succeeded", result
    assert result["equal"], result
    assert result["rows"] == ROWS, result
    assert result["changes"] == result["applied"] == result["distinct_keys"] == ROWS, result
    assert result["links"] == ROWS, result
    assert result["inserted"] == ROWS, result
