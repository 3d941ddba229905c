"""Rules that fail or succeed as a test says, and people who are told of it."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from apps.accounts.models import User
from apps.alerts.models import Channel, EscalationPolicy, EscalationStep
from apps.core.clock import now
from apps.runs.models import Run, RunStatus
from tests.people import person
from tests.platforms import PLAIN_FIELDS, Pair


class Watched(Pair):
    """A rule whose runs end as they are told to."""

    def ended(self, status: RunStatus, **facts: Any) -> Run:
        version = self.rule.current_version
        assert version is not None
        return Run.objects.create(
            rule=self.rule, version=version, status=status, finished_at=now(), **facts
        )

    def fails(self, code: str = "source.unreachable") -> Run:
        return self.ended(RunStatus.FAILED, cause_code=code, cause="the host does not answer")

    def succeeds(self) -> Run:
        return self.ended(RunStatus.SUCCEEDED)


@pytest.fixture
def watched(db: None, tmp_path: Path) -> Watched:
    return Watched(tmp_path, fields=PLAIN_FIELDS)


@pytest.fixture
def ada(db: None) -> User:
    """Somebody who is told of incidents and handles them."""
    ada = person("ada", "alerts.view_incident", "alerts.handle_incident")
    ada.email = "ada@example.org"
    ada.save()
    return ada


@pytest.fixture
def mail(db: None) -> Channel:
    return Channel.objects.create(name="Mail", kind=Channel.Kind.MAIL)


def policy_with(*steps: tuple[int, Channel, list[User]], **facts: Any) -> EscalationPolicy:
    """A default policy; steps: after how many minutes, by which channel, to whom."""
    policy = EscalationPolicy.objects.create(**{"name": "On call", "is_default": True, **facts})
    for minutes, channel, people in steps:
        step = EscalationStep.objects.create(policy=policy, after_minutes=minutes, channel=channel)
        step.people.set(people)
    return policy


def in_minutes(minutes: float) -> Any:
    return now() + timedelta(minutes=minutes)
