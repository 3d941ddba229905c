"""Records that refer to each other, where the right side assigns its own ids."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest

from apps.rules.configuration import apply, read_text
from apps.rules.models import Rule
from apps.runs.models import Run
from apps.runs.services import request_run, work_until_finished
from tests.platforms import lines

pytestmark = pytest.mark.django_db(transaction=True)

PEOPLE = "CREATE TABLE people (id INTEGER PRIMARY KEY, name TEXT, boss INTEGER)"
STAFF = "CREATE TABLE staff (sid INTEGER PRIMARY KEY, name TEXT, manager INTEGER)"
CONFIGURATION = """
sources:
  Left: {connector: sqlite, settings: {path: "${LEFT}"}}
  Right: {connector: sqlite, settings: {path: "${RIGHT}"}}
mappings:
  staff:
    left: "Left: people"
    right: "Right: staff"
    key: [sid]
    fields:
      name: name
      manager:
        expression: link('staff', boss)
        back: link('staff', manager)
        back_to: boss
rules:
  staff:
    direction: two_way
    two_way: {policy: left, first_contact: left}
"""


class Staff:
    def __init__(self, folder: Path) -> None:
        self.left, self.right = folder / "left.db", folder / "right.db"
        self.query(self.left, PEOPLE)
        self.query(self.right, STAFF)
        self.query(self.right, "INSERT INTO staff VALUES (100, 'First', NULL)")
        variables = {"LEFT": str(self.left), "RIGHT": str(self.right)}
        apply(read_text(CONFIGURATION, "staff.yaml"), actor=None, variables=variables)

    def query(self, path: Path, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        with sqlite3.connect(path) as database:
            return list(database.execute(sql, values))

    def run(self) -> Run:
        run = work_until_finished(request_run(Rule.objects.get(), actor=None))
        assert run.status == "succeeded", lines(run)
        return run

    def names(self) -> tuple[dict[str, str], dict[str, str]]:
        """Who reports to whom, by name, on the left and on the right."""
        left = "SELECT p.name, b.name FROM people p JOIN people b ON b.id = p.boss"
        right = "SELECT s.name, m.name FROM staff s JOIN staff m ON m.sid = s.manager"
        return dict(self.query(self.left, left)), dict(self.query(self.right, right))


@pytest.fixture
def staff(tmp_path: Path) -> Staff:
    return Staff(tmp_path)


def test_new_records_that_refer_to_each_other_get_their_references_on_both_sides(
    staff: Staff,
) -> None:
    staff.query(staff.left, "INSERT INTO people VALUES (1, 'Aide', 2), (2, 'Head', 1)")
    staff.query(staff.right, "INSERT INTO staff VALUES (7, 'Clerk', 8), (8, 'Chief', 100)")
    staff.run()
    staff.run()  # all are linked now, so that references can be translated
    assert staff.run().planned == 0
    everybody = {"Aide": "Head", "Head": "Aide", "Clerk": "Chief", "Chief": "First"}
    assert staff.names() == (everybody, everybody)


def test_a_reference_to_a_record_that_is_new_too(staff: Staff) -> None:
    staff.query(staff.right, "INSERT INTO staff VALUES (7, 'Clerk', 100)")
    staff.run()
    staff.run()
    staff.query(staff.right, "INSERT INTO staff VALUES (9, 'New', NULL)")
    staff.query(staff.right, "UPDATE staff SET manager = 9 WHERE sid = 7")
    staff.run()
    staff.run()
    assert staff.run().planned == 0
    assert staff.names() == ({"Clerk": "New"}, {"Clerk": "New"})
