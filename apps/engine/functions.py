"""The functions that expressions may call, each with one line of documentation.

Left out on purpose: what amplifies memory (repeat, lpad, rpad, range, list functions, format),
what reads files, settings or the network, and what gives another answer each time it is asked
(now, random, uuid): a plan must equal what is applied.
"""

from __future__ import annotations

_TEXT = {
    "lower": "text in lower case: lower('AC/DC') = 'ac/dc'",
    "upper": "text in upper case: upper('abc') = 'ABC'",
    "trim": "text without blanks (or the given characters) at both ends: trim(' a ') = 'a'",
    "ltrim": "text without blanks (or the given characters) at its beginning",
    "rtrim": "text without blanks (or the given characters) at its end",
    "length": "number of characters: length('abc') = 3",
    "len": "number of characters, or of items of an array",
    "strlen": "number of bytes of a text in UTF-8",
    "substring": "part of a text from a position (1 is the first): substring('abcd', 2, 2) = 'bc'",
    "substr": "the same as substring",
    "left": "the first characters: left('abc', 2) = 'ab'",
    "right": "the last characters: right('abc', 2) = 'bc'",
    "replace": "text with each occurrence replaced: replace('a-b', '-', '+') = 'a+b'",
    "translate": "text with single characters replaced: translate('abc', 'ab', 'xy') = 'xyc'",
    "reverse": "text back to front",
    "split_part": "the n-th part between separators: split_part('a,b', ',', 2) = 'b'",
    "concat": "all values joined as text, NULL as nothing: concat('a', 1) = 'a1'",
    "concat_ws": "all values joined with a separator: concat_ws('-', 'a', 'b') = 'a-b'",
    "contains": "whether a text contains another",
    "starts_with": "whether a text starts with another",
    "ends_with": "whether a text ends with another",
    "strpos": "position of a text in another, 0 if absent: strpos('abc', 'b') = 2",
    "instr": "the same as strpos",
    "strip_accents": "text without accents: strip_accents('é') = 'e'",
    "nfc_normalize": "text in Unicode normal form C",
    "ascii": "code point of the first character: ascii('A') = 65",
    "unicode": "code point of the first character",
    "chr": "the character with a code point: chr(65) = 'A'",
    "md5": "MD5 of a text, 32 hexadecimal digits",
    "sha256": "SHA-256 of a text, 64 hexadecimal digits",
    "hex": "hexadecimal digits of a text, bytes or integer",
    "unhex": "bytes from hexadecimal digits",
    "to_base64": "bytes as base64 text",
    "from_base64": "bytes from base64 text",
    "encode": "UTF-8 bytes of a text",
    "decode": "text from UTF-8 bytes",
    "url_encode": "text escaped for a URL",
    "url_decode": "text from its URL form",
    "levenshtein": "number of edits between two texts",
    "jaro_winkler_similarity": "likeness of two texts, from 0 to 1",
    "regexp_matches": "whether a regular expression matches somewhere (RE2 syntax)",
    "regexp_full_match": "whether a regular expression matches the whole text (RE2 syntax)",
    "regexp_extract": "what a regular expression (or one group of it) matches",
    "regexp_replace": "text with matches replaced; 'g' as fourth value replaces all",
}

_NULLS = {
    "coalesce": "the first value that is not NULL",
    "ifnull": "the second value where the first is NULL",
    "nullif": "NULL where both values are equal, else the first: nullif(trim(a), '')",
    "greatest": "the greatest value",
    "least": "the least value",
    "if": "if(condition, then, otherwise)",
}

_NUMBERS = {
    "abs": "absolute value",
    "ceil": "the next integer upwards",
    "ceiling": "the same as ceil",
    "floor": "the next integer downwards",
    "round": "rounded to so many decimals, halves away from zero: round(2.345, 2)",
    "trunc": "without decimals",
    "sign": "-1, 0 or 1",
    "mod": "remainder: mod(7, 3) = 1",
    "pow": "power: pow(2, 10) = 1024",
    "power": "the same as pow",
    "sqrt": "square root",
    "exp": "e to the power of a number",
    "ln": "natural logarithm",
    "log10": "decimal logarithm",
    "isnan": "whether a float is not a number",
    "isinf": "whether a float is infinite",
    "isfinite": "whether a float, date or timestamp is finite",
}

_TIMES = {
    "date_part": "one part as a number: date_part('year', day)",
    "datepart": "the same as date_part",
    "date_trunc": "the beginning of a period: date_trunc('month', day)",
    "date_diff": "number of borders crossed: date_diff('day', first, last)",
    "datediff": "the same as date_diff",
    "date_sub": "number of whole periods between: date_sub('month', first, last)",
    "date_add": "a date or timestamp plus an interval: date_add(day, to_days(3))",
    "year": "year as a number",
    "month": "month, 1 to 12",
    "day": "day of the month",
    "hour": "hour, 0 to 23",
    "minute": "minute",
    "second": "second",
    "dayofweek": "day of the week, 0 is Sunday",
    "isodow": "day of the week, 1 is Monday, 7 Sunday",
    "dayofyear": "day of the year",
    "week": "ISO week number",
    "quarter": "quarter, 1 to 4",
    "last_day": "the last day of the month",
    "make_date": "date from year, month, day",
    "make_time": "time from hour, minute, second",
    "make_timestamp": "timestamp from year, month, day, hour, minute, second",
    "strftime": "text from a date or timestamp by a format: strftime(day, '%d.%m.%Y')",
    "strptime": "timestamp from a text by a format; fails where it does not fit",
    "try_strptime": "timestamp from a text by a format; NULL where it does not fit",
    "to_timestamp": "instant from seconds since 1970",
    "epoch": "seconds since 1970",
    "epoch_ms": "milliseconds since 1970, or the timestamp of so many",
    "to_seconds": "interval of so many seconds",
    "to_minutes": "interval of so many minutes",
    "to_hours": "interval of so many hours",
    "to_days": "interval of so many days",
    "to_weeks": "interval of so many weeks",
    "to_months": "interval of so many months",
    "to_years": "interval of so many years",
}

_JSON = {
    "json_extract": "part of a JSON document: json_extract(doc, '$.a')",
    "json_extract_string": "part of a JSON document as text: json_extract_string(doc, '$.a')",
    "json_valid": "whether a text is JSON",
    "json_type": "type of a JSON value: OBJECT, ARRAY, VARCHAR, ...",
    "json_array_length": "number of items of a JSON array",
    "json_object": "JSON object from names and values: json_object('a', 1)",
    "json_array": "JSON array from values",
    "to_json": "JSON value of a value",
    "list_contains": "whether an array contains a value",
    "list_extract": "one item of an array: list_extract(tags, 1)",
}

_LOOKUPS = {
    "lookup": "text that a lookup gives for a key, or NULL: lookup('countries', Country)",
    "link": "key of the other side by another rule's links: link('customers', CustomerId)",
}

FUNCTIONS: dict[str, str] = {**_TEXT, **_NULLS, **_NUMBERS, **_TIMES, **_JSON, **_LOOKUPS}

REASONS: dict[str, str] = {
    **dict.fromkeys(
        ("now", "current_date", "current_time", "current_timestamp", "localtime", "localtimestamp",
         "today", "get_current_timestamp", "random", "uuid", "gen_random_uuid", "uuidv4", "uuidv7",
         "setseed", "nextval", "currval", "transaction_timestamp"),
        "it gives another value each time, so what was planned would not be what is applied",
    ),
    **dict.fromkeys(
        ("repeat", "lpad", "rpad", "range", "generate_series", "format", "printf", "bar",
         "array_resize", "list_resize", "list_transform", "list_reduce", "flatten"),
        "it can use up memory",
    ),
    **dict.fromkeys(
        ("count", "sum", "min", "max", "avg", "string_agg", "list", "array_agg", "first", "last",
         "any_value", "row_number", "rank", "lag", "lead"),
        "an expression sees one record at a time",
    ),
}  # fmt: skip
"""Why some functions that people look for are not there."""
