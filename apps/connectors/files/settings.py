"""Settings of the files connector."""

from __future__ import annotations

import codecs
from typing import Annotated, ClassVar, Literal

from pydantic import Field, StringConstraints, field_validator

from apps.connectors.base import ConnectorSettings

_ASCII = bytes(range(128))
_Exact = Annotated[str, StringConstraints(strip_whitespace=False)]


class FilesSettings(ConnectorSettings):
    location: ClassVar[tuple[str, ...]] = ("folder",)

    folder: str = Field(
        title="Folder",
        description="Absolute path of the folder that holds the files.",
        min_length=1,
    )
    pattern: str = Field(
        "",
        title="Pattern",
        description="Only files whose path below the folder matches, such as 'export/*.csv'.",
    )
    groups: tuple[str, ...] = Field(
        (),
        title="Groups",
        description="Patterns such as 'orders-*.csv'; the files of each are one read-only dataset.",
    )
    delimiter: _Exact = Field(
        "",
        title="CSV delimiter",
        description="One character; empty: found out from the first lines of each file.",
        max_length=1,
    )
    encoding: str = Field(
        "utf-8",
        title="Encoding",
        description="Of text files: utf-8, utf-16, or a single-byte one such as latin-1, cp1252.",
    )
    null_text: _Exact = Field(
        "",
        title="CSV text for NULL",
        description="An unquoted cell with this text is NULL; a quoted one is that text.",
    )
    schema_source: Literal["sidecar_or_inferred", "sidecar", "inferred"] = Field(
        "sidecar_or_inferred",
        title="Where types come from",
        description="A file '<name>.schema.json' beside the file, or the values themselves.",
    )
    json_records_path: str = Field(
        "",
        title="Path of the records in JSON files",
        description="Names, separated by dots, that lead to the array: 'data.items'.",
    )
    sample_mib: int = Field(
        16,
        title="Sample for types (MiB)",
        description="How much of each file is read to find its types.",
        ge=1,
        le=1024,
        json_schema_extra={"advanced": True},
    )
    max_record_mib: int = Field(
        16,
        title="Largest record (MiB)",
        description="Longer ones are rejected. Bounds the memory that a broken file can take.",
        ge=1,
        le=256,
        json_schema_extra={"advanced": True},
    )
    max_compression_ratio: int = Field(
        500,
        title="Highest compression ratio",
        description="A compressed file that grows beyond this, and beyond 64 MiB, is refused.",
        ge=2,
        json_schema_extra={"advanced": True},
    )

    max_decompressed_gib: int = Field(
        64,
        title="Largest decompressed file (GiB)",
        description="A compressed file that grows beyond this is refused.",
        ge=1,
        json_schema_extra={"advanced": True},
    )

    @property
    def max_decompressed(self) -> int:
        """In bytes."""
        return self.max_decompressed_gib << 30

    @field_validator("delimiter", mode="before")
    @classmethod
    def _name_of_tab(cls, value: object) -> object:
        return "\t" if value in ("\\t", "tab") else value

    @field_validator("delimiter")
    @classmethod
    def _usable_delimiter(cls, value: str) -> str:
        if value and (not value.isascii() or value in '"\r\n\0'):
            raise ValueError("must be one ASCII character, no quote and no line break")
        return value

    @field_validator("encoding")
    @classmethod
    def _usable_encoding(cls, value: str) -> str:
        try:
            name = codecs.lookup(value).name
            known = name in ("utf-8", "utf-8-sig", "utf-16") or _is_single_byte(name)
        except (LookupError, UnicodeError, ValueError, TypeError):
            known = False
        if not known:
            raise ValueError("must be utf-8, utf-16 or a single-byte encoding that contains ASCII")
        return "utf-8" if name == "utf-8-sig" else name


def _is_single_byte(name: str) -> bool:
    holds_ascii = _ASCII.decode(name) == _ASCII.decode("ascii")
    return (
        holds_ascii
        and all(len(bytes([byte]).decode(name, "replace")) == 1 for byte in range(256))
        and len(bytes(range(128, 256)).decode(name, "replace")) == 128
    )
