"""Which connectors there are: ours, and those of installed packages.

A package adds one through an entry point in the group `lockstep.connectors` that names its
`Connector` subclass. Connectors are imported when they are first asked for.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from pydantic import SecretStr, ValidationError

from apps.connectors.base import Connector, ConnectorSettings
from apps.connectors.errors import ConfigurationError

ENTRY_POINT_GROUP = "lockstep.connectors"

_BUILT_IN = {
    "sqlite": "apps.connectors.sqlite:SqliteConnector",
    "postgresql": "apps.connectors.postgresql:PostgresqlConnector",
    "mysql": "apps.connectors.mysql:MysqlConnector",
    "files": "apps.connectors.files:FilesConnector",
    "rest": "apps.connectors.rest:RestConnector",
}


def register(name: str, path: str) -> None:
    """Add a connector that needs more than the ground floor; its room does so when it starts.

    path: `module:class`, imported when it is first asked for.
    """
    _BUILT_IN[name] = path
    connector_names.cache_clear()
    connector_class.cache_clear()


def _load(path: str) -> type[Connector[Any]]:
    module, _, attribute = path.partition(":")
    loaded: type[Connector[Any]] = getattr(import_module(module), attribute)
    return loaded


@cache
def connector_names() -> tuple[str, ...]:
    third_party = {point.name for point in entry_points(group=ENTRY_POINT_GROUP)}
    return (*_BUILT_IN, *sorted(third_party - set(_BUILT_IN)))


@cache
def connector_class(name: str) -> type[Connector[Any]]:
    """The connector of that name. Raises ConfigurationError, listing the names there are."""
    if name in _BUILT_IN:
        return _load(_BUILT_IN[name])
    for point in entry_points(group=ENTRY_POINT_GROUP, name=name):
        loaded: type[Connector[Any]] = point.load()
        return loaded
    raise ConfigurationError(
        f"there is no connector '{name}'", remedy=f"Use one of: {', '.join(connector_names())}."
    )


def secret_names(name: str) -> tuple[str, ...]:
    """Names of the settings that are secrets (fields of type SecretStr, optional or not)."""
    fields = connector_class(name).settings_model.model_fields
    return tuple(key for key, info in fields.items() if _is_secret(info.annotation))


def _is_secret(annotation: Any) -> bool:
    return annotation is SecretStr or SecretStr in getattr(annotation, "__args__", ())


def parse_settings(name: str, values: dict[str, Any]) -> ConnectorSettings:
    """Validate settings. Raises ConfigurationError that names every wrong field, never a value."""
    try:
        return connector_class(name).settings_model.model_validate(values)
    except ValidationError as error:
        problems = [
            f"{'.'.join(str(part) for part in item['loc']) or 'settings'}: {item['msg']}"
            for item in error.errors(include_input=False, include_url=False)
        ]
        raise ConfigurationError("; ".join(problems), where=f"settings of {name}") from None


def build(name: str, values: dict[str, Any]) -> Connector[Any]:
    """A connector with these settings."""
    return connector_class(name)(parse_settings(name, values))
