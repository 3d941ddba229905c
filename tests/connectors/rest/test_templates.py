"""Values in paths and bodies."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.connectors.rest.templates import (
    NoAddress,
    PlainPath,
    fill_body,
    fill_path,
    form_pairs,
    placeholders,
)


@given(st.text(min_size=1).filter(lambda text: text not in (".", "..")))
def test_a_value_stays_within_its_segment(value: str) -> None:
    try:
        path = fill_path("/a/{x}/b", {"x": value})
    except UnicodeEncodeError:
        return
    assert path.count("/") == 3
    assert not set(path) & set("?#\\ ")


@pytest.mark.parametrize("value", ["", ".", "..", None])
def test_a_value_that_would_lead_elsewhere_is_refused(value: str | None) -> None:
    with pytest.raises(NoAddress):
        fill_path("/a/{x}", {"x": value})


def test_braces_stand_in_pairs() -> None:
    assert placeholders("/a/{b}/{c d}") == ("b", "c d")
    with pytest.raises(ValueError, match="pairs"):
        placeholders("/a/{b")


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("a", ("a",)),
        ("a.b_1", ("a", "b_1")),
        ('a."odd name"."x.y"', ("a", "odd name", "x.y")),
        ("a[0]", None),
        ("a.", None),
        ("a | b", None),
        ("a-b", None),
    ],
)
def test_paths_along_which_values_are_written(text: str, parts: tuple[str, ...] | None) -> None:
    path = PlainPath.parse(text)
    assert (path.parts if path else None) == parts


def test_a_field_without_a_path_stands_under_its_name() -> None:
    path = PlainPath.of("a.b", "")
    assert path is not None
    record: dict[str, Any] = {}
    path.write(record, 1)
    assert record == {"a.b": 1}


def test_values_of_bodies_are_never_taken_for_templates() -> None:
    values = {"a": "{b}", "b": "secret", "record": {"n": Decimal("1.50")}}
    template = {"whole": "{a}", "text": "say {a}", "rec": "{record}", "list": ["{b}"], "no": "{z}"}
    assert fill_body(template, values) == {
        "whole": "{b}",
        "text": "say {b}",
        "rec": {"n": Decimal("1.50")},
        "list": ["secret"],
    }


def test_forms_have_brackets() -> None:
    body = {"a": {"b": True, "c": None}, "d": [{"e": Decimal("1E+2")}, 2]}
    assert form_pairs(body) == [("a[b]", "true"), ("a[c]", ""), ("d[0][e]", "100"), ("d[1]", "2")]
