"""First match: what counts as the same value, by each way of evening out."""

from __future__ import annotations

import duckdb
import pytest

from apps.engine.reconcile.matching import normalised_sql
from apps.engine.spec import Normalisation
from apps.engine.types_sql import literal


def normalised(text: str, *how: str) -> str | None:
    sql = normalised_sql(literal(text), tuple(map(Normalisation, how)))
    return duckdb.sql(f"SELECT {sql}").fetchall()[0][0]


@pytest.mark.parametrize(
    ("how", "texts"),
    [
        (["phone"], ["+49 (0)30/1234", "0049 30 1234", " +49-30-1234", "+49301234"]),
        (["phone"], ["(030) 1234", "030-1234"]),
        (["email"], [" Ada@X.Example ", "ada@x.example"]),
        (["accents", "case"], ["López", "LOPEZ", "lo\u0301pez"]),
        (["trim"], ["  Ada \u00a0 Byron", "Ada Byron\n"]),
        ([], ["\u00e9", "e\u0301"]),
    ],
)
def test_these_are_the_same(how: list[str], texts: list[str]) -> None:
    assert len({normalised(text, *how) for text in texts}) == 1


@pytest.mark.parametrize(
    ("how", "texts"),
    [
        (["phone"], ["030 1234", "+30 1234", "0049 30 1234"]),
        (["accents"], ["Lopez", "lopez"]),
        (["trim"], ["AdaByron", "Ada Byron"]),
        ([], ["Ada", "Ada "]),
    ],
)
def test_these_are_not(how: list[str], texts: list[str]) -> None:
    assert len({normalised(text, *how) for text in texts}) == len(texts)


@pytest.mark.parametrize(("how", "text"), [("phone", "+"), ("phone", "none"), ("trim", "  ")])
def test_what_is_empty_then_matches_nothing(how: str, text: str) -> None:
    assert normalised(text, how) is None
