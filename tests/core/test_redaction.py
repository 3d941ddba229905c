"""No line of the log holds a secret that the process works with, however it came there."""

from __future__ import annotations

import io
import json
import logging
import sys
from typing import Any, get_args
from urllib.parse import quote, quote_plus

import pytest
from django.conf import settings
from django.test import Client
from django.urls import reverse
from pydantic import SecretStr

from apps.core.protected import seal_json
from apps.core.redaction import BLOT, LineFormatter, blotted, hide
from apps.sources.models import Source
from apps.sources.services import check_settings, save_source
from config.environment import Environment

SECRET = 'canary/p"ss wörd\\4711'


@pytest.fixture
def log() -> tuple[logging.Logger, io.StringIO]:
    """A logger that writes as the platform's console does."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(LineFormatter(settings.LOGGING["formatters"]["line"]["format"]))
    logger = logging.getLogger("tests.redaction")
    logger.handlers, logger.propagate, logger.level = [handler], False, logging.DEBUG
    return logger, stream


def test_the_platform_logs_through_it() -> None:
    assert settings.LOGGING["formatters"]["line"]["()"] == "apps.core.redaction.LineFormatter"
    assert set(settings.LOGGING["handlers"]) == {"console"}
    assert settings.LOGGING["handlers"]["console"]["formatter"] == "line"


@pytest.mark.parametrize(
    "form",
    [
        SECRET,
        quote(SECRET, safe=""),
        quote_plus(SECRET),
        json.dumps(SECRET),
        repr(SECRET),
        repr({"password": SECRET}),
    ],
)
def test_a_hidden_value_is_blotted_out_in_each_of_its_forms(log: Any, form: str) -> None:
    logger, stream = log
    hide(SECRET)
    logger.warning("the server said: %s", form)
    assert BLOT in stream.getvalue()
    assert "canary" not in stream.getvalue()
    assert "4711" not in stream.getvalue()


def test_tracebacks_and_what_they_come_from_as_well(log: Any) -> None:
    logger, stream = log
    hide(SECRET)
    try:
        try:
            raise ValueError(f"cannot use {SECRET}")
        except ValueError as error:
            raise RuntimeError(f"because of {error}") from error
    except RuntimeError:
        logger.exception("it failed: %s", sys.exc_info()[1])
    text = stream.getvalue()
    assert "Traceback" in text
    assert "RuntimeError" in text
    assert "canary" not in text


def test_no_text_makes_a_line_of_its_own(log: Any) -> None:
    logger, stream = log
    logger.info("name: %s", "x\n2026-01-01 CRITICAL root the platform\r\x1b[2J\x85is gone")
    assert len(stream.getvalue().splitlines()) == 1
    assert "\\x0a2026" in stream.getvalue()
    assert "\x1b" not in stream.getvalue()


def test_short_values_are_left_alone(log: Any) -> None:
    hide("info", "", None)
    assert blotted("info: 1") == "info: 1"


@pytest.mark.django_db
def test_secrets_of_sources_are_hidden_when_they_are_saved_tested_or_opened() -> None:
    values = {"host": "db.example.invalid", "database": "d", "user": "u"}
    saved, tested, opened = "saved-canary-1", "tested-canary-2", "opened-canary-3"

    source = save_source(
        Source(name="a", connector="postgresql"), {**values, "password": saved}, actor=None
    )
    assert saved not in blotted(f"x {saved}")
    list(check_settings("postgresql", {**values, "password": tested}, actor=None))
    assert tested not in blotted(f"x {tested}")

    assert opened in blotted(f"x {opened}")
    source.sealed_secrets = seal_json({"password": opened}, source.secrets_identity)
    source.secrets()
    assert opened not in blotted(f"x {opened}")


def test_secrets_of_the_environment_are_named_once(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {
        "SECRET_KEY": "canary-secret-key",
        "DATABASE_URL": "postgresql://u:canary%2Fdatabase@127.0.0.1/d",
        "REDIS_URL": "redis://:canary-redis@127.0.0.1/0",
        "BROKER_URL": "amqp://u:canary-rabbit@127.0.0.1//",
        "MAIL_URL": "smtps://u:canary%2Fmail@mail.example",
        "MAIL_FROM": "lockstep@mail.example",
        "OIDC_ISSUER": "https://id.example",
        "OIDC_CLIENT_ID": "c",
        "OIDC_CLIENT_SECRET": "canary-oidc",
        "VAULT_ADDRESS": "https://vault.example",
        "VAULT_TOKEN": "canary-vault",
        "ENCRYPTION_KEYS": "k1:" + "QUFB" * 10 + "QUE=",
    }
    for name, value in given.items():
        monkeypatch.setenv(f"LOCKSTEP_{name}", value)

    told = Environment().secret_values()

    expected = {value for value in given.values() if value.startswith("canary")}
    expected |= {
        "canary/database",
        "canary/mail",
        "canary-redis",
        "canary-rabbit",
        "QUFB" * 10 + "QUE=",
    }
    assert expected <= set(told)
    assert "u" not in told


def test_every_secret_setting_is_among_them() -> None:
    """A new one is added to the test above, or its values would be found in no line."""
    known = {
        "secret_key", "encryption_keys", "vault_token", "database_url", "redis_url", "broker_url",
        "oidc_client_secret", "mail_url",
    }  # fmt: skip
    fields = Environment.model_fields.items()
    assert {name for name, field in fields if SecretStr in _types(field.annotation)} == known


def _types(annotation: Any) -> tuple[Any, ...]:
    return (annotation, *get_args(annotation))


@pytest.mark.django_db
def test_the_token_of_an_invitation_is_in_no_line(
    caplog: pytest.LogCaptureFixture, settings: Any
) -> None:
    """A request too many is logged with its path."""
    settings.LOCKSTEP = {**settings.LOCKSTEP, "SIGN_IN_REQUESTS": 1}
    for _ in range(2):
        Client().get(reverse("admin:invitation", args=("canary-token",)))

    text = "\n".join(LineFormatter("%(message)s").format(record) for record in caplog.records)
    assert f"/admin/invitation/{BLOT}/" in text
    assert "canary-token" not in text
