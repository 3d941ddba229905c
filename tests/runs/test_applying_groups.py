"""Changes of a plan are written in as few statements as their order allows."""

from __future__ import annotations

from apps.ledger.selectors import PlannedChange
from apps.runs.services.applying import _groups


def change(sequence: int, operation: str, *fields: str, moves_to: str = "") -> PlannedChange:
    key = f'["{sequence}"]'
    after = moves_to or key
    return PlannedChange(sequence, operation, key, key, after, fields, "{}", "{}", "")


def sequences(*changes: PlannedChange) -> list[list[int]]:
    return [[item.sequence for item in group] for group in _groups(changes)]


def test_updates_of_the_same_fields_go_together_wherever_they_stand() -> None:
    plan = [change(n, "update", "name" if n % 2 else "mail") for n in range(1, 7)]
    assert sequences(*plan) == [[1, 3, 5], [2, 4, 6]]


def test_operations_stay_in_their_order() -> None:
    plan = (change(1, "delete"), change(2, "update", "name"), change(3, "insert", "name"))
    assert sequences(*plan) == [[1], [2], [3]]


def test_where_a_key_moves_the_order_stays() -> None:
    plan = (
        change(1, "update", "id", moves_to='["9"]'),
        change(2, "update", "name"),
        change(3, "update", "id", moves_to='["1"]'),
    )
    assert sequences(*plan) == [[1], [2], [3]]
