"""Images and keys: canonical texts that read back exactly."""

from __future__ import annotations

import json
import time

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.connectors.errors import MalformedRecord
from apps.connectors.types import (
    BYTES,
    FLOAT,
    INTEGER,
    TEXT,
    TIMESTAMPTZ,
    Kind,
    NeutralType,
    array,
    decimal,
)
from apps.engine.codec import (
    canonical_texts,
    decode_images,
    decode_keys,
    encode_images,
    encode_keys,
    image_hashes,
)
from apps.engine.types_sql import key_sql, key_text, key_values
from tests.engine.strategies import SCALARS, TYPES, plain_values, storage_values, texts, to_array


@st.composite
def tables(draw):
    chosen = draw(st.lists(st.sampled_from(TYPES), min_size=1, max_size=4))
    names = draw(st.lists(texts, min_size=len(chosen), max_size=len(chosen), unique=True))
    rows = draw(st.integers(0, 4))
    fields = dict(zip(names, chosen, strict=True))
    columns = [
        to_array(draw(st.lists(storage_values(kind), min_size=rows, max_size=rows)), kind)
        for kind in chosen
    ]
    return pa.table(columns, names=names), fields


@given(tables())
@settings(max_examples=150, deadline=None)
def test_images_read_back_exactly(case):
    table, fields = case
    images = encode_images(table, fields)
    assert len(images) == table.num_rows
    back = decode_images(images, fields)
    for place, neutral in enumerate(fields.values()):
        assert back.column(place).type == neutral.arrow
        assert plain_values(back.column(place), neutral) == plain_values(
            table.column(place), neutral
        )


@given(tables())
@settings(max_examples=50, deadline=None)
def test_every_value_of_an_image_is_a_text_or_null(case):
    table, fields = case
    for image in encode_images(table, fields):
        values = json.loads(image)
        assert list(values) == list(fields)
        assert all(value is None or isinstance(value, str) for value in values.values())


KEY_TYPES = [t for t in SCALARS if t.kind not in (Kind.JSON, Kind.FLOAT)]


@given(st.data(), st.sampled_from(KEY_TYPES))
@settings(max_examples=100, deadline=None)
def test_keys_read_back_exactly(data, neutral):
    values = data.draw(st.lists(storage_values(neutral), min_size=1, max_size=4))
    table = pa.table({"k": to_array(values, neutral)})
    back = decode_keys(encode_keys(table, {"k": neutral}), {"k": neutral})
    assert plain_values(back.column(0), neutral) == plain_values(table.column(0), neutral)


@given(st.lists(st.none() | texts, max_size=4))
@settings(max_examples=200, deadline=None)
def test_python_and_sql_write_the_same_key(values):
    text = key_text(values)
    assert key_values(text) == values
    if values:
        columns = {f"f{place}": TEXT for place in range(len(values))}
        table = pa.table(
            {f"f{place}": pa.array([v], pa.string()) for place, v in enumerate(values)}
        )
        assert encode_keys(table, columns) == [text]


@pytest.mark.parametrize(
    ("sql", "neutral", "text"),
    [
        ("0.50::decimal(10,2)", decimal(10, 2), "0.5"),
        ("-0.05::decimal(3,3)", decimal(3, 3), "-0.05"),
        ("100::decimal(10,2)", decimal(10, 2), "100"),
        ("100::decimal(10,0)", decimal(10, 0), "100"),
        ("true", Kind.BOOLEAN, "true"),
        ("'-0.0'::double", FLOAT, "0.0"),
        ("'nan'::double", FLOAT, "nan"),
        ("timestamp '2024-02-29 01:02:03.5'", Kind.TIMESTAMP, "2024-02-29T01:02:03.500000"),
        ("timestamptz '2024-02-29 01:02:03+02'", Kind.TIMESTAMPTZ, "2024-02-28T23:02:03.000000Z"),
        ("date '0044-03-15 (BC)'", Kind.DATE, "0044-03-15 (BC)"),
        ("'\\x00\\xFF'::blob", BYTES, "AP8="),
    ],
)
def test_canonical_texts_in_keys(sql, neutral, text):
    kind = neutral if isinstance(neutral, NeutralType) else NeutralType(neutral)
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        assert connection.sql(f"SELECT {key_sql([(sql, kind)])}").fetchall() == [
            (key_text([text]),)
        ]


def test_rows_keep_their_order_and_names_differ_by_case():
    rows = 150_000
    table = pa.table({"a": range(rows), "A": [f"x{place}" for place in range(rows)]})
    fields = {"a": INTEGER, "A": TEXT}
    images = encode_images(table, fields)
    assert images[0] == '{"a":"0","A":"x0"}'
    assert images[-1] == f'{{"a":"{rows - 1}","A":"x{rows - 1}"}}'
    assert decode_images(images, fields).equals(table)


def test_a_field_that_an_image_lacks_is_null():
    assert decode_images(['{"a":"1"}'], {"a": INTEGER, "b": TEXT}).to_pylist() == [
        {"a": 1, "b": None}
    ]


def test_an_image_of_other_types_is_malformed():
    with pytest.raises(MalformedRecord):
        decode_images(['{"a":"one"}'], {"a": INTEGER})


def test_the_hash_does_not_depend_on_the_order_of_fields():
    table = pa.table({"a": [1], "b": ["x"]})
    one = image_hashes(table, {"a": INTEGER, "b": TEXT})
    assert one == image_hashes(table, {"b": TEXT, "a": INTEGER})
    assert len(one[0]) == 32


def test_arrays_are_json_arrays_of_canonical_texts():
    table = pa.table({"t": pa.array([[0, None]], pa.list_(pa.timestamp("us", tz="UTC")))})
    assert canonical_texts(table, {"t": array(TIMESTAMPTZ)}).to_pylist() == [
        {"t": '["1970-01-01T00:00:00.000000Z",null]'}
    ]


def test_encoding_is_fast():
    rows = 100_000
    table = pa.table({f"f{place}": range(rows) for place in range(12)})
    fields = {f"f{place}": INTEGER for place in range(12)}
    start = time.perf_counter()
    encode_images(table, fields)
    assert time.perf_counter() - start < 3
