"""Saving and testing sources: secrets stay secret, and go nowhere else."""

from __future__ import annotations

from typing import Any

import pytest

from apps.connectors.errors import ConfigurationError
from apps.connectors.outbound import OutboundRefused
from apps.sources.models import Source
from apps.sources.services import check_settings, discover, kept_secrets, save_source

pytestmark = pytest.mark.django_db
CANARY = "canary-4711"
VALUES = {"host": "db.example.org", "database": "crm", "user": "sync", "password": CANARY}


@pytest.fixture
def source() -> Source:
    return save_source(Source(name="crm", connector="postgresql"), VALUES, actor=None)


def without_password(**changes: Any) -> dict[str, Any]:
    return {**{k: v for k, v in VALUES.items() if k != "password"}, **changes}


def test_a_secret_is_stored_sealed_and_nowhere_else(source: Source) -> None:
    source.refresh_from_db()
    assert source.secrets() == {"password": CANARY}
    assert CANARY.encode() not in bytes(source.sealed_secrets)
    assert CANARY not in str(source.settings)
    for version in source.history.all():
        assert CANARY not in str(vars(version))


def test_a_secret_that_is_not_given_stays(source: Source) -> None:
    save_source(source, without_password(database="other"), actor=None)
    assert source.secrets() == {"password": CANARY}


@pytest.mark.parametrize(
    "move",
    [
        {"host": "evil.example.org"},
        {"port": 6543},
        {"tls": "disable"},  # whoever listens on the way could read it
        {"ca_certificate": "/tmp/own.pem"},
    ],
)
def test_a_secret_does_not_follow_to_another_address(source: Source, move: dict[str, Any]) -> None:
    assert kept_secrets(source, "postgresql", without_password(**move)) == {}
    save_source(source, without_password(**move), actor=None)
    assert source.secrets() == {}
    assert source.secrets_set_at == {}


def test_the_default_port_is_the_same_address(source: Source) -> None:
    same = without_password(port=5432, tls="prefer", ca_certificate="")
    assert kept_secrets(source, "postgresql", same)


def test_a_secret_of_another_row_does_not_open(source: Source) -> None:
    other = save_source(Source(name="other", connector="postgresql"), VALUES, actor=None)
    other.sealed_secrets = source.sealed_secrets
    with pytest.raises(ConfigurationError, match="altered or moved"):
        other.secrets()


def test_wrong_settings_name_the_field_and_show_no_value(source: Source) -> None:
    with pytest.raises(ConfigurationError) as caught:
        save_source(source, {**VALUES, "port": "no number", "colour": CANARY}, actor=None)
    assert "port" in str(caught.value)
    assert "colour" in str(caught.value)
    assert CANARY not in str(caught.value)


def test_what_may_not_be_connected_to_is_refused_with_a_way_to_allow_it() -> None:
    values = {**VALUES, "host": "169.254.169.254"}
    step = next(iter(check_settings("postgresql", values, actor=None)))
    assert "169.254.169.254" in step.message
    assert "169.254.169.254/32 to LOCKSTEP_ALLOWED_NETWORKS" in step.remedy

    source = save_source(Source(name="metadata", connector="mysql"), values, actor=None)
    with pytest.raises(OutboundRefused):
        discover(source, actor=None)
