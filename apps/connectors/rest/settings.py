"""Settings of the REST connector: where the API is, who signs in, and what it offers."""

from __future__ import annotations

from functools import cached_property, lru_cache
from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import urlsplit

import yaml
from pydantic import Field, SecretStr, StringConstraints, field_validator, model_validator

from apps.connectors.base import ConnectorSettings
from apps.connectors.rest.definition import Definition
from apps.connectors.rest.presets import preset
from apps.connectors.rest.yaml_text import parse_yaml

_DEFINITIONS_KEPT = 32

_Exact = Annotated[str, StringConstraints(strip_whitespace=False)]
Preset = Literal["", "github", "hubspot", "stripe"]
Authentication = Literal[
    "", "none", "basic", "bearer", "api_key_header", "api_key_query", "hmac",
    "oauth2_client_credentials",
]  # fmt: skip
_OWN_SETTINGS = ("url", "auth", "key_name", "token_url")
_NAMED_KEY = ("api_key_header", "api_key_query")


@lru_cache(_DEFINITIONS_KEPT)
def _definition(text: str) -> Definition:
    """A long text takes a while to check, and is checked for every operation."""
    return parse_yaml(text, Definition)


class RestSettings(ConnectorSettings):
    location: ClassVar[tuple[str, ...]] = ("url", "preset")

    preset: Preset = Field(
        "",
        title="Preset",
        description="A well-known API that Lockstep comes with; what is set here goes before it.",
    )
    url: str = Field(
        "",
        title="Base address",
        description="All paths of datasets are below it: https://api.example.org/v1.",
    )
    auth: Authentication = Field(
        "",
        title="Authentication",
        description="How requests are signed in; empty: as the preset says, else none.",
    )
    user: str = Field(
        "",
        title="User",
        description="User name, client id of OAuth 2.0, or id of a key.",
    )
    secret: SecretStr | None = Field(
        None,
        title="Secret",
        description="Password, key, token, HMAC key or client secret.",
    )
    key_name: str = Field(
        "",
        title="Name of the key",
        description="Header or query parameter that carries an API key, such as X-API-Key.",
    )
    token_url: str = Field(
        "",
        title="Token address",
        description="Where OAuth 2.0 gives out access tokens.",
    )
    scope: str = Field("", title="Scope", description="Of the OAuth 2.0 token, if it needs one.")
    definition: _Exact = Field(
        "",
        title="Datasets",
        description="YAML that says what the API offers; see 'connect a REST API'.",
        json_schema_extra={"multiline": True},
    )
    timeout: int = Field(
        30,
        title="Timeout",
        description="Seconds to wait for an answer to begin or to go on.",
        ge=1,
        le=600,
        json_schema_extra={"advanced": True},
    )
    retries: int = Field(
        4,
        title="Retries",
        description="How often a request is repeated that failed for a passing reason.",
        ge=0,
        le=20,
        json_schema_extra={"advanced": True},
    )
    longest_wait: int = Field(
        120,
        title="Longest wait (s)",
        description="For how long a worker waits where the API asks for patience; else later.",
        ge=0,
        le=3600,
        json_schema_extra={"advanced": True},
    )
    max_answer_mib: int = Field(
        32,
        title="Largest answer (MiB)",
        description="After decompression. Larger ones are refused; ask for smaller pages.",
        ge=1,
        le=1024,
        json_schema_extra={"advanced": True},
    )
    sample_records: int = Field(
        500,
        title="Sample for types",
        description="How many records are read to find types that are not declared.",
        ge=1,
        le=100_000,
        json_schema_extra={"advanced": True},
    )
    read_only: bool = Field(
        False, title="Read only", description="Never write to this API, whatever a rule says."
    )

    @field_validator("definition", mode="before")
    @classmethod
    def _as_text(cls, value: Any) -> Any:
        """Configuration files write it as it is; it is kept as text."""
        if isinstance(value, dict):
            return yaml.safe_dump(value, sort_keys=False, allow_unicode=True)
        return value.replace("\r\n", "\n") if isinstance(value, str) else value

    @field_validator("definition")
    @classmethod
    def _usable(cls, value: str) -> str:
        own = _definition(value)
        for name in _OWN_SETTINGS:
            if getattr(own, name):  # secrets go to the address that they were set for
                raise ValueError(f"'{name}' is a setting of its own, and not a part of this text")
        return value

    @field_validator("url", "token_url")
    @classmethod
    def _address(cls, value: str) -> str:
        parts = urlsplit(value)
        if value and (parts.scheme not in ("https", "http") or not parts.hostname):
            raise ValueError("an address that begins with https://")
        if "@" in parts.netloc or parts.query or parts.fragment:
            raise ValueError("without a user, a query and a fragment")
        return value.rstrip("/")

    @model_validator(mode="after")
    def _complete(self) -> RestSettings:
        if not self.api.url:
            raise ValueError("'url' is missing: the base address of the API")
        auth = self.api.auth
        if auth not in ("", "none") and self.secret is None:
            raise ValueError(f"authentication by {auth} needs a secret")
        if auth in _NAMED_KEY and not self.api.key_name:
            raise ValueError(f"authentication by {auth} needs 'key_name'")
        if auth == "oauth2_client_credentials" and not (self.api.token_url and self.user):
            raise ValueError("OAuth 2.0 needs 'token_url' and 'user', the client id")
        return self

    @cached_property
    def api(self) -> Definition:
        """The preset with what is set here in its place."""
        own = _definition(self.definition)
        base = preset(self.preset) if self.preset else Definition()
        given = {name: getattr(own, name) for name in own.model_fields_set}
        given["headers"] = {**base.headers, **own.headers}
        given["datasets"] = {**base.datasets, **own.datasets}
        for name in _OWN_SETTINGS:
            if value := getattr(self, name):
                given[name] = value
        return base.model_copy(update=given)

    @property
    def max_answer(self) -> int:
        """In bytes."""
        return self.max_answer_mib << 20

    @property
    def secret_text(self) -> str:
        """The secret in clear; empty where there is none."""
        return self.secret.get_secret_value() if self.secret else ""
