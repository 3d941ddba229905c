"""The encoding of records: no two are encoded alike."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from apps.connectors.base import KeySpan
from apps.connectors.digests import Form, encode_texts, has_length, number_sql

FORMS = [*Form, "postgresql:json"]
tricky = st.text("01a:|<null>é😀\0", max_size=6)
plain = st.text("0123456789abcdefx-+:. ", min_size=1, max_size=8)


@st.composite
def two_records(draw: st.DrawFn) -> tuple[list[str], list[str | None], list[str | None]]:
    forms = draw(st.lists(st.sampled_from(FORMS), min_size=1, max_size=5))
    texts = [st.none() | (tricky if has_length(form) else plain) for form in forms]
    return forms, draw(st.tuples(*texts)), draw(st.tuples(*texts))


@settings(deadline=None)
@given(two_records())
def test_records_are_encoded_alike_only_if_they_are_equal(
    records: tuple[list[str], list[str | None], list[str | None]],
) -> None:
    forms, one, other = records
    assert (encode_texts(one, forms) == encode_texts(other, forms)) is (one == other)


@settings(deadline=None)
@given(two_records())
def test_an_encoding_reads_back(
    records: tuple[list[str], list[str | None], list[str | None]],
) -> None:
    forms, one, _ = records
    assert decoded(encode_texts(one, forms).encode(), forms) == list(one)


def decoded(data: bytes, forms: list[str]) -> list[str | None]:
    """What an encoding says, read field by field."""
    texts: list[str | None] = []
    for form in forms:
        before, _, data = data.partition(b":" if has_length(form) else b"|")
        if has_length(form):
            length = int(before) if before else 0
            before, data = (data[:length] if before else None), data[length:]
        else:
            before = before or None
        texts.append(None if before is None else before.decode())
    if data:
        raise AssertionError("something is left")
    return texts


def test_many_spans_are_told_apart_by_few_comparisons() -> None:
    edges = [(number,) for number in range(1, 1024)]
    spans = [KeySpan(a, b) for a, b in zip([None, *edges], [*edges, None], strict=True)]

    class Column:
        order = "k"

        @staticmethod
        def literal(value: int) -> str:
            return str(value)

    sql = number_sql([Column()], spans)  # type: ignore[list-item]
    depth = deepest = 0
    for word in sql.split():
        depth += {"CASE": 1, "END": -1}.get(word, 0)
        deepest = max(deepest, depth)
    assert deepest == 10
