"""The example of docs/how-to/connect-rest.md, with real runs: an API and a database, two-way."""

from __future__ import annotations

import re

import pytest

from apps.connectors.rest.definition import Definition
from apps.connectors.rest.yaml_text import parse_yaml
from apps.ledger.models import Conflict
from tests.connectors.rest.example import DOCS, Example
from tests.connectors.rest.server import Asked, Reply


def test_both_sides_are_brought_in_step_and_stay_so(example: Example) -> None:
    example.run()
    assert (
        example.office()
        == example.shop_rows()
        == [
            ("Ada", "ada@x.example", "Bonn", 5),
            ("Bob", "bob@x.example", None, 0),
            ("Cid", "cid@x.example", None, 0),
            ("Dan", "dan@x.example", "Kiel", 1),
        ]
    )
    writes = [one for one in example.api.asked if one.method != "GET"]
    assert [(one.method, one.body["name"]) for one in writes] == [("POST", "Dan")]

    example.run()
    assert len([one for one in example.api.asked if one.method != "GET"]) == 1


def test_edits_of_both_sides_meet(example: Example) -> None:
    example.run()
    example.shop.put(1, name="Ada L.", points=7)
    example.sql("UPDATE clients SET town = 'Ulm', points = 6 WHERE mail = 'ada@x.example'")
    example.sql("DELETE FROM clients WHERE mail = 'cid@x.example'")
    del example.shop.rows[4]
    example.run()
    assert (
        example.office()
        == example.shop_rows()
        == [
            ("Ada L.", "ada@x.example", "Ulm", 8),
            ("Bob", "bob@x.example", None, 0),
        ]
    )
    assert not Conflict.objects.exists()


def test_a_broken_off_create_makes_no_second_record(example: Example) -> None:
    def then_reset(asked: Asked) -> Reply:
        example.shop.answer(asked)
        return Reply(reset=True)

    post = [True]

    def once(asked: Asked) -> Reply:
        if asked.method == "POST" and post:
            post.clear()
            return then_reset(asked)
        return example.shop.answer(asked)

    example.api.handle = once
    example.run()
    assert not post
    assert example.office() == example.shop_rows()
    assert len(example.shop.rows) == 4


def blocks() -> list[str]:
    text = (DOCS / "connect-rest.md").read_text(encoding="utf-8")
    return re.findall(r"```yml\n(datasets:.*?)```", text, re.DOTALL)


def test_the_page_has_examples() -> None:
    assert len(blocks()) >= 6


@pytest.mark.parametrize("number", range(len(blocks())))
def test_every_example_of_the_page_is_a_definition(number: int) -> None:
    assert parse_yaml(blocks()[number], Definition).datasets
