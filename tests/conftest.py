"""Set-up of all tests: what is left out and why, and who may run beside whom."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from typing import Any

import pytest

from apps.connectors.testing import NOT_CLAIMED
from tests.services_under_test import SERVICES, missing

MISSING = "LOCKSTEP_TEST_MISSING_SERVICES"  # found once, handed to the workers of pytest
FORBID_SKIPS = "LOCKSTEP_FORBID_SKIPS"
ALONE = ("processes", "browser")


def pytest_configure(config: pytest.Config) -> None:
    if MISSING not in os.environ and not config.option.collectonly:
        os.environ[MISSING] = json.dumps(sorted(missing()))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    absent = json.loads(os.environ.get(MISSING, "[]"))
    for item in items:
        for marker in item.iter_markers():
            if marker.name in absent:
                item.add_marker(pytest.mark.skip(reason=_reason(marker.name)))
        group = next((name for name in ALONE if item.get_closest_marker(name)), None)
        if group and not item.get_closest_marker("xdist_group"):
            item.add_marker(pytest.mark.xdist_group(group))


def _reason(marker: str) -> str:
    return f"no {marker}: {SERVICES[marker].remedy}"


def pytest_terminal_summary(terminalreporter: Any) -> None:
    skipped = _left_out(terminalreporter)
    if not skipped:
        return
    terminalreporter.section(f"{len(skipped)} tests were left out")
    by_reason: dict[str, list[str]] = {}
    for report in skipped:
        name = re.sub(r"@[^\]]*$", "", report.nodeid)  # the group that xdist appends
        by_reason.setdefault(_why(report), []).append(name)
    for reason, names in sorted(by_reason.items()):
        terminalreporter.write_line(reason)
        for name in sorted(set(names)):
            terminalreporter.write_line(f"  {name}")


def _left_out(reporter: Any) -> list[Any]:
    """Skips because something is missing here, not because a connector lacks a feature."""
    skipped = reporter.stats.get("skipped", [])
    return [report for report in skipped if not _why(report).startswith(NOT_CLAIMED)]


def _why(report: Any) -> str:
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return reason.removeprefix("Skipped: ")


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """With LOCKSTEP_FORBID_SKIPS=1 a test that was left out is a failure of the whole."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get(FORBID_SKIPS) != "1" or reporter is None:
        return
    if _left_out(reporter) and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture(autouse=True)
def _fresh_protected_keys() -> Iterator[None]:
    """A test that changes the encryption keys leaves none behind."""
    yield
    from apps.core import protected

    protected._keys.cache_clear()
