"""What answers are made of, and sparse fields: `?fields=id,name` answers with these only."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema_serializer
from rest_framework import serializers

from apps.api.paging import NumberedPageQuery, PageQuery


class FieldNames(serializers.Field):
    """Names with commas between them, of the fields that an answer has."""

    default_error_messages = {"unknown": "there is no field {name}"}

    def __init__(self, names: list[str]) -> None:
        self.names = names
        text = "Only these fields of each object, with commas."
        super().__init__(required=False, help_text=text)

    def to_internal_value(self, data: Any) -> list[str]:
        wanted = str(data).split(",")
        for name in wanted:
            if name not in self.names:
                self.fail("unknown", name=name[:60])
        return wanted

    def to_representation(self, value: Any) -> Any:
        return value


class Shown(serializers.Serializer):
    """Base of what answers are made of. Its context may hold `fields`: the names asked for."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """In the document a `ShownRun` is a `Run`."""
        super().__init_subclass__(**kwargs)
        extend_schema_serializer(component_name=cls.__name__.removeprefix("Shown"))(cls)

    def get_fields(self) -> dict[str, Any]:
        fields = self.every_field()
        for field in fields.values():
            field.read_only, field.required = True, False
            field.validators = []
        wanted = self.context.get("fields") if self._is_the_answer else None
        return {name: field for name, field in fields.items() if not wanted or name in wanted}

    def every_field(self) -> dict[str, Any]:
        """What there is to ask for, by name."""
        fields: dict[str, Any] = super().get_fields()
        return fields

    @property
    def _is_the_answer(self) -> bool:
        """Whether it is no part of another object: the answer itself, or a row of it."""
        return self.parent is None or (
            isinstance(self.parent, serializers.ListSerializer) and (self.parent.parent is None)
        )


class _NoneNeeded:
    """Filters of which none is needed."""

    def get_fields(self) -> dict[str, Any]:
        fields: dict[str, Any] = super().get_fields()  # type: ignore[misc]
        for field in fields.values():
            field.required = False
        return fields


Kind = type[serializers.Serializer]


def one_query(kind: type[Shown]) -> Kind:
    """The query of an operation that answers with one object."""
    return _made(kind, (serializers.Serializer,), {})


def list_query(kind: type[Shown], /, **filters: serializers.Field) -> Kind:
    """The query of a list: its page, its filters, the fields of its rows."""
    return _made(kind, (_NoneNeeded, PageQuery), filters)


def numbered_query(kind: type[Shown], /, **filters: serializers.Field) -> Kind:
    """Likewise, of a list whose rows are numbered."""
    return _made(kind, (_NoneNeeded, NumberedPageQuery), filters)


def _made(kind: type[Shown], bases: Any, filters: dict[str, Any]) -> Kind:
    names = list(kind().get_fields())
    made: Kind = type(f"{kind.__name__}Query", bases, {**filters, "fields": FieldNames(names)})
    return made


def page_schema(kind: type[Shown]) -> Kind:
    """What a list answers with, for the document."""
    place = {
        "items": kind(many=True),
        "next": serializers.CharField(
            allow_null=True, help_text="The cursor of the next page; null: this is the last."
        ),
        "__doc__": "",
    }
    name = kind.__name__.removeprefix("Shown")
    made: Kind = type(f"{name}Page", (serializers.Serializer,), place)
    return made
