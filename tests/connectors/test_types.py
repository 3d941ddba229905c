"""Neutral types: which one holds every value of another."""

from __future__ import annotations

import pytest

from apps.connectors.types import NeutralType


@pytest.mark.parametrize(
    ("wider", "narrower"),
    [
        ("text", "text(40)"),
        ("text(40)", "text(40)"),
        ("decimal(12,2)", "decimal(10,2)"),
        ("decimal(12,4)", "decimal(10,2)"),
        ("decimal", "decimal(10,2)"),
        ("array(text)", "array(text(3))"),
        ("timestamptz", "timestamptz"),
        ("text", "uuid"),
        ("text(36)", "uuid"),
    ],
)
def test_a_wider_type_holds_all_values(wider: str, narrower: str) -> None:
    assert NeutralType.parse(wider).holds(NeutralType.parse(narrower))


@pytest.mark.parametrize(
    ("narrower", "wider"),
    [
        ("text(40)", "text"),
        ("text(40)", "text(41)"),
        ("decimal(12,2)", "decimal(12,3)"),
        ("decimal(12,4)", "decimal(12,2)"),
        ("decimal(12,2)", "decimal"),
        ("array(text(3))", "array(text)"),
        ("timestamp", "timestamptz"),
        ("text(35)", "uuid"),
        ("uuid", "text"),
        ("float", "integer"),
    ],
)
def test_a_narrower_or_other_type_does_not(narrower: str, wider: str) -> None:
    assert not NeutralType.parse(narrower).holds(NeutralType.parse(wider))
