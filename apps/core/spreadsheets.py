"""Texts that a spreadsheet program opens: none of them becomes a formula."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from typing import Any

# What programs take for the start of a formula, also where it is written wide (OWASP, CSV
# injection); a tab or a line break before it is skipped by some.
FORMULA_STARTS = tuple("=+-@\t\r\n＝＋－＠")  # noqa: RUF001


def safe_cell(value: Any) -> str:
    """The value as a text; one that would be a formula begins with an apostrophe."""
    text = "" if value is None else str(value)
    return f"'{text}" if text.lstrip(" ").startswith(FORMULA_STARTS) else text


def csv_line(values: Iterable[Any]) -> str:
    """One line of CSV (RFC 4180), every cell safe. For people: machines get other formats."""
    line = io.StringIO()
    csv.writer(line).writerow([safe_cell(value) for value in values])
    return line.getvalue()
