"""The schema file beside a data file: `<file>.schema.json`.

{"fields": [{"name": "id", "type": "integer", "nullable": false}, ...], "key": ["id"]}
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, ValidationError

from apps.connectors.base import DatasetSchema, FieldSchema
from apps.connectors.errors import SchemaMismatch
from apps.connectors.files.limits import MAX_SCHEMA_FILE_BYTES, require_field_count
from apps.connectors.files.paths import FileRef
from apps.connectors.types import NeutralType


class _Field(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: str
    type: str
    nullable: bool = True


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid")

    fields: list[_Field]
    key: list[str] = []


@dataclass(frozen=True, slots=True)
class Sidecar:
    """Declared fields and key."""

    fields: tuple[FieldSchema, ...]
    key: tuple[str, ...]


def load(ref: FileRef) -> Sidecar | None:
    """The schema file's content, None if there is none. Raises SchemaMismatch if it is wrong."""
    try:
        if ref.sidecar.is_symlink():
            raise SchemaMismatch("the schema file is a symbolic link", where=ref.dataset)
        if ref.sidecar.stat().st_size > MAX_SCHEMA_FILE_BYTES:
            raise SchemaMismatch("the schema file is too large", where=ref.dataset)
        text = ref.sidecar.read_text("utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise SchemaMismatch(
            f"the schema file cannot be read: {error}", where=ref.dataset
        ) from None
    try:
        document = _Document.model_validate_json(text)
        fields = tuple(
            FieldSchema(f.name, NeutralType.parse(f.type), f.type, f.nullable)
            for f in document.fields
        )
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise SchemaMismatch(
            f"the schema file is wrong at '{place}': {first['msg']}", where=ref.dataset
        ) from None
    except ValueError as error:
        raise SchemaMismatch(f"the schema file is wrong: {error}", where=ref.dataset) from None
    require_field_count(len(fields), ref.dataset)
    names = {f.name for f in fields}
    missing = [name for name in document.key if name not in names]
    if missing or len(names) != len(fields):
        raise SchemaMismatch(
            "the schema file names a field twice, or a key field that is none", where=ref.dataset
        )
    return Sidecar(fields, tuple(document.key))


def render(schema: DatasetSchema) -> bytes:
    """The text of a schema file."""
    document = {
        "fields": [
            {"name": f.name, "type": str(f.type), "nullable": f.nullable} for f in schema.fields
        ],
        "key": list(schema.key),
    }
    return (json.dumps(document, ensure_ascii=False, indent=2) + "\n").encode()
