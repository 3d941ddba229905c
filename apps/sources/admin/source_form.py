"""The form of a source: its own fields and those of its connector's settings."""

from __future__ import annotations

from typing import Any

from django import forms

from apps.connectors.registry import connector_class, connector_names
from apps.core.admin import ServiceForm
from apps.sources.admin.settings_form import (
    PREFIX,
    posted_settings,
    setting_fields,
    settings_errors,
    stored_settings,
)
from apps.sources.models import Source


def connector_choices() -> list[tuple[str, str]]:
    return [(name, connector_class(name).label) for name in connector_names()]


LIMITS = ("most_partitions", "most_rows_per_second", "most_bytes_per_second")
KEPT = ("name", "description", "owner", "criticality", *LIMITS)
"""Fields that every source has; what is typed in them stays when another connector is chosen."""


class SourceForm(ServiceForm):
    """Subclasses made by `source_form` carry the fields of one connector."""

    connector_name = ""

    class Meta:
        model = Source
        fields = ("name", "connector", *KEPT[1:])

    def setting_values(self) -> dict[str, Any]:
        """Settings by name as they were typed."""
        return posted_settings(self.data, self.connector_name)

    def clean(self) -> dict[str, Any] | None:
        cleaned = super().clean()
        if self.connector_name:
            known = stored_settings(self.instance) if self.instance.connector else {}
            values = {**known, **self.setting_values()}
            for place, texts in settings_errors(self.connector_name, values).items():
                if place not in self.errors:
                    self.add_error(place, forms.ValidationError(texts))
        return cleaned


def source_form(connector: str, source: Source | None) -> type[SourceForm]:
    """The form class for this connector; without one it asks for the connector only."""
    fields = setting_fields(connector, source) if connector else {}
    return type("ConnectorSourceForm", (SourceForm,), {**fields, "connector_name": connector})


def setting_names(form: type[SourceForm]) -> list[str]:
    return [name for name in form.declared_fields if name.startswith(PREFIX)]
