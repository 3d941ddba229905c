"""Compiling mappings and transforming batches: exact or rejected, never silently changed."""

from __future__ import annotations

from datetime import UTC, date, datetime, time
from decimal import Decimal

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.connectors.errors import ConfigurationError, ExpressionRefused, FieldMissing, KeyMissing
from apps.connectors.types import TEXT, NeutralType
from apps.engine.codec import canonical_texts
from apps.engine.execution import Runner
from apps.engine.spec import CheckSpec, RuleSpec
from apps.engine.transform import (
    TransformProgram,
    canonical_value,
    compile_transform,
    cursor_maximum,
)
from tests.engine.specs import batch_of, dataset, mapped, one_value, transform
from tests.engine.strategies import SCALARS, plain_values, storage_values, to_array

LEFT = dataset("left", id="integer", name="text", price="decimal(10,4)", country="text")
RIGHT = dataset("right", id="integer!", name="text(5)!", price="decimal(6,2)", country="text")
MAPPING = mapped(LEFT, RIGHT, "id", "name", "price", "country")


def row(**values):
    return {"id": 1, "name": "abc", "price": Decimal("1.5"), "country": "de", **values}


EXACT = [
    ("text", "integer", " +12 ", 12),
    ("text", "integer", "9223372036854775807", 2**63 - 1),
    ("text", "decimal(6,2)", "1.500", Decimal("1.50")),
    ("text", "decimal(6,2)", "-.5", Decimal("-0.50")),
    ("text", "float", "1e3", 1000.0),
    ("text", "float", "-Infinity", float("-inf")),
    ("text", "boolean", "Yes", True),
    ("text", "boolean", "0", False),
    ("text", "date", "2024-02-29", date(2024, 2, 29)),
    ("text", "time", "23:59:59.5", time(23, 59, 59, 500_000)),
    ("text", "timestamp", "2024-02-29T01:02:03", datetime(2024, 2, 29, 1, 2, 3)),  # noqa: DTZ001
    (
        "text",
        "timestamptz",
        "2024-02-29 01:02:03+01:00",
        datetime(2024, 2, 29, 0, 2, 3, tzinfo=UTC),
    ),
    (
        "text",
        "uuid",
        "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11",
        "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
    ),
    ("text", "json", '{"b": 1.0, "a": [true]}', '{"a":[true],"b":1}'),
    ("text", "array(integer)", "[1, 2, null]", [1, 2, None]),
    ("json", "array(text)", '["a"]', ["a"]),
    ("array(integer)", "array(text)", [1, None], ["1", None]),
    ("array(text)", "array(text(3))", ["abc"], ["abc"]),
    ("array(text)", "json", ["a", None], '["a",null]'),
    ("array(decimal(5,2))", "text", [Decimal("1.50")], '["1.5"]'),
    ("text", "decimal", "00012.3400", "12.34"),
    ("text", "decimal(50,2)", "1" * 48 + ".5", "1" * 48 + ".5"),
    ("integer", "decimal(20,0)", 5, Decimal("5")),
    ("integer", "decimal(3,1)", -99, Decimal("-99.0")),
    ("integer", "float", 2**53, float(2**53)),
    ("integer", "text(2)", 12, "12"),
    ("integer", "boolean", 1, True),
    ("boolean", "integer", True, 1),
    ("decimal(10,4)", "decimal(6,2)", Decimal("1.5000"), Decimal("1.50")),
    ("decimal(10,4)", "integer", Decimal("7"), 7),
    ("decimal(10,4)", "float", Decimal("0.1"), 0.1),
    ("decimal(10,4)", "text", Decimal("1.5"), "1.5"),
    ("decimal", "decimal(6,2)", "12.5", Decimal("12.50")),
    ("decimal", "integer", "12", 12),
    ("decimal(38,38)", "decimal(38,38)", Decimal("0.5"), Decimal("0.5")),
    ("float", "integer", -3.0, -3),
    ("float", "decimal(6,2)", 0.1, Decimal("0.10")),
    ("float", "text", float("nan"), "nan"),
    ("date", "timestamp", date(2024, 2, 29), datetime(2024, 2, 29)),  # noqa: DTZ001
    ("timestamp", "date", datetime(2024, 2, 29), date(2024, 2, 29)),  # noqa: DTZ001
    ("timestamp", "text", datetime(2024, 2, 29), "2024-02-29T00:00:00.000000"),  # noqa: DTZ001
    ("text(3)", "text(3)", "äöü", "äöü"),
    ("text", "text(2)", "😀😀", "😀😀"),
    ("bytes", "bytes", b"\x00", b"\x00"),
]

REJECTED = [
    ("text", "integer", "abc", "record.conversion"),
    ("text", "integer", "1.5", "record.conversion"),
    ("text", "integer", "0x10", "record.conversion"),
    ("text", "integer", "1_000", "record.conversion"),
    ("text", "integer", "", "record.conversion"),
    ("text", "integer", "9223372036854775808", "record.out_of_range"),
    ("text", "decimal(6,2)", "1.555", "record.lossy"),
    ("text", "decimal(6,2)", "12345.5", "record.out_of_range"),
    ("text", "decimal(6,2)", "1e3", "record.conversion"),
    ("text", "decimal(50,2)", "1.555", "record.lossy"),
    ("text", "decimal(50,2)", "1" * 49, "record.out_of_range"),
    ("text", "float", "one", "record.conversion"),
    ("text", "boolean", "maybe", "record.conversion"),
    ("text", "date", "29.02.2024", "record.conversion"),
    ("text", "date", "2023-02-29", "record.conversion"),
    ("text", "timestamp", "2024-02-29T01:02:03Z", "record.conversion"),
    ("text", "timestamptz", "2024-02-29T01:02:03", "record.conversion"),
    ("text", "uuid", "abc", "record.conversion"),
    ("text", "json", "{", "record.conversion"),
    ("text", "array(integer)", "[1, 1.5]", "record.conversion"),
    ("text", "array(integer)", "7", "record.conversion"),
    ("array(text)", "array(text(2))", ["abc"], "record.too_long"),
    ("integer", "decimal(3,1)", 100, "record.out_of_range"),
    ("integer", "float", 2**53 + 1, "record.lossy"),
    ("integer", "float", 2**63 - 1, "record.lossy"),
    ("integer", "boolean", 2, "record.conversion"),
    ("integer", "text(2)", 123, "record.too_long"),
    ("decimal(10,4)", "decimal(6,2)", Decimal("1.555"), "record.lossy"),
    ("decimal(10,4)", "decimal(6,2)", Decimal("99999"), "record.out_of_range"),
    ("decimal(10,4)", "integer", Decimal("1.5"), "record.lossy"),
    ("decimal(38,0)", "integer", Decimal("1" + "0" * 30), "record.out_of_range"),
    ("decimal(38,0)", "decimal(38,38)", Decimal("5"), "record.out_of_range"),
    ("decimal(38,20)", "float", Decimal("0.12345678901234567891"), "record.lossy"),
    ("float", "integer", 1.5, "record.lossy"),
    ("float", "integer", float("nan"), "record.conversion"),
    ("float", "integer", 1e300, "record.out_of_range"),
    ("float", "integer", 9.3e18, "record.out_of_range"),
    ("float", "decimal(6,2)", 0.125, "record.lossy"),
    ("float", "decimal(6,2)", float("inf"), "record.conversion"),
    ("float", "decimal(6,2)", 1e10, "record.out_of_range"),
    ("timestamp", "date", datetime(2024, 2, 29, 1), "record.lossy"),  # noqa: DTZ001
    ("text", "text(2)", "abc", "record.too_long"),
]

NEVER = [
    ("bytes", "text"), ("text", "bytes"), ("timestamptz", "timestamp"),
    ("timestamp", "timestamptz"), ("timestamptz", "date"), ("date", "integer"),
    ("float", "boolean"), ("json", "integer"), ("uuid", "integer"), ("integer", "date"),
]  # fmt: skip


@pytest.mark.parametrize(("source", "target", "value", "expected"), EXACT, ids=str)
def test_exact_conversions(source, target, value, expected):
    assert one_value(source, target, value) == expected


@pytest.mark.parametrize(("source", "target", "value", "code"), REJECTED, ids=str)
def test_inexact_conversions_reject_the_record(source, target, value, code):
    assert one_value(source, target, value) == code


@pytest.mark.parametrize(("source", "target"), NEVER)
def test_conversions_that_need_a_decision_are_refused_with_a_remedy(source, target):
    with pytest.raises(ConfigurationError) as refusal:
        one_value(source, target, None)
    assert refusal.value.where == "field 'v'"
    assert "expression" in refusal.value.remedy or "Say" in refusal.value.remedy


@pytest.mark.parametrize(("source", "target", "value", "expected"), EXACT[:6] + EXACT[20:])
def test_null_stays_null(source, target, value, expected):
    assert one_value(source, target, None) is None


@given(st.data(), st.sampled_from(SCALARS))
@settings(max_examples=20, deadline=None)
def test_a_value_copied_to_its_own_type_and_to_text_is_unchanged(data, neutral):
    values = data.draw(st.lists(storage_values(neutral), min_size=1, max_size=4))
    left = dataset("l", id="integer", v=str(neutral))
    same = mapped(left, dataset("r", id="integer", v=str(neutral)), "id", "v")
    table = pa.table({"id": range(len(values)), "v": to_array(values, neutral)})
    with Runner(compile_transform(same, RuleSpec())) as runner:
        copied = runner.run(table.to_batches()[0]).records.sort_by("id")
    assert plain_values(copied.column("v"), neutral) == plain_values(table.column("v"), neutral)
    if neutral.kind.value == "bytes":
        return
    as_text = mapped(left, dataset("r", id="integer", v="text"), "id", "v")
    with Runner(compile_transform(as_text, RuleSpec())) as runner:
        texts = runner.run(table.to_batches()[0]).records.sort_by("id").column("v")
    expected = canonical_texts(table.select(["v"]), {"v": neutral}).column(0)
    assert texts.to_pylist() == expected.to_pylist()


def test_keys_and_storage_of_records():
    done = transform(MAPPING, [row()])
    assert done.records.to_pylist() == [
        {"id": 1, "name": "abc", "price": Decimal("1.50"), "country": "de",
         "__left_key": '["1"]', "__right_key": '["1"]'}
    ]  # fmt: skip
    assert done.records.schema.field("price").type == pa.decimal128(6, 2)


def test_without_a_left_key_the_right_key_stands_for_the_record():
    left = dataset("l", (), code="text", v="integer")
    right = dataset("r", ("code",), code="text", v="integer")
    done = transform(mapped(left, right, "code", "v", key=("code",)), [{"code": "a\n", "v": 1}])
    assert done.records.column("__left_key").to_pylist() == ['["a\\n"]']


def test_a_rejection_tells_keys_field_message_and_record():
    rejection = transform(MAPPING, [row(name="toolong", country=None)]).rejected[0]
    assert (rejection.left_key, rejection.right_key) == ('["1"]', '["1"]')
    assert (rejection.code, rejection.field) == ("record.too_long", "name")
    assert rejection.message == "the text is longer than 5 characters"
    assert rejection.record == {"id": "1", "name": "toolong", "price": "1.5", "country": None}


def test_the_message_names_the_value():
    left, right = dataset("l", id="integer", v="text"), dataset("r", id="integer", v="integer")
    rejection = transform(mapped(left, right, "id", "v"), [{"id": 1, "v": "abc"}]).rejected[0]
    assert rejection.message == "'abc' is not an integer"


def test_required_and_key():
    done = transform(MAPPING, [row(id=None), row(id=2, name=None)])
    assert [(r.code, r.field) for r in done.rejected] == [
        ("record.key_missing", "id"),
        ("record.required", "name"),
    ]
    assert done.rejected[0].left_key is None


def test_default_and_constant():
    mapping = mapped(
        LEFT,
        RIGHT,
        "id",
        {"right": "name", "left": "name", "default": "none"},
        {"right": "price", "constant": "1.50"},
        {"right": "country", "to_right": "NULL", "default": "x"},
    )
    values = transform(mapping, [row(name=None)]).records.to_pylist()[0]
    assert (values["name"], values["price"], values["country"]) == ("none", Decimal("1.50"), "x")


@pytest.mark.parametrize("text", ["1.555", "abc", "99999"])
def test_a_constant_that_does_not_fit_is_a_fault_of_the_mapping(text):
    mapping = mapped(LEFT, RIGHT, "id", "name", {"right": "price", "constant": text})
    with pytest.raises(ConfigurationError) as refusal:
        compile_transform(mapping, RuleSpec())
    assert refusal.value.where == "field 'price', constant"


def test_one_failing_expression_rejects_only_its_record():
    mapping = mapped(
        LEFT, RIGHT, "id", "name", {"right": "price", "to_right": "cast(country as integer)"}
    )
    rows = [row(id=n, country="x" if n % 3 == 0 else str(n % 50)) for n in range(1, 301)]
    done = transform(mapping, rows)
    assert done.records.num_rows == 200
    assert {r.code for r in done.rejected} == {"record.expression_failed"}
    assert {r.field for r in done.rejected} == {"price"}
    assert "Could not convert string 'x'" in done.rejected[0].message
    assert sorted(r.left_key for r in done.rejected) == sorted(f'["{n}"]' for n in range(3, 301, 3))


def test_an_overflow_rejects_only_its_record():
    mapping = mapped(LEFT, RIGHT, "id", "name", {"right": "price", "to_right": "id * id / 1e18"})
    done = transform(mapping, [row(id=2**62), row(id=10**9)])
    assert done.records.num_rows == 1
    assert done.rejected[0].code == "record.expression_failed"


def test_an_expression_is_converted_exactly_too():
    mapping = mapped(LEFT, RIGHT, "id", "name", {"right": "price", "to_right": "price / 3"})
    assert transform(mapping, [row(price=Decimal(1))]).rejected[0].code == "record.lossy"
    mapping = mapped(
        LEFT, RIGHT, "id", "name", {"right": "price", "to_right": "round(price / 3, 2)"}
    )
    assert transform(mapping, [row(price=Decimal(1))]).records.column("price")[
        0
    ].as_py() == Decimal("0.33")


def test_the_filter_leaves_records_out_before_anything_else_is_judged():
    mapping = mapped(
        LEFT, RIGHT, "id", "name", {"right": "price", "to_right": "cast(country as integer)"}
    )
    rows = [row(id=1, country="7"), row(id=2, country="x"), row(id=3, country=None, name="toolong")]
    done = transform(mapping, rows, RuleSpec(filter="regexp_full_match(country, '[0-9]+')"))
    assert done.records.column("id").to_pylist() == [1]
    assert sorted(done.left_out.column("__left_key").to_pylist()) == ['["2"]', '["3"]']
    assert done.rejected == []


def test_a_filter_that_fails_rejects_the_record():
    done = transform(
        MAPPING,
        [row(country="x"), row(id=2, country="5")],
        RuleSpec(filter="cast(country as int) > 1"),
    )
    assert done.rejected[0].code == "record.expression_failed"
    assert done.records.column("id").to_pylist() == [2]


def test_outside_the_filter_an_unreadable_key_is_still_told():
    left = dataset("l", (), id="text", v="text")
    right = dataset("r", id="integer", v="text")
    rows = [
        {"id": "x", "v": "n"},
        {"id": None, "v": "n"},
        {"id": "3", "v": "n"},
        {"id": "4", "v": "y"},
    ]
    done = transform(mapped(left, right, "id", "v"), rows, RuleSpec(filter="v = 'y'"))
    assert [r.code for r in done.rejected] == ["record.conversion"]
    assert done.left_out.column("__right_key").to_pylist() == ['["3"]']


def test_lookups_links_and_unknown_keys():
    lookups = {
        "countries": pa.table({"key": ["de", "1.5"], "value": ["Germany", "one and a half"]}),
        "link:prices": pa.table({"key": ["1"], "value": ["77"]}),
    }
    mapping = mapped(
        LEFT,
        dataset("r", id="integer", name="text", price="integer", country="text"),
        "id",
        {"right": "name", "to_right": "lookup('countries', price)"},
        {"right": "price", "to_right": "link('prices', id)"},
        {"right": "country", "to_right": "coalesce(lookup('countries', country), 'unknown')"},
    )
    done = transform(mapping, [row(), row(id=2, country="xx")], lookups=lookups)
    values = done.records.sort_by("id").to_pylist()
    assert [v["name"] for v in values] == ["one and a half"] * 2
    assert [v["price"] for v in values] == [77, None]
    assert [v["country"] for v in values] == ["Germany", "unknown"]


CHECKS = [
    ({"kind": "type", "field": "country", "type": "integer"}, "12", "x"),
    ({"kind": "required", "field": "country"}, "x", None),
    ({"kind": "pattern", "field": "country", "pattern": "[a-z]{2}"}, "de", "deu"),
    ({"kind": "range", "field": "country", "minimum": "b", "maximum": "d"}, "c", "e"),
    ({"kind": "set", "field": "country", "values": ("de", "fr")}, "de", "it"),
    ({"kind": "reference", "field": "country", "lookup": "known"}, "de", "it"),
    ({"kind": "expression", "expression": "country <> name"}, "de", "abc"),
    ({"kind": "expression", "expression": "lookup('known', country) is null"}, "xx", "fr"),
]


@pytest.mark.parametrize(("check", "good", "bad"), CHECKS)
@pytest.mark.parametrize("severity", ["reject", "warn", "stop"])
def test_checks(check, good, bad, severity):
    rule = RuleSpec(checks=(CheckSpec(name="c", severity=severity, **check),))
    known = {"known": pa.table({"key": ["de", "fr"], "value": [None, "France"]})}
    done = transform(MAPPING, [row(country=good), row(id=2, country=bad)], rule, known)
    found = {"reject": done.rejected, "stop": done.stops, "warn": []}[severity]
    assert done.records.num_rows == (2 if severity == "warn" else 1)
    assert done.warnings == ({"c": 1} if severity == "warn" else {})
    assert [(r.check, r.code, r.left_key) for r in found] == (
        [] if severity == "warn" else [("c", "record.check_failed", '["2"]')]
    )


@pytest.mark.parametrize("kind", [c for c, _, _ in CHECKS if c["kind"] not in ("required",)])
def test_null_passes_every_check_but_required(kind):
    if kind.get("expression") == "lookup('known', country) is null":
        return
    rule = RuleSpec(checks=(CheckSpec(name="c", **kind),))
    known = {"known": pa.table({"key": ["de"], "value": ["x"]})}
    assert transform(MAPPING, [row(country=None)], rule, known).rejected == []


@pytest.mark.parametrize(
    ("mapping", "rule", "error", "words"),
    [
        (mapped(LEFT, RIGHT, "id", {"right": "nope", "left": "name"}), {}, FieldMissing, "nope"),
        (mapped(LEFT, RIGHT, "id", {"right": "name", "left": "nope"}), {}, FieldMissing, "nope"),
        (mapped(LEFT, RIGHT, "id", "name", "name"), {}, ConfigurationError, "twice"),
        (mapped(LEFT, RIGHT, "name"), {}, KeyMissing, "'id' is not mapped"),
        (mapped(LEFT, RIGHT, "id", key=()), {}, KeyMissing, "no match field"),
        (MAPPING, {"filter": "nope > 1"}, ExpressionRefused, "unknown field 'nope'"),
        (MAPPING, {"filter": "id + 1"}, ExpressionRefused, "true or false"),
        (MAPPING, {"filter": "lower(id) like 3"}, ExpressionRefused, "does not fit"),
        (MAPPING, {"delta": "cursor", "cursor_field": "nope"}, FieldMissing, "nope"),
        (MAPPING, {"on_delete": "mark", "mark_field": "nope"}, FieldMissing, "nope"),
        (MAPPING, {"on_delete": "mark", "mark_field": "id"}, ConfigurationError, "key field"),
        (
            MAPPING,
            {"on_delete": "mark", "mark_field": "price", "mark_value": "x"},
            ConfigurationError,
            "not a decimal",
        ),
        (
            MAPPING,
            {"checks": [{"name": "c", "kind": "range", "field": "price"}]},
            ConfigurationError,
            "minimum",
        ),
        (
            MAPPING,
            {
                "checks": [
                    {
                        "name": "c",
                        "kind": "range",
                        "field": "price",
                        "minimum": "10",
                        "maximum": "9",
                    }
                ]
            },
            ConfigurationError,
            "above the maximum",
        ),
        (
            MAPPING,
            {"checks": [{"name": "c", "kind": "pattern", "field": "name", "pattern": "("}]},
            ConfigurationError,
            "regular expression",
        ),
        (
            MAPPING,
            {"checks": [{"name": "c", "kind": "reference", "field": "name", "lookup": "x"}]},
            ConfigurationError,
            "unknown lookup",
        ),
        (
            MAPPING,
            {"checks": [{"name": "c", "kind": "unique", "field": "nope"}]},
            FieldMissing,
            "nope",
        ),
    ],
)
def test_faults_are_found_when_compiling(mapping, rule, error, words):
    with pytest.raises(error, match=words):
        compile_transform(mapping, RuleSpec(**rule))


def test_a_program_survives_json():
    program = compile_transform(MAPPING, RuleSpec(filter="id > 0"))
    assert TransformProgram.from_json(program.to_json()) == program
    assert not program.trusted
    assert compile_transform(MAPPING, RuleSpec()).trusted


def test_unmapped_fields_that_need_a_value_are_noted():
    program = compile_transform(mapped(LEFT, RIGHT, "id"), RuleSpec())
    assert program.notes == ("The right field 'name' must have a value but is not mapped.",)


def test_only_what_is_used_is_read_and_the_cursor_is_among_it():
    rule = RuleSpec(delta="cursor", cursor_field="country", filter="price > 0")
    program = compile_transform(mapped(LEFT, RIGHT, "id"), rule)
    assert program.left_fields == ("id", "price", "country")


def test_fields_that_differ_by_case_only():
    left = dataset("l", id="integer", a="text", A="text")
    right = dataset("r", id="integer", a="text", A="text")
    mapping = mapped(
        left, right, "id", {"right": "a", "to_right": "A || a"}, {"right": "A", "left": "a"}
    )
    done = transform(mapping, [{"id": 1, "a": "x", "A": "Y"}])
    assert done.records.select(["a", "A"]).to_pylist() == [{"a": "Yx", "A": "x"}]


def test_an_empty_batch():
    done = transform(MAPPING, [])
    assert done.records.num_rows == 0
    assert done.records.schema.names == [
        "id",
        "name",
        "price",
        "country",
        "__left_key",
        "__right_key",
    ]


@pytest.mark.parametrize(
    ("values", "kind", "expected"),
    [
        ([1, 3, None], pa.int64(), "3"),
        (["a", "b"], pa.string(), "b"),
        ([None], pa.int64(), None),
        ([0, 1_500_000], pa.timestamp("us"), "1970-01-01T00:00:01.500000"),
        ([0, 1_500_000], pa.timestamp("us", tz="UTC"), "1970-01-01T00:00:01.500000Z"),
        ([date(2024, 1, 2)], pa.date32(), "2024-01-02"),
        ([Decimal("1.50")], pa.decimal128(5, 2), "1.5"),
    ],
)
def test_cursor_maximum(values, kind, expected):
    batch = pa.record_batch({"c": pa.array(values, kind)})
    assert cursor_maximum(batch, "c") == expected


@pytest.mark.parametrize(
    ("text", "kind", "expected"),
    [
        ("1.50", "decimal(5,2)", "1.5"),
        ("TRUE", "boolean", "true"),
        ('{"b":1,"a":2}', "json", '{"a":2,"b":1}'),
        ("AP8=", "bytes", "AP8="),
        ("x", "text", "x"),
        ("[1]", "array(integer)", '["1"]'),
    ],
)
def test_canonical_value(text, kind, expected):
    assert canonical_value(text, NeutralType.parse(kind)) == expected


def test_a_batch_may_have_more_columns():
    program = compile_transform(mapped(LEFT, RIGHT, "id", "name"), RuleSpec())
    batch = batch_of(compile_transform(MAPPING, RuleSpec()), [row()])
    with Runner(program) as runner:
        assert runner.run(batch).records.num_rows == 1


def test_a_text_with_a_quote_is_only_a_text():
    assert canonical_value("'; DROP TABLE input; --", TEXT) == "'; DROP TABLE input; --"
