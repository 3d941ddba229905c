"""How people know the two sides of a rule: by the names of their sources."""

from __future__ import annotations

from dataclasses import dataclass

from apps.rules.models import Rule


@dataclass(frozen=True, slots=True)
class SideNames:
    """The name of each side, for headings and buttons."""

    left: str
    right: str

    def of(self, side: str) -> str:
        return self.left if side == "left" else self.right

    def other(self, side: str) -> str:
        return self.right if side == "left" else self.left


def side_names(rule: Rule | None) -> SideNames:
    """By source; with the dataset where both are in one source; plain words without a rule."""
    if rule is None:
        return SideNames("the left side", "the right side")
    left, right = rule.mapping.left, rule.mapping.right
    if left.source_id == right.source_id:
        return SideNames(str(left), str(right))
    return SideNames(left.source.name, right.source.name)
