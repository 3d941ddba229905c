"""Reverse changes put back exactly what was written over."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from apps.connectors.base import Operation
from apps.engine.reversing import WrittenChange, reverse_of

Record = dict[str, str | None]
INSERT, UPDATE, DELETE = Operation.INSERT, Operation.UPDATE, Operation.DELETE


def change(operation: Operation, before: Record | None, after: Record | None) -> WrittenChange:
    return WrittenChange(operation, '["1"]', '["1"]', before, after)


def test_an_update_is_put_back_field_by_field() -> None:
    reverse = reverse_of([change(UPDATE, {"a": "1"}, {"a": "2"})])
    assert reverse is not None
    assert (reverse.operation, reverse.before, reverse.after) == (UPDATE, {"a": "2"}, {"a": "1"})


def test_an_insert_is_undone_by_a_delete_of_just_what_was_written() -> None:
    reverse = reverse_of(
        [change(INSERT, None, {"k": "1", "a": "1"}), change(UPDATE, {"a": "1"}, {"a": None})]
    )
    assert reverse is not None
    assert (reverse.operation, reverse.before) == (DELETE, {"k": "1", "a": None})


def test_a_delete_is_undone_by_an_insert_of_the_record_before_all_changes() -> None:
    reverse = reverse_of(
        [change(UPDATE, {"a": "old"}, {"a": "new"}), change(DELETE, {"k": "1", "a": "new"}, None)]
    )
    assert reverse is not None
    assert (reverse.operation, reverse.after) == (INSERT, {"k": "1", "a": "old"})


def test_a_key_that_moved_moves_back() -> None:
    moved = WrittenChange(UPDATE, '["1"]', '["2"]', {"k": "1"}, {"k": "2"})
    reverse = reverse_of([moved, WrittenChange(UPDATE, '["2"]', '["3"]', {"k": "2"}, {"k": "3"})])
    assert reverse is not None
    assert (reverse.key, reverse.key_after) == ('["3"]', '["1"]')


@st.composite
def lives(draw: st.DrawFn) -> tuple[Record | None, list[WrittenChange], Record | None]:
    """A record's state, changes to it, and its state afterwards."""
    value = st.sampled_from(["1", "2", None])
    whole = st.fixed_dictionaries({"k": st.just("1"), "a": value, "b": value})
    start: Record | None = draw(st.none() | whole)
    state = dict(start) if start is not None else None
    made: list[WrittenChange] = []
    for _ in range(draw(st.integers(1, 6))):
        if state is None:
            state = draw(whole)
            made.append(change(INSERT, None, dict(state)))
        elif draw(st.booleans()):
            made.append(change(DELETE, dict(state), None))
            state = None
        else:
            name, new = draw(st.sampled_from(["a", "b"])), draw(value)
            made.append(change(UPDATE, {name: state[name]}, {name: new}))
            state = {**state, name: new}
    return start, made, state


def applied(state: Record | None, reverse: Any) -> Record | None:
    if reverse is None:
        return state
    if reverse.operation is INSERT:
        assert state is None
        return dict(reverse.after)
    assert state is not None
    assert reverse.before.items() <= state.items()
    return None if reverse.operation is DELETE else {**state, **reverse.after}


@given(lives())
def test_any_life_is_put_back(
    life: tuple[Record | None, list[WrittenChange], Record | None],
) -> None:
    start, changes, end = life
    assert applied(end, reverse_of(changes)) == start


@given(lives(), st.sampled_from(["a", "b"]))
def test_what_was_edited_since_no_longer_fits(
    life: tuple[Record | None, list[WrittenChange], Record | None], name: str
) -> None:
    _, changes, end = life
    reverse = reverse_of(changes)
    if reverse is None or end is None or name not in (reverse.before or {}):
        return
    edited = {**end, name: "edited since"}
    assert not (reverse.before or {}).items() <= edited.items()
