"""Form fields made from a connector's settings model, and back.

Each setting becomes a form field named `setting_<name>`. A secret is write-only: its input is
always empty, an empty input keeps what is stored.
"""

from __future__ import annotations

import types
from collections.abc import Mapping
from datetime import datetime
from enum import Enum
from typing import Any, Literal, Union, get_args, get_origin

from django import forms
from django.utils.formats import date_format
from pydantic import SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined
from unfold.widgets import (
    UnfoldAdminIntegerFieldWidget,
    UnfoldAdminPasswordWidget,
    UnfoldAdminSelectWidget,
    UnfoldAdminTextareaWidget,
    UnfoldAdminTextInputWidget,
    UnfoldBooleanSwitchWidget,
)

from apps.connectors.registry import connector_class, secret_names
from apps.sources.models import Source

PREFIX = "setting_"


def setting_fields(connector: str, source: Source | None) -> dict[str, forms.Field]:
    """Form fields of a connector by name, plain ones first as the model declares them."""
    model = connector_class(connector).settings_model
    stored = source.settings if source else {}
    return {
        PREFIX + name: _field(name, info, stored.get(name), source)
        for name, info in model.model_fields.items()
    }


def advanced_names(connector: str) -> set[str]:
    """Names of the form fields that are folded away."""
    model = connector_class(connector).settings_model
    return {
        PREFIX + name
        for name, info in model.model_fields.items()
        if isinstance(info.json_schema_extra, dict) and info.json_schema_extra.get("advanced")
    }


def posted_settings(data: Mapping[str, Any], connector: str) -> dict[str, Any]:
    """Settings by name as they stand in the (unsaved) form; untouched ones are left out."""
    fields = setting_fields(connector, None)
    return {
        name.removeprefix(PREFIX): value
        for name, field in fields.items()
        if (value := _python_value(field, field.widget.value_from_datadict(data, {}, name)))
        not in (None, "")
    }


def settings_errors(connector: str, values: Mapping[str, Any]) -> dict[str | None, list[str]]:
    """What is wrong, by form field; None for what concerns no single one."""
    model = connector_class(connector).settings_model
    try:
        model.model_validate(dict(values))
    except ValidationError as error:
        errors: dict[str | None, list[str]] = {}
        for item in error.errors(include_input=False, include_url=False):
            name = str(item["loc"][0]) if item["loc"] else ""
            place = PREFIX + name if name in model.model_fields else None
            errors.setdefault(place, []).append(item["msg"].removeprefix("Value error, "))
        return errors
    return {}


def stored_settings(source: Source) -> dict[str, str]:
    """The names of the stored secrets with a stand-in value, to judge whether one is missing."""
    names = secret_names(source.connector)
    return {name: "stored" for name in source.secrets_set_at if name in names}


def _field(name: str, info: FieldInfo, stored: Any, source: Source | None) -> forms.Field:
    annotation = _plain(info.annotation)
    common: dict[str, Any] = {
        "label": info.title or name.replace("_", " ").capitalize(),
        "help_text": info.description or "",
        "required": info.is_required() and annotation is not bool,
        "initial": stored if stored is not None else _default(info),
    }
    if annotation is SecretStr:
        return _secret_field(name, common, source)
    choices = _choices(annotation)
    if choices:
        return forms.ChoiceField(choices=choices, widget=UnfoldAdminSelectWidget, **common)
    if annotation is bool:
        return forms.BooleanField(widget=UnfoldBooleanSwitchWidget, **common)
    if annotation is int:
        return forms.IntegerField(widget=UnfoldAdminIntegerFieldWidget, **common)
    if get_origin(annotation) in (tuple, list):
        common["initial"] = "\n".join(common["initial"] or ())
        common["help_text"] = f"{common['help_text']} One on each line.".strip()
        return _LinesField(widget=UnfoldAdminTextareaWidget(attrs={"rows": 3}), **common)
    if isinstance(info.json_schema_extra, dict) and info.json_schema_extra.get("multiline"):
        return _TextField(strip=False, widget=_text_widget(), **common)
    return forms.CharField(strip=True, widget=UnfoldAdminTextInputWidget, **common)


class _TextField(forms.CharField):
    """A text of many lines, as it stands; browsers end its lines in their own way."""

    def to_python(self, value: Any) -> str:
        return (super().to_python(value) or "").replace("\r\n", "\n")


def _text_widget() -> UnfoldAdminTextareaWidget:
    attributes = {"rows": 24, "spellcheck": "false", "class": "ls-code"}
    return UnfoldAdminTextareaWidget(attrs=attributes)


class _LinesField(forms.CharField):
    """A list of texts, one on each line."""

    def to_python(self, value: Any) -> Any:
        text = super().to_python(value) or ""
        return [line.strip() for line in text.splitlines() if line.strip()]

    def has_changed(self, initial: Any, data: Any) -> bool:
        return self.to_python(initial) != self.to_python(data)


def _secret_field(name: str, common: dict[str, Any], source: Source | None) -> forms.Field:
    set_at = source.secrets_set_at.get(name) if source else None
    if set_at:
        common["required"] = False
        day = date_format(datetime.fromisoformat(set_at), "j M Y")
        note = f"Stored, set on {day}. It can be replaced, never shown; empty keeps it."
        common["help_text"] = f"{common['help_text']} {note}".strip()
    common["initial"] = None
    widget = UnfoldAdminPasswordWidget(
        attrs={"autocomplete": "new-password", "placeholder": "••••••••" if set_at else ""},
        render_value=False,
    )
    return forms.CharField(widget=widget, strip=False, **common)


def _plain(annotation: Any) -> Any:
    """The type behind `X | None`."""
    if get_origin(annotation) in (Union, types.UnionType):
        parts = [part for part in get_args(annotation) if part is not type(None)]
        return parts[0] if len(parts) == 1 else str
    return annotation


def _choices(annotation: Any) -> list[tuple[str, str]]:
    if get_origin(annotation) is Literal:
        values = [str(value) for value in get_args(annotation)]
    elif isinstance(annotation, type) and issubclass(annotation, Enum):
        values = [str(member.value) for member in annotation]
    else:
        return []
    return [(value, value.replace("_", " ")) for value in values]


def _default(info: FieldInfo) -> Any:
    default = info.get_default(call_default_factory=True)
    if default is PydanticUndefined or default is None:
        return None
    return default.value if isinstance(default, Enum) else default


def _python_value(field: forms.Field, raw: Any) -> Any:
    """What the setting's model is given: numbers that are none stay text and are refused there."""
    if isinstance(field, forms.BooleanField):
        return bool(field.to_python(raw))
    if isinstance(field, _LinesField | _TextField):
        return field.to_python(raw) or None
    return raw
