"""Circles through rules are refused by name; trees over shared datasets are not."""

from __future__ import annotations

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.connectors.errors import ConfigurationError
from apps.rules.forest import Edge, require_forest


def edges(*texts: str) -> list[Edge]:
    """`crm = shop` is a two-way rule called `crm=shop`, `crm > shop` one of one direction."""
    made = []
    for text in texts:
        left, sign, right = text.split(" ")[:3]
        made.append(Edge(text.replace(" ", ""), node(left), node(right), sign == "="))
    return made


def node(name: str) -> UUID:
    return UUID(bytes=name.encode().ljust(16, b"\0"))


@pytest.mark.parametrize(
    "rules",
    [
        ["crm = shop", "crm = desk", "desk = mail"],
        ["crm = shop", "crm > store", "shop > store"],
        ["crm = shop", "files > crm", "files > shop"],
        ["crm = shop", "crm > a", "a > b", "desk = mail", "b > desk"],
        ["a > b", "b > a"],  # as it was before there were two-way rules
        ["a > b", "b > a", "crm = shop", "crm > a"],
    ],
)
def test_rules_that_share_datasets_as_a_tree_are_fine(rules):
    require_forest(edges(*rules))


@pytest.mark.parametrize(
    ("rules", "circle"),
    [
        (["crm = shop", "shop = crm"], ["crm=shop", "shop=crm"]),
        (["crm = shop", "crm = shop x"], ["crm=shop", "crm=shopx"]),
        (["crm = shop", "shop = desk", "desk = crm"], ["crm=shop", "shop=desk", "desk=crm"]),
        (["crm = shop", "crm > shop"], ["crm=shop", "crm>shop"]),
        (["crm = shop", "shop > mid", "mid > crm"], ["crm=shop", "shop>mid", "mid>crm"]),
        (["crm = shop", "shop > mid", "mid > shop"], ["shop>mid", "mid>shop"]),
        (
            ["crm = shop", "desk = mail", "crm > desk", "mail > shop"],
            ["crm=shop", "desk=mail", "crm>desk", "mail>shop"],
        ),
    ],
)
def test_a_circle_is_refused_with_its_rules(rules, circle):
    with pytest.raises(ConfigurationError) as caught:
        require_forest(edges(*rules))
    named = {part for part in caught.value.message.split("'") if "=" in part or ">" in part}
    assert named == set(circle)


def test_a_dataset_is_not_kept_in_step_with_itself():
    with pytest.raises(ConfigurationError, match="'crm=crm' joins a dataset with itself"):
        require_forest(edges("crm = crm"))


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=8))
def test_two_way_rules_pass_exactly_where_each_one_joins_two_trees(pairs):
    trees = {number: {number} for number in range(6)}
    grows = True
    for left, right in pairs:
        grows = grows and trees[left] is not trees[right]
        joined = trees[left] | trees[right]
        trees.update(dict.fromkeys(joined, joined))
    every = [Edge(str(n), UUID(int=a), UUID(int=b), True) for n, (a, b) in enumerate(pairs)]
    if grows:
        require_forest(every)
    else:
        with pytest.raises(ConfigurationError):
            require_forest(every)
