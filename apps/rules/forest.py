"""Two-way rules form a forest over datasets: no record is carried round in a circle.

Datasets are the nodes. A two-way rule joins two of them; a rule of one direction is an arrow. In a
circle a counter would count twice and an edit would chase its own echo. Two things are refused:

1. two-way rules that join two datasets which other two-way rules join already (union-find finds
   the second way, a search through the tree names it);
2. arrows that lead from datasets joined by two-way rules back to the same ones: each tree of
   two-way rules counts as one node, and no walk along arrows from such a node may return to it.

Rules that share a dataset without such a circle are how more than two platforms are kept in step.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from uuid import UUID

from apps.connectors.errors import ConfigurationError

Steps = Mapping[UUID, list[tuple[UUID, str]]]


@dataclass(frozen=True, slots=True)
class Edge:
    """A rule as it joins datasets; `left` and `right` are datasets' ids."""

    rule: str
    left: UUID
    right: UUID
    two_way: bool


def require_forest(edges: Iterable[Edge]) -> None:
    """Raises ConfigurationError naming the rules of a circle, in their order."""
    every = list(edges)
    tree_of = _require_tree([edge for edge in every if edge.two_way])
    _require_no_return([edge for edge in every if not edge.two_way], every, tree_of)


def _require_tree(edges: list[Edge]) -> dict[UUID, UUID]:
    """The tree that each dataset belongs to, by the id of one of its datasets."""
    parent: dict[UUID, UUID] = {}
    steps: dict[UUID, list[tuple[UUID, str]]] = {}

    def root(node: UUID) -> UUID:
        while parent.setdefault(node, node) != node:
            node = parent[node]
        return node

    for edge in edges:
        if root(edge.left) == root(edge.right):
            raise _circle([edge.rule, *_path(steps, edge.right, edge.left)])
        parent[root(edge.left)] = root(edge.right)
        steps.setdefault(edge.left, []).append((edge.right, edge.rule))
        steps.setdefault(edge.right, []).append((edge.left, edge.rule))
    return {node: root(node) for node in list(parent)}


def _require_no_return(arrows: list[Edge], every: list[Edge], tree_of: Mapping[UUID, UUID]) -> None:
    steps: dict[UUID, list[tuple[UUID, str]]] = {}
    for edge in every:
        steps.setdefault(edge.left, []).append((edge.right, edge.rule))
        if edge.two_way:
            steps.setdefault(edge.right, []).append((edge.left, edge.rule))
    for arrow in arrows:
        tree = tree_of.get(arrow.left)
        home = [node for node in tree_of if tree_of[node] == tree]
        ways = [_way_back(steps, arrow, node) for node in home]
        found = [way for way in ways if way]
        if found:
            raise _circle(min(found, key=len))


def _way_back(steps: Steps, arrow: Edge, node: UUID) -> list[str]:
    """The rules of a circle: along the arrow, on to `node` of its tree, and through the tree."""
    way = _path(steps, arrow.right, node)
    if not way and node != arrow.right:
        return []
    return list(dict.fromkeys([arrow.rule, *way, *_path(steps, node, arrow.left)]))


def _path(steps: Steps, start: UUID, goal: UUID) -> list[str]:
    """Names of the rules on a shortest way; empty if there is none, or none is needed."""
    before: dict[UUID, tuple[UUID, str]] = {}
    waiting = deque([start])
    while waiting:
        node = waiting.popleft()
        if node == goal:
            break
        for following, rule in steps.get(node, ()):
            if following != start and following not in before:
                before[following] = (node, rule)
                waiting.append(following)
    names: list[str] = []
    while goal in before:
        goal, rule = before[goal]
        names.append(rule)
    return names[::-1]


def _circle(names: list[str]) -> ConfigurationError:
    if len(names) == 1:
        return ConfigurationError(
            f"the rule '{names[0]}' joins a dataset with itself",
            where="direction",
            remedy="Choose two different datasets.",
        )
    listed = " → ".join(f"'{name}'" for name in names)
    return ConfigurationError(
        f"records would go round in a circle through the rules {listed}, and each edit would come "
        "back as a new one",
        where="direction",
        remedy="Two-way rules may share a dataset, as the branches of a tree do, but there is one "
        "way only between any two datasets: remove one of these rules or its way back.",
    )
