"""Set-up of all tests: what is left out and why, and who may run beside whom."""

from __future__ import annotations

import gc
import json
import os
import re
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from apps.audit.origin import Origin, acting_from
from apps.connectors.testing import NOT_CLAIMED
from apps.core.collector import spare_what_is_loaded
from tests.services_under_test import SERVICES, missing

MISSING = "LOCKSTEP_TEST_MISSING_SERVICES"  # found once, handed to the workers of pytest
FORBID_SKIPS = "LOCKSTEP_FORBID_SKIPS"
# These wait for other programs on a machine that may be busy: when one fails it runs once more,
# and the report lists it under RERUN. All others have one try.
ALONE = ("processes", "browser")

# How long an example takes says how busy the machine is, and nothing of the program.
settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("any machine")


def pytest_configure(config: pytest.Config) -> None:
    if MISSING not in os.environ and not config.option.collectonly:
        os.environ[MISSING] = json.dumps(sorted(missing()))


def pytest_collection_finish(session: pytest.Session) -> None:
    """Thousands of tests are no garbage: the collector need not go through them all the time."""
    gc.collect()
    spare_what_is_loaded()


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
        if group:
            item.add_marker(pytest.mark.flaky(reruns=1))


@pytest.fixture(autouse=True)
def _own_origin() -> Iterator[None]:
    """What a test records comes from nobody else's request, whatever the test before it was."""
    with acting_from(Origin()):
        yield


def _reason(marker: str) -> str:
    return f"no {marker}: {SERVICES[marker].remedy}"


def pytest_terminal_summary(terminalreporter: Any) -> None:
    _tell_histories(terminalreporter)
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


def _tell_histories(reporter: Any) -> None:
    """How many random histories each test of the invariants has played, and in how long."""
    reports = [report for group in reporter.stats.values() for report in group]
    played = [
        (report.nodeid, number, report.duration)
        for report in reports
        if getattr(report, "when", "") == "call"
        for name, number in getattr(report, "user_properties", ())
        if name == "histories"
    ]
    if played:
        reporter.section(f"{sum(number for _, number, _ in played)} histories were played")
    for name, number, seconds in sorted(played):
        reporter.write_line(f"{number:6} in {seconds:5.0f} s  {name}")


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


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup: None, django_db_blocker: Any) -> None:
    """Between tests every table is emptied, which the audit log would refuse on PostgreSQL."""
    from django.db import connection

    with django_db_blocker.unblock():
        if connection.vendor == "postgresql":
            with connection.cursor() as cursor:
                for table in ("audit_auditevent", "audit_auditseal"):
                    cursor.execute(f"ALTER TABLE {table} DISABLE TRIGGER USER")


@pytest.fixture(autouse=True)
def _fresh_data_keys() -> Iterator[None]:
    """A test that changes keys leaves none behind; one that does not shares those of the others."""
    from apps.core.keys import ring

    before = ring._ring
    yield
    if ring._ring is not before:
        ring.forget_keys()
