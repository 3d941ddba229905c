"""What applying a file does to other platforms: discover, and create what is missing."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from apps.connectors.base import Connector, DatasetSchema
from apps.connectors.errors import ConfigurationError
from apps.connectors.registry import build, parse_settings, secret_names
from apps.core.selectors import require
from apps.rules.configuration.reading import ConfigurationFile
from apps.rules.configuration.resolving import resolved_settings
from apps.rules.configuration.schema import split_reference
from apps.sources.models import Source
from apps.sources.selectors import connector_for, sources
from apps.sources.services import kept_secrets

if TYPE_CHECKING:
    from apps.accounts.models import User

ALL = "*"


class Outside:
    """The sources that a file names, as they are and as they are to be.

    settings: by source of the file, with secrets in clear; found: datasets by source that was
    discovered; tables: right datasets to create, by source and name.
    """

    def __init__(
        self, file: ConfigurationFile, variables: Mapping[str, str], actor: User | None
    ) -> None:
        self.file = file
        self.actor = actor
        self.settings: dict[str, dict[str, Any]] = {}
        self.found: dict[str, list[DatasetSchema]] = {}
        self.tables: dict[tuple[str, str], DatasetSchema] = {}
        for name, section in file.document.sources.items():
            stored = partial(applicable_secrets, name, section.connector)
            with file.locating("sources", name, "settings"):
                values = resolved_settings(section, variables, stored)
                parse_settings(section.connector, {**stored(values), **values})
                self.settings[name] = values

    def discover(self) -> None:
        """Read the datasets of sources that are new, have moved, or lack a needed dataset."""
        for name, needed in self._needed().items():
            known = Source.objects.filter(name=name).first()
            if known is None or self._is_outdated(name, known, needed):
                if name in self.settings:
                    require(self.actor, sources, "save", known)
                require(self.actor, sources, "discover", known)
                with self.file.locating("sources", name):
                    self.found[name] = self._connector(name).discover()

    def create_tables(self) -> None:
        """Create the missing datasets, and see what has become of them."""
        for (source, dataset), schema in self.tables.items():
            with self.file.locating("sources", source):
                connector = self._connector(source)
                connector.create_dataset(schema)
                self.tables[source, dataset] = connector.describe(dataset)

    def _connector(self, name: str) -> Connector[Any]:
        section = self.file.document.sources.get(name)
        if section is not None:
            values = self.settings[name]
            kept = applicable_secrets(name, section.connector, values)
            return build(section.connector, {**kept, **values})
        return connector_for(require_source(name))

    def _needed(self) -> dict[str, set[str]]:
        """Datasets by source that the file names; ALL stands for whatever there is."""
        document = self.file.document
        references = list(document.datasets)
        references += [r for m in document.mappings.values() for r in (m.left, m.right)]
        needed: dict[str, set[str]] = {}
        for source, dataset in map(split_reference, references):
            needed.setdefault(source, set()).add(dataset)
        for sync in document.syncs.values():
            for source in (sync.from_, sync.to):
                needed.setdefault(source, set()).add(ALL)
        return needed

    def _is_outdated(self, name: str, known: Source, needed: set[str]) -> bool:
        present = set(known.datasets.filter(missing_since=None).values_list("name", flat=True))
        return known.discovered_at is None or not needed <= present or self._has_moved(name, known)

    def _has_moved(self, name: str, known: Source) -> bool:
        section = self.file.document.sources.get(name)
        if section is None:
            return False
        kept = applicable_secrets(name, section.connector, self.settings[name])
        settings = plain_settings(section.connector, {**kept, **self.settings[name]})
        return (section.connector, settings) != (known.connector, known.settings)


def applicable_secrets(name: str, connector: str, values: Mapping[str, Any]) -> dict[str, str]:
    """Those of the stored secrets that may be sent to the address that the file names."""
    return kept_secrets(Source.objects.filter(name=name).first(), connector, values)


def plain_settings(connector: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as they are stored: checked, without secrets and defaults."""
    parsed = parse_settings(connector, dict(values))
    plain: dict[str, Any] = parsed.model_dump(
        mode="json", exclude=set(secret_names(connector)), exclude_defaults=True
    )
    return plain


def require_source(name: str) -> Source:
    """The source of that name. Raises ConfigurationError."""
    source = Source.objects.filter(name=name).first()
    if source is None:
        raise ConfigurationError(
            f"there is no source '{name}'",
            remedy="Describe it under `sources:`, or correct its name.",
        )
    return source
