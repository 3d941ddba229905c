"""The results as a table, and the table in the page on performance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

BEGIN, END = "<!-- figures begin -->", "<!-- figures end -->"


def as_table(results: Sequence[Mapping[str, Any]]) -> str:
    """A Markdown table, one job a row."""
    lines = [
        "| job | rows | limit | Lockstep | ratio | goal | peak | peers |",
        "|---|--:|--:|--:|--:|--:|--:|---|",
    ]
    for result in results:
        peers = ", ".join(f"{name} {taken:.1f} s" for name, taken in result["peers"].items())
        lines.append(
            f"| {result['job']} | {result['rows']:,} | {result['limit_s']:.2f} s "
            f"| {result['ours_s']:.2f} s | {result['ratio']:.2f} | {result['goal']:.2f} "
            f"| {result['peak_mb']} MB | {peers} |"
        )
    return "\n".join(lines)


def write_page(path: Path, results: Sequence[Mapping[str, Any]], facts: Mapping[str, Any]) -> None:
    """Put the table and its conditions between the page's two marks."""
    text = path.read_text()
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    pairs = len(results[0]["pairs"]) if results else 0
    told = (
        f"Medians of {pairs} pairs, ours and the limit in turn in one run; {facts['cores']} cores "
        f"for client and servers together, loopback, Python {facts['python']}."
    )
    path.write_text(f"{before}{BEGIN}\n{told}\n\n{as_table(results)}\n{END}{after}")
