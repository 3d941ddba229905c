"""From the file's short forms to explicit ones: `${NAME}`, naming rules, `syncs`, new tables."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from apps.connectors.base import DatasetSchema, FieldSchema
from apps.connectors.errors import ConfigurationError, FieldMissing, KeyMissing
from apps.connectors.registry import secret_names
from apps.connectors.types import TEXT, NeutralType
from apps.engine.expressions import parse_expression
from apps.engine.suggest import camel_case, snake_case
from apps.engine.transform import expression_type
from apps.mappings.selectors import LINK_PREFIX, linked_rules, lookup_names
from apps.rules.configuration.schema import (
    FieldSection,
    MappingSection,
    RuleSection,
    SourceSection,
    SyncSection,
)

_VARIABLE = re.compile(r"(?<!\$)\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_NAMINGS: dict[str, Callable[[str], str]] = {
    "same": str,
    "snake_case": snake_case,
    "camelCase": camel_case,
}


class SecretInFile(ConfigurationError):
    """A secret in clear in a configuration file."""

    code = "configuration.secret_in_file"


def resolved_settings(
    section: SourceSection,
    variables: Mapping[str, str],
    stored_secrets: Callable[[Mapping[str, Any]], Mapping[str, str]],
) -> dict[str, Any]:
    """A source's settings with the values of the environment.

    stored_secrets: the stored secrets that still apply to given plain settings. One whose variable
    is not set stays. Raises ConfigurationError naming the setting, never its value.
    """
    secrets = set(secret_names(section.connector))
    plain = {
        name: _filled(value, variables, name)
        for name, value in section.settings.items()
        if name not in secrets
    }
    stored = stored_secrets(plain)
    given = {
        name: _secret(name, value, variables, stored)
        for name, value in section.settings.items()
        if name in secrets
    }
    return plain | {name: value for name, value in given.items() if value is not None}


def _secret(
    name: str, value: Any, variables: Mapping[str, str], stored: Mapping[str, str]
) -> str | None:
    if value in (None, ""):
        return None
    match = _VARIABLE.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise SecretInFile(
            f"'{name}' is a secret and stands in the file",
            where=name,
            remedy=f"Write ${{{name.upper()}}} and set that environment variable.",
        )
    if match[1] not in variables and name in stored:
        return None
    return _variable(match[1], variables, name)


def _filled(value: Any, variables: Mapping[str, str], name: str) -> Any:
    if isinstance(value, str):
        text = _VARIABLE.sub(lambda match: _variable(match[1], variables, name), value)
        return text.replace("$${", "${")
    if isinstance(value, list):
        return [_filled(item, variables, name) for item in value]
    if isinstance(value, dict):
        return {key: _filled(item, variables, name) for key, item in value.items()}
    return value


def _variable(variable: str, variables: Mapping[str, str], setting: str) -> str:
    if variable not in variables:
        raise ConfigurationError(
            f"the environment variable {variable} is not set",
            where=setting,
            remedy=f"Set {variable} and apply the file again.",
        )
    return variables[variable]


def renamed(name: str, naming: str) -> str:
    """A left name as the naming rule writes it: `InvoiceLine` → `invoice_line`."""
    return _NAMINGS[naming](name)


def explicit(
    section: MappingSection, left: DatasetSchema, right: DatasetSchema | None
) -> MappingSection:
    """The mapping with every pair written out. `right` None: the dataset is to be created.

    Raises FieldMissing or KeyMissing.
    """
    fields = dict(section.fields)
    if section.naming is not None:
        used = {field.from_ for field in fields.values()}
        _require_fields(section.leave_out, left)
        for name in left.field_names:
            if name in used or name in section.leave_out:
                continue
            target = _counterpart(name, section.naming, right)
            if target not in fields:
                fields[target] = FieldSection(from_=name)
    key = section.key or _renamed_key(left, fields)
    plain = {name: field.model_copy(update={"type": ""}) for name, field in fields.items()}
    return section.model_copy(
        update={"fields": plain, "key": key, "naming": None, "leave_out": (), "create": False}
    )


def _counterpart(name: str, naming: str, right: DatasetSchema | None) -> str:
    target = renamed(name, naming)
    if right is None or target in right.field_names:
        return target
    alike = [other for other in right.field_names if other.lower() == target.lower()]
    if len(alike) == 1:
        return alike[0]
    raise FieldMissing(
        f"'{name}' has no counterpart '{target}' in {right.name}",
        where=name,
        remedy="Name its field under `fields`, or the left field under `leave_out`.",
    )


def _renamed_key(left: DatasetSchema, fields: Mapping[str, FieldSection]) -> tuple[str, ...]:
    rights = {field.from_: right for right, field in fields.items() if field.from_}
    if not left.key or any(part not in rights for part in left.key):
        raise KeyMissing(
            f"{left.name} has no key that this mapping carries over",
            where="key",
            remedy="Write `key:` with the right fields that identify a record.",
        )
    return tuple(rights[part] for part in left.key)


def _require_fields(names: tuple[str, ...], schema: DatasetSchema) -> None:
    for name in names:
        if name not in schema.field_names:
            close = difflib.get_close_matches(name, schema.field_names, n=1)
            raise FieldMissing(
                f"'{name}' is no field of {schema.name}",
                where="leave_out",
                remedy=f"Write {close[0]}."
                if close
                else f"Fields: {', '.join(schema.field_names)}.",
            )


def new_dataset(section: MappingSection, left: DatasetSchema, name: str) -> DatasetSchema:
    """The right dataset that this mapping needs: a field per pair, the mapping's key."""
    pairs = explicit(section, left, None)
    fields = []
    for right, field in pairs.fields.items():
        declared = section.fields[right].type if right in section.fields else ""
        fields.append(_new_field(right, field, declared, left, required=right in pairs.key))
    return DatasetSchema(name=name, fields=tuple(fields), key=pairs.key)


def _new_field(
    right: str, field: FieldSection, declared: str, left: DatasetSchema, *, required: bool
) -> FieldSchema:
    origin = next((item for item in left.fields if item.name == field.from_), None)
    if field.from_ and origin is None:
        raise FieldMissing(f"'{field.from_}' is no field of {left.name}", where=right)
    if origin is not None:
        nullable = origin.nullable and field.default is None and not required
        kept = replace(origin, name=right, nullable=nullable, native_type="", has_default=False)
        kept = replace(kept, server_assigned=False, generated=False)
        return replace(kept, type=_neutral(declared, right)) if declared else kept
    neutral = _neutral(declared, right) if declared else _type_of(field, left, right)
    return FieldSchema(right, neutral, nullable=not required)


def _neutral(text: str, where: str) -> NeutralType:
    try:
        return NeutralType.parse(text)
    except ValueError as error:
        raise ConfigurationError(str(error), where=f"{where}.type") from None


def _type_of(field: FieldSection, left: DatasetSchema, where: str) -> NeutralType:
    if not field.expression:
        return TEXT
    types = {item.name: item.type for item in left.fields}
    links = {LINK_PREFIX + name for name in linked_rules(field.expression)}
    parsed = parse_expression(field.expression, types, lookups=lookup_names() | links, where=where)
    return expression_type(parsed, types, where=where)


@dataclass(frozen=True, slots=True)
class SyncPair:
    """One left dataset of a `syncs` block with the mapping and rule that it stands for."""

    name: str
    mapping: MappingSection
    rule: RuleSection


def sync_pairs(
    name: str, sync: SyncSection, known: Mapping[str, DatasetSchema]
) -> Iterator[SyncPair]:
    """The mappings and rules of a `syncs` block. known: datasets of its left source.

    Rules depend on each other as the left datasets refer to each other.
    """
    chosen = _chosen(sync, known)
    for left, right in chosen.items():
        after = {
            f"{name}/{reference.dataset}"
            for reference in known[left].references
            if reference.dataset in chosen and reference.dataset != left
        }
        policies = {field: getattr(sync.rule, field) for field in type(sync.rule).model_fields}
        policies["depends_on"] = tuple(sorted({*sync.rule.depends_on, *after}))
        mapping = MappingSection(
            left=f"{sync.from_}: {left}",
            right=f"{sync.to}: {right}",
            naming=sync.naming,
            create=sync.create,
        )
        yield SyncPair(f"{name}/{left}", mapping, RuleSection.model_construct(**policies))


def _chosen(sync: SyncSection, known: Mapping[str, DatasetSchema]) -> dict[str, str]:
    named = sync.datasets or {n: "" for n, schema in known.items() if schema.format != "view"}
    for name in (*named, *sync.leave_out):
        if name not in known:
            close = difflib.get_close_matches(name, list(known), n=1)
            raise ConfigurationError(
                f"{sync.from_} has no dataset '{name}'",
                where="datasets",
                remedy=f"Write {close[0]}." if close else "Discover the source again.",
            )
    return {
        left: right or renamed(left, sync.naming)
        for left, right in named.items()
        if left not in sync.leave_out
    }
