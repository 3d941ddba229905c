"""Settings by environment: profiles, generated secrets, database addresses."""

from __future__ import annotations

import base64
import re
import subprocess
import sys
from ipaddress import ip_address
from pathlib import Path

import pytest
from pydantic import ValidationError

from config.environment import BASE_DIR, Environment, Profile, read_environment

PRODUCTION = {
    "LOCKSTEP_PROFILE": "production",
    "DATABASE_URL": "postgresql://app:secret-word@db.example/lockstep?sslmode=verify-full",
    "REDIS_URL": "rediss://cache.example/0",
    "LOCKSTEP_SECRET_KEY": "x" * 60,
    "LOCKSTEP_ALLOWED_NETWORKS": "10.0.0.0/8,public",
    "LOCKSTEP_ENCRYPTION_KEYS": "k1:" + base64.b64encode(bytes(32)).decode(),
}


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """An environment that names a data folder and nothing else."""
    for name in ("PROFILE", "DATABASE_URL", "DATA_DIR", "FILES_ROOTS"):
        monkeypatch.delenv(f"LOCKSTEP_{name}", raising=False)
    monkeypatch.setenv("LOCKSTEP_DATA_DIR", str(tmp_path / "data"))
    return monkeypatch


def test_nothing_set_means_embedded_on_sqlite_and_a_folder_as_broker(environment):
    settings = Environment()

    assert settings.profile is Profile.EMBEDDED
    assert settings.django_database()["ENGINE"] == "django.db.backends.sqlite3"
    assert settings.celery_broker().startswith("filesystem:")


def test_production_starts_when_everything_is_named(environment):
    for name, value in PRODUCTION.items():
        environment.setenv(name, value)

    settings = Environment()

    assert settings.django_database()["HOST"] == "db.example"
    assert settings.celery_broker() == "rediss://cache.example/0"


def test_what_is_near_may_be_connected_to_unless_something_is_said(environment):
    near = [ip_address(text) for text in ("127.0.0.1", "10.0.0.1", "8.8.8.8")]
    assert all(Environment().outbound_networks().permits(address) for address in near)
    assert not Environment().outbound_networks().permits(ip_address("169.254.169.254"))

    environment.setenv("LOCKSTEP_ALLOWED_NETWORKS", "10.0.0.0/24, loopback")
    environment.setenv("LOCKSTEP_ALLOWED_PORTS", "443,22")

    settings = Environment()
    assert [settings.outbound_networks().permits(a) for a in near] == [True, True, False]
    assert settings.allowed_ports == [443, 22]


def test_files_are_sources_below_the_data_folder_unless_something_is_said(environment, tmp_path):
    assert Environment().file_roots() == [tmp_path / "data"]

    environment.setenv("LOCKSTEP_FILES_ROOTS", "/srv/exports:/srv/imports")
    assert Environment().file_roots() == [Path("/srv/exports"), Path("/srv/imports")]


def test_in_production_no_file_is_a_source_unless_its_folder_is_named(environment):
    for name, value in PRODUCTION.items():
        environment.setenv(name, value)
    assert Environment().file_roots() == []

    environment.setenv("LOCKSTEP_FILES_ROOTS", "/srv/exports")
    assert Environment().file_roots() == [Path("/srv/exports")]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("LOCKSTEP_FILES_ROOTS", "exports"),
        ("LOCKSTEP_ALLOWED_NETWORKS", "private,10.0.0.1/8"),
        ("LOCKSTEP_ALLOWED_NETWORKS", "intranet"),
        ("LOCKSTEP_ALLOWED_PORTS", "ssh"),
        ("LOCKSTEP_ALLOWED_PORTS", "70000"),
    ],
)
def test_a_wrong_network_port_or_folder_is_named(environment, name, value):
    environment.setenv(name, value)

    with pytest.raises(SystemExit, match=name):
        read_environment()


def test_production_refuses_pages_for_debugging(environment):
    for name, value in {**PRODUCTION, "LOCKSTEP_DEBUG": "1"}.items():
        environment.setenv(name, value)

    with pytest.raises(ValidationError, match="LOCKSTEP_DEBUG"):
        Environment()


@pytest.mark.parametrize("missing", sorted(set(PRODUCTION) - {"LOCKSTEP_PROFILE"}))
def test_production_refuses_to_start_and_names_what_is_missing(environment, missing):
    for name, value in PRODUCTION.items():
        environment.setenv(name, value)
    environment.delenv(missing)

    with pytest.raises(SystemExit, match=missing) as refusal:
        read_environment()

    assert "secret-word" not in str(refusal.value)


@pytest.mark.parametrize(
    ("name", "value", "what"),
    [
        ("DATABASE_URL", "postgresql://app:secret-word@db.example/x", "database"),
        ("DATABASE_URL", "postgresql://app:secret-word@db.example/x?sslmode=require", "database"),
        ("DATABASE_URL", "postgresql:///x?host=db.example&password=secret-word", "database"),
        ("DATABASE_URL", "postgresql://127.0.0.1/x?hostaddr=10.0.0.1", "database"),
        ("REDIS_URL", "redis://:secret-word@cache.example/0", "broker"),
        ("REDIS_URL", "rediss://cache.example/0?ssl_cert_reqs=none", "broker"),
        ("REDIS_URL", "rediss://cache.example/0?ssl_check_hostname=false", "broker"),
        ("BROKER_URL", "amqp://app:secret-word@rabbit.example//", "broker"),
        ("BROKER_URL", "amqps://rabbit.example//;amqp://other.example//", "broker"),
    ],
)
def test_production_reaches_other_machines_by_checked_tls_only(environment, name, value, what):
    for given, usual in PRODUCTION.items():
        environment.setenv(given, usual)
    environment.setenv(name, value)

    with pytest.raises(SystemExit, match=f"the {what} is on another machine") as refusal:
        read_environment()
    assert "secret-word" not in str(refusal.value)

    environment.setenv("LOCKSTEP_UNGUARDED_CONNECTIONS", what)
    assert read_environment()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DATABASE_URL", "postgresql://app@127.0.0.1/x"),
        ("DATABASE_URL", "postgresql://app@[::1]/x"),
        ("DATABASE_URL", "postgresql:///x?host=/run/postgresql"),
        ("DATABASE_URL", "postgresql://app@db.example/x?sslmode=verify-ca&sslrootcert=/ca.pem"),
        ("REDIS_URL", "redis://localhost:6379/0"),
        ("REDIS_URL", "rediss://cache.example/0?ssl_cert_reqs=CERT_REQUIRED"),
        ("BROKER_URL", "amqps://rabbit.example//"),
        ("BROKER_URL", "redis+socket:///run/redis.sock"),
    ],
)
def test_production_takes_this_machine_and_checked_tls(environment, name, value):
    for given, usual in PRODUCTION.items():
        environment.setenv(given, usual)
    environment.setenv(name, value)

    assert read_environment()


def test_an_error_shows_no_value(environment):
    environment.setenv("DATABASE_URL", "mysql://app:secret-word@db.example/lockstep")
    environment.setenv("LOCKSTEP_PROFILE", "productoin")

    with pytest.raises(ValidationError) as error:
        Environment()

    assert "secret-word" not in str(error.value)


def test_secrets_are_made_once_and_for_their_owner_alone(environment, tmp_path):
    first, second = Environment(), Environment()

    assert first.django_secret_key() == second.django_secret_key()
    assert first.encryption_key_text() == second.encryption_key_text()
    folder = tmp_path / "data" / "secrets"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert sorted(p.name for p in folder.iterdir()) == ["django_secret_key", "encryption_keys"]
    for path in folder.iterdir():
        assert path.stat().st_mode & 0o777 == 0o600


def test_a_new_data_folder_is_its_owners_alone(environment, tmp_path):
    made = Environment().made_data_dir()

    assert made == tmp_path / "data"
    assert made.stat().st_mode & 0o777 == 0o700


def test_a_made_encryption_key_has_256_bits(environment):
    key_id, _, encoded = Environment().encryption_key_text().strip().partition(":")

    assert key_id == "k1"
    assert len(base64.b64decode(encoded, validate=True)) == 32


def test_keys_come_from_a_file_when_it_is_named(environment, tmp_path):
    path = tmp_path / "keys"
    path.write_text("a:b")
    environment.setenv("LOCKSTEP_ENCRYPTION_KEY_FILE", str(path))

    assert Environment().encryption_key_text() == "a:b"


def test_a_key_file_that_is_not_there_is_named_at_the_start(environment, tmp_path):
    environment.setenv("LOCKSTEP_ENCRYPTION_KEY_FILE", str(tmp_path / "none"))

    with pytest.raises(ValidationError, match="ENCRYPTION_KEY_FILE names no file"):
        Environment()


def test_database_address_is_taken_apart(environment):
    environment.setenv(
        "DATABASE_URL", "postgres://a%40b:p%2Fw%3A1@[::1]:5433/my%20db?sslmode=require"
    )

    database = Environment().django_database()

    assert (database["USER"], database["PASSWORD"]) == ("a@b", "p/w:1")
    assert (database["HOST"], database["PORT"], database["NAME"]) == ("::1", "5433", "my db")
    assert database["OPTIONS"] == {"sslmode": "require"}


@pytest.mark.parametrize(
    ("address", "complaint"),
    [
        ("mysql://a@b/c", "must begin with postgresql://"),
        ("postgresql://a:b@c", "name of a database"),
        ("postgresql://a:b/secret@c/d", "special characters"),
    ],
)
def test_a_wrong_database_address_is_refused(environment, address, complaint):
    environment.setenv("DATABASE_URL", address)

    with pytest.raises(ValidationError, match=complaint):
        Environment()


def test_the_long_name_of_an_address_wins(environment):
    environment.setenv("REDIS_URL", "redis://short/0")
    environment.setenv("LOCKSTEP_REDIS_URL", "redis://long/0")

    assert Environment().celery_broker() == "redis://long/0"


def test_lists_are_names_with_commas(environment):
    environment.setenv("LOCKSTEP_ALLOWED_HOSTS", "a.example, b.example,")

    assert Environment().allowed_hosts == ["a.example", "b.example"]


@pytest.mark.parametrize("left_out", ["ISSUER", "CLIENT_ID", "CLIENT_SECRET"])
def test_single_sign_on_is_whole_or_not_there(environment, left_out):
    values = {"ISSUER": "https://id.example", "CLIENT_ID": "lockstep", "CLIENT_SECRET": "x"}
    for name, value in values.items():
        environment.setenv(f"LOCKSTEP_OIDC_{name}", value)
    assert Environment().single_sign_on()["issuer"] == "https://id.example"
    environment.delenv(f"LOCKSTEP_OIDC_{left_out}")

    with pytest.raises(ValidationError, match="LOCKSTEP_OIDC_CLIENT_ID and"):
        Environment()


def test_an_identity_provider_is_asked_over_https(environment):
    environment.setenv("LOCKSTEP_OIDC_ISSUER", "http://id.example")
    environment.setenv("LOCKSTEP_OIDC_CLIENT_ID", "lockstep")
    environment.setenv("LOCKSTEP_OIDC_CLIENT_SECRET", "x")

    with pytest.raises(ValidationError, match="https://"):
        Environment()


def test_the_test_profile_never_names_the_data_folder_of_the_project(environment):
    environment.delenv("LOCKSTEP_DATA_DIR")
    environment.setenv("LOCKSTEP_PROFILE", "test")

    assert not Environment().data_dir.is_relative_to(BASE_DIR)


def test_a_wrong_setting_ends_a_command_without_a_traceback(environment):
    environment.setenv("LOCKSTEP_PROFILE", "production")
    environment.setenv("DJANGO_SETTINGS_MODULE", "config.settings")

    done = subprocess.run(
        [sys.executable, "manage.py", "check"], cwd=BASE_DIR, capture_output=True, text=True
    )

    assert done.returncode == 1
    assert "Lockstep cannot start" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_reference_lists_every_variable_with_its_default():
    page = (BASE_DIR / "docs" / "reference" / "settings.md").read_text(encoding="utf-8")
    page, _, _ = page.partition("## Tests only")
    rows = dict(re.findall(r"^\| `LOCKSTEP_(\w+)` \| ([^|]*) \|", page, re.MULTILINE))

    assert set(rows) == {name.upper() for name in Environment.model_fields}
    for name, field in Environment.model_fields.items():
        assert _as_written(field.default) in rows[name.upper()], name


def _as_written(default: object) -> str:
    if default is None or default == []:
        return "none"
    if isinstance(default, Path):
        return f"`{default.relative_to(BASE_DIR)}`"
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    if isinstance(default, list):
        return f"`{','.join(default)}`"
    return f"`{default:g}`" if isinstance(default, float) else f"`{default}`"
