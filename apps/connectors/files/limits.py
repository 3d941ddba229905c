"""What a file may come to at most: bounds against files that are built to overwhelm.

How long one record may be, and how far a file may grow when it is decompressed, are settings of
the source; what stands here no sound file reaches.
"""

from __future__ import annotations

from apps.connectors.errors import ConfigurationError, SchemaMismatch

MAX_FIELDS = 5_000
MAX_JSON_DEPTH = 100
MAX_SCHEMA_FILE_BYTES = 4 << 20
FREE_OUTPUT = 64 << 20  # decompressed bytes that no ratio is asked of


def require_field_count(count: int, where: str) -> None:
    """Raise SchemaMismatch where there are too many fields."""
    if count > MAX_FIELDS:
        raise SchemaMismatch(
            f"the file has more than {MAX_FIELDS:,} fields",
            where=where,
            remedy="Look at the file: names may stand where values belong, or the wrong character "
            "separates columns.",
        )


def require_growth(output: int, size: int, max_ratio: int, max_output: int, where: str) -> None:
    """Raise ConfigurationError where `size` bytes become too many. max_output: bytes."""
    if output > max_output:
        raise ConfigurationError(
            f"the file grows to more than {max_output >> 30} GiB when it is decompressed",
            where=where,
            remedy="Look at the file; if it is sound, raise 'Largest decompressed file'.",
        )
    if output > FREE_OUTPUT and output > max_ratio * max(size, 1):
        raise ConfigurationError(
            f"the file grows to more than {max_ratio} times its size when it is decompressed",
            where=where,
            remedy="Look at the file; if it is sound, raise 'Highest compression ratio'.",
        )
