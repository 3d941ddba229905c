"""Whoever silences a security finding says which one, and why it is none."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SILENCED = re.compile(r"#\s*(nosec\b.*|noqa: [^#]*\bS\d+.*)$")
EXPLAINED = re.compile(r"(nosec B\d+|noqa: [A-Z0-9, ]+?)(\s+# nosec B\d+)?\s+# \S.{5,}")


def test_every_silenced_finding_has_its_reason() -> None:
    unexplained = []
    for folder in ("apps", "config", "deploy"):
        for path in (ROOT / folder).rglob("*.py"):
            for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
                found = SILENCED.search(line)
                if found and not EXPLAINED.fullmatch(found[1]):
                    unexplained.append(f"{path.relative_to(ROOT)}:{number}: {found[1]}")
    assert unexplained == []
