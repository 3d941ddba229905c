"""What the expression language allows, how it refuses, and that it means what DuckDB means."""

from __future__ import annotations

import duckdb
import pytest

from apps.connectors.errors import ExpressionRefused
from apps.connectors.types import DATE, INTEGER, JSON, TEXT, TIMESTAMP, TIMESTAMPTZ, array, decimal
from apps.engine.expressions import FUNCTIONS, parse_expression
from apps.engine.transform import expression_type
from tests.engine.hostile import REFUSED

FIELDS = {
    "Id": INTEGER,
    "Name": TEXT,
    "Full Name": TEXT,
    "Price": decimal(10, 2),
    "Day": DATE,
    "At": TIMESTAMP,
    "Seen": TIMESTAMPTZ,
    "Doc": JSON,
    "Tags": array(TEXT),
}

EXAMPLES = [
    "lower('AC/DC')", "upper('abc')", "trim(' a ')", "trim('xax', 'x')", "ltrim(' a')",
    "rtrim('a ')", "length('äbc')", "len('abc')", "strlen('ä')", "substring('abcd', 2, 2)",
    "substr('abcd', 2)", "left('abc', 2)", "right('abc', 2)", "replace('a-b', '-', '+')",
    "translate('abc', 'ab', 'xy')", "reverse('abc')", "split_part('a,b', ',', 2)",
    "concat('a', 1, NULL)", "concat_ws('-', 'a', 'b')", "contains('abc', 'b')",
    "starts_with('abc', 'a')", "ends_with('abc', 'c')", "strpos('abc', 'b')", "instr('abc', 'b')",
    "strip_accents('é')", "nfc_normalize('é')", "ascii('A')", "unicode('A')", "chr(65)",
    "md5('a')", "sha256('a')", "hex('abc')", "unhex('616263')", "to_base64(encode('abc'))",
    "from_base64('YWJj')", "encode('abc')", "decode(encode('abc'))", "url_encode('a b')",
    "url_decode('a%20b')", "levenshtein('abc', 'abd')", "jaro_winkler_similarity('abc', 'abd')",
    "regexp_matches('abc', 'b')", "regexp_full_match('abc', 'a.c')",
    "regexp_extract('a12', '([a-z])([0-9]+)', 2)", "regexp_replace('aXbX', 'X', '-', 'g')",
    "coalesce(NULL, 1)", "ifnull(NULL, 2)", "nullif(1, 1)", "greatest(1, 2)", "least(1, 2)",
    "if(1 = 1, 'a', 'b')", "abs(-1)", "ceil(1.2)", "ceiling(1.2)", "floor(1.8)",
    "round(2.345, 2)", "trunc(1.9)", "sign(-3)", "mod(7, 3)", "pow(2, 10)", "power(2, 3)",
    "sqrt(16)", "exp(0)", "ln(1)", "log10(100)", "isnan(cast('nan' as double))",
    "isinf(cast('inf' as double))", "isfinite(1.0)", "date_part('year', date '2024-02-29')",
    "datepart('month', date '2024-02-29')", "date_trunc('month', timestamp '2024-02-29 01:02:03')",
    "date_diff('day', date '2024-01-01', date '2024-02-01')",
    "datediff('day', date '2024-01-01', date '2024-02-01')",
    "date_sub('month', date '2024-01-31', date '2024-03-01')",
    "date_add(date '2024-01-01', to_days(3))", "year(date '2024-02-29')",
    "month(date '2024-02-29')", "day(date '2024-02-29')", "hour(timestamp '2024-01-01 05:06:07')",
    "minute(timestamp '2024-01-01 05:06:07')", "second(timestamp '2024-01-01 05:06:07')",
    "dayofweek(date '2024-02-29')", "isodow(date '2024-02-29')", "dayofyear(date '2024-02-29')",
    "week(date '2024-02-29')", "quarter(date '2024-02-29')", "last_day(date '2024-02-01')",
    "make_date(2024, 2, 29)", "make_time(1, 2, 3.5)", "make_timestamp(2024, 2, 29, 1, 2, 3.5)",
    "strftime(date '2024-02-29', '%d.%m.%Y')", "strptime('29.02.2024', '%d.%m.%Y')",
    "try_strptime('x', '%d.%m.%Y')", "epoch(to_timestamp(12))", "epoch(timestamp '2024-01-01')",
    "epoch_ms(timestamp '2024-01-01')", "date '2024-01-01' + to_seconds(5)",
    "date '2024-01-01' + to_minutes(5)", "date '2024-01-01' + to_hours(5)",
    "date '2024-01-01' + to_weeks(1)", "date '2024-01-01' + to_months(1)",
    "date '2024-01-01' + to_years(1)", "json_extract('{\"a\": [1]}', '$.a')",
    "json_extract_string('{\"a\": \"x\"}', '$.a')", "json_valid('{')", "json_type('[1]')",
    "json_array_length('[1, 2]')", "json_object('a', 1)", "json_array(1, 'x')", "to_json('x')",
    "7 / 2", "7 // 2", "-7 % 3", "1.5 * 2 - 1", "'a' || 'b' || NULL", "1 = 1 and not 2 < 1",
    "1 <> 2 or 1 != 1", "'abc' like 'a%'", "'abc' not ilike 'B%'", "'a%' like 'a!%' escape '!'",
    "5 between 1 and 9", "3 in (1, 2, 3)", "3 not in (1)", "NULL is null", "1 is not null",
    "1 is distinct from NULL", "NULL is not distinct from NULL", "cast('12' as bigint)",
    "try_cast('x' as bigint)", "'1.50'::decimal(5,2)", "cast(1 as text)", "cast('1' as double)",
    "case when 1 > 2 then 'a' else 'b' end", "case 3 when 3 then 'three' end",
    "extract(year from date '2024-02-29')", "timestamp '2024-01-01 00:00:00' at time zone 'UTC'",
    "date '2024-01-31' + interval 1 month", "timestamp '2024-01-01' - interval '90' minute",
    "true and null", "- (1 + 2) * 3", "(1 + 2) * 3 - 4 / 2", "not (true and false)",
    "'it''s'", "'semi;colon -- no comment'",
]  # fmt: skip


@pytest.fixture(scope="module")
def database():
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        yield connection


@pytest.mark.parametrize("text", EXAMPLES)
def test_an_expression_means_what_duckdb_means(database, text):
    sql = parse_expression(text, {}).sql
    results = [
        database.sql(f"SELECT CAST(({value}) AS VARCHAR), typeof({value})").fetchall()
        for value in (sql, text)
    ]
    assert results[0] == results[1]


def test_an_integer_has_64_bits_as_everywhere_in_lockstep():
    assert parse_expression("cast(Id as integer)", FIELDS).sql == 'CAST("Id" AS BIGINT)'


def test_each_function_has_an_example_and_one_line_of_documentation():
    called = " ".join(EXAMPLES)
    without = {name for name in FUNCTIONS if f"{name}(" not in called}
    assert without == {"lookup", "link", "list_contains", "list_extract"}
    assert all(text and "\n" not in text for text in FUNCTIONS.values())


def test_array_functions_read_items(database):
    database.execute("CREATE OR REPLACE TABLE t AS SELECT ['a', 'b'] AS \"Tags\"")
    for text, expected in (
        ("list_contains(Tags, 'b')", True),
        ("list_extract(Tags, 1)", "a"),
        ("len(Tags)", 2),
    ):
        sql = parse_expression(text, FIELDS).sql
        assert database.sql(f"SELECT {sql} FROM t").fetchall() == [(expected,)]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("lowr(Name)", "unknown function 'lowr': did you mean lower? (at character 1)"),
        ("nam || 'x'", "unknown field 'nam': did you mean Name? (at character 1)"),
        ("upper(Nmae)", "unknown field 'Nmae': did you mean Name? (at character 7)"),
        ("lookup('contries', Name)", "unknown lookup 'contries': did you mean 'countries'?"),
        ("link('custmers', Id)", "unknown rule to link by 'custmers': did you mean 'customers'?"),
        ("now()", "it gives another value each time"),
        ("current_timestamp", "it gives another value each time"),
        ("count(Id)", "one record at a time"),
        ("lpad(Name, 10, 'x')", "it can use up memory"),
        ("Name ~ 'x'", "use regexp_full_match or regexp_matches"),
        ("Doc ->> '$.a'", "use json_extract_string"),
        ("cast(Price as decimal)", "decimal(10,2)"),
        ("cast(Id as hugeint)", "cannot cast"),
        ("upper(Name", "cannot be understood"),
        ("", "empty"),
        ("  ", "empty"),
    ],
)
def test_a_refusal_says_what_and_suggests(text, words):
    with pytest.raises(ExpressionRefused) as refusal:
        parse_expression(text, FIELDS, lookups=["countries", "link:customers"], where="field 'x'")
    assert words in refusal.value.message
    assert refusal.value.where == "field 'x'"
    assert refusal.value.remedy


@pytest.mark.parametrize("text", REFUSED, ids=lambda text: text[:40])
def test_hostile_expressions_are_refused(text):
    with pytest.raises(ExpressionRefused):
        parse_expression(text, FIELDS, lookups=["countries"])


def test_fields_are_quoted_and_reported():
    parsed = parse_expression('upper("Full Name") || id', FIELDS)
    assert parsed.sql == 'UPPER("Full Name") || "Id"'
    assert parsed.fields == {"Full Name", "Id"}


def test_a_field_that_differs_in_case_only_must_be_exact():
    fields = {"name": TEXT, "Name": TEXT}
    assert parse_expression("Name", fields).sql == '"Name"'
    with pytest.raises(ExpressionRefused):
        parse_expression("NAME", fields)


def test_a_quote_in_a_field_name_stays_inside_the_identifier():
    field = 'a" OR 1=1 --'
    sql = parse_expression('"a"" OR 1=1 --"', {field: TEXT}).sql
    assert sql == '"a"" OR 1=1 --"'


def test_lookups_become_columns_level_by_level():
    parsed = parse_expression(
        "lookup('a', lookup('b', Name)) || link('r', Id)", FIELDS, lookups=["a", "b", "link:r"]
    )
    assert parsed.lookups == {"a", "b", "link:r"}
    assert [(call.name, call.level) for call in parsed.calls if call.name == "a"] == [("a", 2)]
    assert "lookup(" not in parsed.sql.lower()


def test_the_same_lookup_is_joined_once():
    parsed = parse_expression(
        "coalesce(lookup('a', Name), lookup('a', Name))", FIELDS, lookups=["a"]
    )
    assert len(parsed.calls) == 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Id + 1", "integer"),
        ("Price * 2", "decimal(12,2)"),
        ("upper(Name)", "text"),
        ("Seen at time zone 'UTC'", "timestamp"),
        ("Id > 3", "boolean"),
        ("Id / 2", "float"),
        ("to_json(Name)", "json"),
        ("cast(Name as uuid)", "uuid"),
        ("Tags", "array(text)"),
    ],
)
def test_the_type_of_an_expression(text, expected):
    found = expression_type(parse_expression(text, FIELDS), FIELDS)
    assert str(found).split("(")[0] == expected.split("(")[0]


def test_an_expression_that_does_not_fit_its_types_is_refused():
    with pytest.raises(ExpressionRefused, match="does not fit"):
        expression_type(parse_expression("strftime(Name, Id)", FIELDS), FIELDS)


@pytest.mark.parametrize(
    "text",
    [
        "chr(Id)",
        "round(Price, -1)",
        "trunc(Price)",
        "left(Name, Id)",
        "to_days(Id) + Day",
        "make_date(Id, Id, Id)",
    ],
)
def test_functions_take_integers_of_64_bits(text):
    expression_type(parse_expression(text, FIELDS), FIELDS)


@pytest.mark.parametrize(
    "text",
    [
        "regexp_matches(Name, '(')",
        "regexp_matches(Name, '((a{1,100}){1,100}){1,100}')",
    ],
)
def test_an_expression_that_can_never_work_is_refused(text):
    with pytest.raises(ExpressionRefused, match="does not fit"):
        expression_type(parse_expression(text, FIELDS), FIELDS)


def test_an_interval_is_no_value_of_a_field():
    with pytest.raises(Exception, match="interval"):
        expression_type(parse_expression("to_days(Id)", FIELDS), FIELDS)
