"""Sources, lookups, mappings and rules as one YAML file: read, apply, export.

`schema` is the format, `reading` turns a file into it, `resolving` makes its short forms explicit,
`applying` creates or updates what the file describes, `exporting` writes what there is.
"""

from apps.rules.configuration.applying import apply
from apps.rules.configuration.diff import Diff, Entry, FieldChange
from apps.rules.configuration.exporting import export, export_text
from apps.rules.configuration.reading import (
    ConfigurationFile,
    ConfigurationFileError,
    read_file,
    read_text,
)

__all__ = [
    "ConfigurationFile",
    "ConfigurationFileError",
    "Diff",
    "Entry",
    "FieldChange",
    "apply",
    "export",
    "export_text",
    "read_file",
    "read_text",
]
