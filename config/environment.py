"""What the environment may say. One class, one place; `docs/reference/settings.md` lists it."""

from __future__ import annotations

import os
import tempfile
from enum import StrEnum
from pathlib import Path
from typing import Annotated
from urllib.parse import SplitResult, unquote, urlsplit

from pydantic import (
    BeforeValidator,
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from apps.connectors.outbound.networks import AllowedNetworks
from config.kept_secrets import kept_secret, new_key_line, new_secret
from config.own_services import (
    LOOPBACK,
    broker_is_guarded,
    broker_tls,
    database_is_guarded,
    mail_server,
    postgresql_database,
    without_tls_options,
)

BASE_DIR = Path(__file__).resolve().parent.parent


def _split_names(value: object) -> object:
    if not isinstance(value, str):
        return value
    return [name.strip() for name in value.split(",") if name.strip()]


# Names, or numbers, with commas between them.
Names = Annotated[list[str], NoDecode, BeforeValidator(_split_names)]
Ports = Annotated[
    list[Annotated[int, Field(ge=1, le=65535)]], NoDecode, BeforeValidator(_split_names)
]


def _split_paths(value: object) -> object:
    if not isinstance(value, str):
        return value
    return [part for part in value.split(os.pathsep) if part]


# Absolute paths of folders, with the system's separator (`:`) between them.
Folders = Annotated[list[Path], NoDecode, BeforeValidator(_split_paths)]


class Profile(StrEnum):
    EMBEDDED = "embedded"  # no server to install: SQLite, file system broker
    PRODUCTION = "production"  # PostgreSQL, Redis or RabbitMQ, HTTPS
    TEST = "test"


class KeyProviderName(StrEnum):
    """Who holds the key-encryption key."""

    LOCAL = "local"  # LOCKSTEP_ENCRYPTION_KEYS or LOCKSTEP_ENCRYPTION_KEY_FILE
    AWS_KMS = "aws-kms"
    VAULT = "vault"


class Environment(BaseSettings):
    """Settings by environment variable; the three URLs may also come without `LOCKSTEP_`."""

    model_config = SettingsConfigDict(
        env_prefix="LOCKSTEP_", env_file=None, extra="ignore", hide_input_in_errors=True
    )

    profile: Profile = Profile.EMBEDDED
    data_dir: Path = BASE_DIR / "data"
    debug: bool = False
    secret_key: SecretStr | None = None
    # Key-encryption keys for values at rest: lines `id:base64`, the first one wraps.
    encryption_keys: SecretStr | None = None
    encryption_key_file: Path | None = None
    key_provider: KeyProviderName = KeyProviderName.LOCAL
    data_key_seconds: PositiveFloat = 3600  # how long a process keeps a data key unwrapped
    kms_key_id: str | None = None
    kms_region: str | None = None
    kms_endpoint: str | None = None
    vault_address: str | None = None
    vault_token: SecretStr | None = None
    vault_token_file: Path | None = None
    vault_namespace: str | None = None
    vault_mount: str = "transit"
    vault_key: str = "lockstep"
    vault_ca_file: Path | None = None
    allowed_hosts: Names = ["127.0.0.1", "localhost", "[::1]"]
    csrf_trusted_origins: Names = []
    database_url: SecretStr | None = None
    redis_url: SecretStr | None = None
    broker_url: SecretStr | None = None  # amqp://… for RabbitMQ; default: redis_url
    files_roots: Folders | None = None  # where files that are sources may be
    # Where sources, key and identity providers may be: `loopback`, `private`, `public`, `sockets`
    # and networks; ports below 1024 beside those that each kind of connection has.
    allowed_networks: Names | None = None
    allowed_ports: Ports = []
    # Which of `database` and `broker` may be on another machine without TLS that is checked.
    unguarded_connections: Names = []
    time_zone: str = "UTC"
    lease_seconds: float = 60.0
    tick_seconds: float = 5.0
    partition_rows: PositiveInt = 2_000_000
    partition_mb: PositiveInt = 2_048
    run_window: PositiveInt = 4
    memory_limit_mb: int = 256
    worker_processes: int = 2
    ledger_rows_limit: int = 10_000
    ledger_compact_days: float = 14
    ledger_keep_days: float = 400
    audit_seal_seconds: float = Field(default=60.0, ge=1)
    audit_verify_hours: float = Field(default=24.0, gt=0)
    audit_checkpoint_file: Path | None = None
    erasure_register: Path | None = None
    log_level: str = "INFO"
    # Mail to people
    mail_url: SecretStr | None = None  # smtps://user:password@host:465, or smtp:// with STARTTLS
    mail_from: str | None = None
    public_url: str | None = None  # where people open this installation
    # Sign-in
    trusted_proxies: NonNegativeInt = 0  # in front of the web program, each appends an address
    session_hours: PositiveFloat = 12
    session_idle_minutes: PositiveFloat = 60
    enrolment_hours: PositiveFloat = 72
    sign_in_failures: PositiveInt = 5
    sign_in_lock_minutes: PositiveFloat = 15
    sign_in_requests: PositiveInt = 60  # at each door, in ten minutes, from one address
    api_requests: PositiveInt = 1200  # in a minute, of one token or client
    passkey_domain: str | None = None
    token_days: PositiveInt = 365  # tokens live no longer
    # Single sign-on by OpenID Connect
    oidc_issuer: str | None = None
    oidc_client_id: str | None = None
    oidc_client_secret: SecretStr | None = None
    oidc_name: str = "single sign-on"
    oidc_strong: Names = ["mfa"]  # values of `amr` or `acr` that stand for a second factor

    @model_validator(mode="before")
    @classmethod
    def _short_names(cls, values: dict[str, object]) -> dict[str, object]:
        for name in ("DATABASE_URL", "REDIS_URL", "BROKER_URL"):
            if os.environ.get(name) and not values.get(name.lower()):
                values[name.lower()] = os.environ[name]
        return values

    @model_validator(mode="after")
    def _can_be_read(self) -> Environment:
        if self.database_url:
            postgresql_database(self.database_url.get_secret_value())
        if self.encryption_key_file and not self.encryption_key_file.is_file():
            raise ValueError("LOCKSTEP_ENCRYPTION_KEY_FILE names no file")
        self.outbound_networks()
        self.mail()
        if self.public_url and urlsplit(self.public_url).scheme not in ("http", "https"):
            raise ValueError("LOCKSTEP_PUBLIC_URL: give an address that begins with https://")
        if not all(root.is_absolute() for root in self.files_roots or []):
            raise ValueError("LOCKSTEP_FILES_ROOTS: give paths from the root, '/…'")
        return self

    @model_validator(mode="after")
    def _key_provider_is_whole(self) -> Environment:
        if self.key_provider is KeyProviderName.AWS_KMS and not self.kms_key_id:
            raise ValueError("the key provider aws-kms needs LOCKSTEP_KMS_KEY_ID")
        if self.key_provider is KeyProviderName.VAULT and not self.vault_address:
            raise ValueError("the key provider vault needs LOCKSTEP_VAULT_ADDRESS")
        if self.vault_address is not None:
            self._vault_is_whole(urlsplit(self.vault_address))
        return self

    def _vault_is_whole(self, address: SplitResult) -> None:
        if address.scheme != "https" and address.hostname not in LOOPBACK:
            raise ValueError("LOCKSTEP_VAULT_ADDRESS must begin with https://")
        if not (self.vault_token or self.vault_token_file):
            raise ValueError(
                "the key provider vault needs LOCKSTEP_VAULT_TOKEN or LOCKSTEP_VAULT_TOKEN_FILE"
            )
        for name in ("vault_token_file", "vault_ca_file"):
            path: Path | None = getattr(self, name)
            if path and not path.is_file():
                raise ValueError(f"LOCKSTEP_{name.upper()} names no file")

    @model_validator(mode="after")
    def _single_sign_on_is_whole(self) -> Environment:
        given = [self.oidc_issuer, self.oidc_client_id, self.oidc_client_secret]
        if any(given) and not all(given):
            raise ValueError(
                "single sign-on needs LOCKSTEP_OIDC_ISSUER, LOCKSTEP_OIDC_CLIENT_ID and "
                "LOCKSTEP_OIDC_CLIENT_SECRET together"
            )
        if self.oidc_issuer and not self.oidc_issuer.startswith("https://"):
            raise ValueError("LOCKSTEP_OIDC_ISSUER must begin with https://")
        return self

    @model_validator(mode="after")
    def _tests_leave_the_data_folder_alone(self) -> Environment:
        if self.profile is Profile.TEST and "data_dir" not in self.model_fields_set:
            self.data_dir = Path(tempfile.gettempdir()) / f"lockstep-test-{os.getuid()}"
        return self

    @model_validator(mode="after")
    def _production_is_explicit(self) -> Environment:
        if self.profile is not Profile.PRODUCTION:
            return self
        missing = [
            name
            for name, value in {
                "DATABASE_URL": self.database_url,
                "REDIS_URL or BROKER_URL": self.redis_url or self.broker_url,
                "LOCKSTEP_SECRET_KEY": self.secret_key,
                "LOCKSTEP_ALLOWED_NETWORKS": self.allowed_networks,
                "LOCKSTEP_ENCRYPTION_KEYS, LOCKSTEP_ENCRYPTION_KEY_FILE or another "
                "LOCKSTEP_KEY_PROVIDER": (
                    self.encryption_keys
                    or self.encryption_key_file
                    or self.key_provider is not KeyProviderName.LOCAL
                ),
            }.items()
            if not value
        ]
        if missing:
            raise ValueError(f"the production profile needs {', '.join(missing)}")
        if self.debug:
            raise ValueError(
                "LOCKSTEP_DEBUG shows strangers settings and values: not in production"
            )
        self._own_services_are_guarded()
        return self

    def _own_services_are_guarded(self) -> None:
        database, broker = self.database_url, self.broker_url or self.redis_url
        open_ways = {
            "database": database and not database_is_guarded(database.get_secret_value()),
            "broker": broker and not broker_is_guarded(broker.get_secret_value()),
        }
        remedies = {
            "database": "add ?sslmode=verify-full to DATABASE_URL",
            "broker": "use rediss:// or amqps:// in REDIS_URL or BROKER_URL",
        }
        for name, is_open in open_ways.items():
            if is_open and name not in self.unguarded_connections:
                raise ValueError(
                    f"the {name} is on another machine and not reached by TLS that checks who is "
                    f"there: {remedies[name]}, or name {name} in LOCKSTEP_UNGUARDED_CONNECTIONS"
                )

    def file_roots(self) -> list[Path]:
        """Where files that are sources may be: embedded the data folder, in production nowhere,
        unless something is said.
        """
        if self.files_roots is not None:
            return self.files_roots
        return [] if self.profile is Profile.PRODUCTION else [self.data_dir]

    def outbound_networks(self) -> AllowedNetworks:
        """Where Lockstep may connect to; whatever is near, unless something is said."""
        if self.allowed_networks is None:
            return AllowedNetworks()
        try:
            return AllowedNetworks.parse(self.allowed_networks)
        except ValueError as error:
            raise ValueError(f"LOCKSTEP_ALLOWED_NETWORKS: {error}") from None

    def secret_values(self) -> list[str]:
        """What must not stand in a log: secrets, and the passwords in addresses."""
        given = [getattr(self, name) for name in type(self).model_fields]
        texts = [value.get_secret_value() for value in given if isinstance(value, SecretStr)]
        urls = [text for text in texts if "://" in text]
        passwords = [unquote(urlsplit(url).password or "") for url in urls]
        keys = [line.partition(":")[2] for line in self.encryption_key_text().split()]
        whole = [text for text in texts if text not in urls]
        return [value for value in (*whole, *passwords, *keys, self.django_secret_key()) if value]

    def single_sign_on(self) -> dict[str, object] | None:
        """Issuer, client and what counts as a second factor; None where there is none."""
        if self.oidc_issuer is None or self.oidc_client_secret is None:
            return None
        return {
            "issuer": self.oidc_issuer,
            "client_id": self.oidc_client_id,
            "client_secret": self.oidc_client_secret.get_secret_value(),
            "name": self.oidc_name,
            "strong": frozenset(self.oidc_strong),
        }

    def mail(self) -> dict[str, object]:
        """Settings of Django for the mail server; none of them where there is no server."""
        if self.mail_url is None:
            return {}
        return mail_server(self.mail_url.get_secret_value(), self.mail_from)

    def own_address(self) -> str:
        """How links in messages begin."""
        if self.public_url:
            return self.public_url.rstrip("/")
        if self.profile is Profile.PRODUCTION:
            return f"https://{next(iter(self.allowed_hosts), 'localhost')}"
        return "http://127.0.0.1:8000"

    def made_data_dir(self) -> Path:
        """The data folder; a new one is its owner's alone: sessions and records are in it."""
        self.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        return self.data_dir

    def django_secret_key(self) -> str:
        if self.secret_key:
            return self.secret_key.get_secret_value()
        return kept_secret(self.data_dir / "secrets" / "django_secret_key", new_secret)

    def encryption_key_text(self) -> str:
        """Lines `id:base64` of the local key-encryption keys; embedded: made at first use.

        Empty where another provider holds the key and no local one is left.
        """
        if self.encryption_keys:
            return self.encryption_keys.get_secret_value()
        if self.encryption_key_file:
            return self.encryption_key_file.read_text(encoding="ascii")
        kept = self.data_dir / "secrets" / "encryption_keys"
        if self.key_provider is not KeyProviderName.LOCAL and not kept.exists():
            return ""
        return kept_secret(kept, new_key_line)

    def django_database(self) -> dict[str, object]:
        if self.database_url is None:
            return {
                "ENGINE": "django.db.backends.sqlite3",
                "NAME": str(self.data_dir / "lockstep.sqlite3"),
                "OPTIONS": {
                    "transaction_mode": "IMMEDIATE",
                    "timeout": 30,
                    "init_command": (
                        "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; "
                        "PRAGMA cache_size=-32000; PRAGMA temp_store=MEMORY"
                    ),
                },
            }
        return postgresql_database(self.database_url.get_secret_value())

    def audit_checkpoints(self) -> Path:
        """The file that the seals of the audit log are told to."""
        return self.audit_checkpoint_file or self.data_dir / "audit-checkpoints.log"

    def erasures(self) -> Path:
        """The file that remembers who was erased, whatever is restored."""
        return self.erasure_register or self.data_dir / "erasures.log"

    def celery_broker(self) -> str:
        return without_tls_options(self._broker_address())

    def celery_broker_tls(self) -> dict[str, object] | None:
        """How TLS to the broker checks who is there; None without TLS."""
        return broker_tls(self._broker_address())

    def _broker_address(self) -> str:
        url = self.broker_url or self.redis_url
        return url.get_secret_value() if url else "filesystem://localhost/"


def read_environment() -> Environment:
    """The environment; where it is wrong, the program ends with a line per mistake, no values."""
    try:
        return Environment()
    except ValidationError as error:
        mistakes = "".join(f"\n  {_mistake(detail)}" for detail in error.errors())
        raise SystemExit(f"Lockstep cannot start with these settings:{mistakes}") from None


def _mistake(detail: ErrorDetails) -> str:
    name = "".join(f"LOCKSTEP_{part}".upper() for part in detail["loc"][:1])
    text = detail["msg"].removeprefix("Value error, ")
    return f"{name}: {text}" if name else text
