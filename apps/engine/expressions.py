"""The expression language: SQL scalar expressions over the fields of one record.

An expression passes these gates, and anything unknown is refused:
1. size: length of the text, number of tokens, depth of parentheses (before any parser sees it);
2. tokens: no parameters, no statement separators, no control characters;
3. sqlglot parses it with a parser that knows no functions of its own, so that each call stays a
   plain name with its values;
4. every node is of a listed class, every called name in `FUNCTIONS`, every cast to the SQL type
   of a neutral type, every identifier a field of the record;
5. the size of what it could build from constants and short fields is bounded;
6. the SQL that runs is generated from the checked tree, never copied from the text.
"""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, ClassVar

from sqlglot import Token, TokenType, exp
from sqlglot.dialects.duckdb import DuckDB
from sqlglot.errors import SqlglotError
from sqlglot.parsers.duckdb import DuckDBParser

from apps.connectors.errors import ExpressionRefused
from apps.connectors.types import NeutralType
from apps.engine.functions import FUNCTIONS, REASONS

__all__ = ["FUNCTIONS", "Expression", "LookupCall", "names_read", "parse_expression"]

MAX_LENGTH = 5_000
MAX_TOKENS = 1_500
MAX_DEPTH = 80
MAX_PARENTHESES = 40
MAX_VALUE_CHARACTERS = 10_000_000
ASSUMED_FIELD_CHARACTERS = 100
MAX_CONSTANT_CHARACTERS = 10_000


@dataclass(frozen=True, slots=True)
class LookupCall:
    """One call of `lookup` or `link`. In SQL its result is read from `column`."""

    name: str
    argument_sql: str
    column: str
    level: int  # lookups inside the argument have lower levels


@dataclass(frozen=True, slots=True)
class Expression:
    """A checked expression. `sql` reads fields as quoted columns and lookups as `calls` say."""

    text: str
    sql: str
    fields: frozenset[str]
    lookups: frozenset[str]
    calls: tuple[LookupCall, ...] = ()


class _Dialect(DuckDB):
    """DuckDB's grammar without sqlglot's knowledge of functions, which would rewrite calls."""

    class Parser(DuckDBParser):
        FUNCTIONS: ClassVar[dict[str, Callable[..., Any]]] = {}
        FUNCTION_PARSERS = {
            name: DuckDBParser.FUNCTION_PARSERS[name] for name in ("CAST", "TRY_CAST", "EXTRACT")
        }
        NO_PAREN_FUNCTION_PARSERS = {
            "CASE": DuckDBParser.NO_PAREN_FUNCTION_PARSERS["CASE"],
        }


_DIALECT = _Dialect()

_PLAIN_NODES: tuple[type[exp.Expr], ...] = (
    exp.Paren, exp.Neg, exp.Not, exp.And, exp.Or,
    exp.Add, exp.Sub, exp.Mul, exp.Div, exp.IntDiv, exp.Mod, exp.DPipe,
    exp.EQ, exp.NEQ, exp.GT, exp.GTE, exp.LT, exp.LTE, exp.NullSafeEQ, exp.NullSafeNEQ,
    exp.Is, exp.Between, exp.Like, exp.ILike, exp.Escape,
    exp.Case, exp.If, exp.Literal, exp.Boolean, exp.Null, exp.AtTimeZone,
)  # fmt: skip
_PLAIN = frozenset(_PLAIN_NODES)

_CAST_TYPES: dict[str, str] = {
    **dict.fromkeys(("BOOLEAN",), "BOOLEAN"),
    **dict.fromkeys(("INT", "BIGINT"), "BIGINT"),
    **dict.fromkeys(("FLOAT", "DOUBLE"), "DOUBLE"),
    **dict.fromkeys(("TEXT", "VARCHAR"), "VARCHAR"),
    **dict.fromkeys(("VARBINARY", "BLOB"), "BLOB"),
    "DATE": "DATE",
    "TIME": "TIME",
    "TIMESTAMP": "TIMESTAMP",
    "TIMESTAMPNTZ": "TIMESTAMP",
    "TIMESTAMPTZ": "TIMESTAMPTZ",
    "UUID": "UUID",
    "JSON": "JSON",
}
_UNIT_NAMES = (
    "YEAR MONTH DAY HOUR MINUTE SECOND WEEK QUARTER MILLISECOND MICROSECOND "
    "DOW ISODOW DOY EPOCH ISOYEAR"
)
_UNITS = frozenset(f"{unit}{plural}" for unit in _UNIT_NAMES.split(" ") for plural in ("", "S"))
_GROWTH = {"hex": 2, "to_base64": 2, "url_encode": 3, "to_json": 6, "json_object": 6,
           "json_array": 6, "json_extract": 2, "nfc_normalize": 3, "decode": 1}  # fmt: skip
_REPLACERS = frozenset({"replace", "regexp_replace"})


def parse_expression(
    text: str,
    fields: Mapping[str, NeutralType],
    *,
    lookups: Collection[str] = (),
    where: str = "",
    columns: Mapping[str, str] | None = None,
) -> Expression:
    """Check an expression and translate it to DuckDB SQL.

    fields: what it may read, by name; lookups: names that `lookup` may use (and "link:rule name"
    for `link`). columns: SQL column of each field, where it is not the field's own name.
    Raises ExpressionRefused, saying what is wrong, at which character, and a remedy.
    """
    return _Reader(text, fields, lookups, where, columns or {}).read()


def names_read(text: str) -> frozenset[str]:
    """The names that an expression reads, as it writes them, whether there are such fields or not.

    Raises ExpressionRefused for one that cannot be understood.
    """
    return _Reader(text, {}, (), "", {}).names()


class _Reader:
    """One pass over one expression."""

    def __init__(
        self,
        text: str,
        fields: Mapping[str, NeutralType],
        lookups: Collection[str],
        where: str,
        columns: Mapping[str, str],
    ) -> None:
        self.text = text
        self.known = fields
        self.lookups = lookups
        self.where = where
        self.columns = columns
        self.tokens: Sequence[Token] = ()
        self.used: set[str] = set()
        self.calls: dict[str, LookupCall] = {}

    def read(self) -> Expression:
        self._check_size()
        self._tokenize()
        tree = self._parse()
        self._check_depth(tree)
        self._check(tree)
        self._check_values(tree)
        try:
            sql = self._sql(self._rewritten(tree))
        except (RecursionError, SqlglotError):
            raise self._refused("the expression cannot be written as SQL") from None
        return Expression(
            text=self.text,
            sql=sql,
            fields=frozenset(self.used),
            lookups=frozenset(call.name for call in self.calls.values()),
            calls=tuple(sorted(self.calls.values(), key=lambda call: (call.level, call.column))),
        )

    def names(self) -> frozenset[str]:
        self._check_size()
        self._tokenize()
        return frozenset(name.name for name in self._parse().find_all(exp.Identifier))

    def _refused(self, message: str, word: str = "", remedy: str = "") -> ExpressionRefused:
        place = next(
            (token.start + 1 for token in self.tokens if word and token.text == word), None
        )
        if place is not None:
            message = f"{message} (at character {place})"
        return ExpressionRefused(message, where=self.where, remedy=remedy)

    def _check_size(self) -> None:
        if not self.text.strip():
            raise self._refused("the expression is empty")
        if len(self.text) > MAX_LENGTH:
            raise self._refused(
                f"the expression has {len(self.text):,} characters, "
                f"at most {MAX_LENGTH:,} are allowed"
            )
        for place, character in enumerate(self.text, start=1):
            if (ord(character) < 32 and character not in "\t\n\r") or 0xD800 <= ord(
                character
            ) <= 0xDFFF:
                raise self._refused(f"a control character stands at character {place}")

    def _tokenize(self) -> None:
        try:
            self.tokens = _DIALECT.tokenize(self.text)
        except (SqlglotError, RecursionError, ValueError):
            raise self._refused(
                "the expression cannot be read", remedy="Look for a quote that is not closed."
            ) from None
        if len(self.tokens) > MAX_TOKENS:
            raise self._refused(f"the expression has more than {MAX_TOKENS:,} words")
        if not self.tokens:
            raise self._refused("the expression is empty")
        self._check_tokens()

    def _check_tokens(self) -> None:
        depth = 0
        for token, after in zip_longest(self.tokens, self.tokens[1:]):
            kind = token.token_type
            if kind is TokenType.SEMICOLON:
                raise self._refused("one expression only: ';' is not allowed", ";")
            if kind in (TokenType.PARAMETER, TokenType.PLACEHOLDER, TokenType.HASH):
                raise self._refused(f"parameters are not allowed: '{token.text}'", token.text)
            if kind is TokenType.DECIMAL and (
                after is None or after.token_type is not TokenType.L_PAREN
            ):
                raise self._refused("a decimal names its digits, as in decimal(10,2)", token.text)
            depth += (kind is TokenType.L_PAREN) - (kind is TokenType.R_PAREN)
            if depth > MAX_PARENTHESES:
                raise self._refused(f"more than {MAX_PARENTHESES} parentheses inside each other")

    def _parse(self) -> exp.Expr:
        try:
            trees = _DIALECT.parser().parse(list(self.tokens), self.text)
        except SqlglotError as error:
            raise self._refused(f"the expression cannot be understood{_spot(error)}") from None
        except (RecursionError, ValueError, TypeError, AttributeError, KeyError, IndexError):
            raise self._refused("the expression cannot be understood") from None
        if len(trees) != 1 or trees[0] is None:
            raise self._refused("one expression is needed")
        tree: exp.Expr = trees[0]
        return tree

    def _check_depth(self, tree: exp.Expr) -> None:
        level = [tree]
        for _ in range(MAX_DEPTH):
            level = [child for node in level for child in node.iter_expressions()]
            if not level:
                return
        raise self._refused(f"the expression is nested more than {MAX_DEPTH} levels deep")

    def _check(self, node: exp.Expr) -> None:
        checks: dict[type[exp.Expr], Callable[[Any], Iterator[exp.Expr]]] = {
            exp.Column: self._check_column,
            exp.Anonymous: self._check_call,
            exp.Cast: self._check_cast,
            exp.TryCast: self._check_cast,
            exp.Extract: self._check_extract,
            exp.Interval: self._check_interval,
            exp.In: self._check_in,
        }
        check = checks.get(type(node))
        if check is not None:
            children = check(node)
        elif type(node) in _PLAIN:
            children = node.iter_expressions()
        else:
            raise self._refuse_node(node)
        for child in children:
            self._check(child)

    def _refuse_node(self, node: exp.Expr) -> ExpressionRefused:
        kinds: dict[type[exp.Expr], str] = {
            exp.Subquery: "a query inside an expression",
            exp.Select: "a query",
            exp.Star: "'*'",
            exp.Window: "a window function",
            exp.Lambda: "a function of its own ('->')",
            exp.Alias: "a name for the result (or two values side by side)",
            exp.RegexpLike: "the operator '~': use regexp_full_match or regexp_matches",
            exp.JSONExtract: "the operator '->': use json_extract",
            exp.JSONExtractScalar: "the operator '->>': use json_extract_string",
            exp.Pow: "the operator '**': use pow",
            exp.Bracket: "the operator '[]': use list_extract or substring",
        }
        for kind, name in kinds.items():
            if isinstance(node, kind):
                return self._refused(f"not allowed in an expression: {name}")
        name = type(node).__name__
        if f"current{name[7:]}".lower() in REASONS or name.lower().startswith(("current", "local")):
            return self._refused(f"{name} is not allowed: {REASONS['now']}")
        return self._refused(f"not allowed in an expression: {name}")

    def _check_column(self, node: exp.Column) -> Iterator[exp.Expr]:
        if any(node.args.get(part) for part in ("table", "db", "catalog", "join_mark")):
            raise self._refused(f"'{node.sql()}' names a table: write the field alone", node.name)
        if not isinstance(node.this, exp.Identifier):
            raise self._refuse_node(node.this)
        self.used.add(self._field(node.name))
        return iter(())

    def _field(self, name: str) -> str:
        if name in self.known:
            return name
        alike = [field for field in self.known if field.lower() == name.lower()]
        if len(alike) == 1:
            return alike[0]
        close = alike or difflib.get_close_matches(
            name.lower(), [field.lower() for field in self.known], n=1, cutoff=0.6
        )
        meant = next((f for f in self.known if close and f.lower() == close[0].lower()), "")
        hint = f": did you mean {meant}?" if meant else ""
        raise self._refused(
            f"unknown field '{name}'{hint}",
            name,
            remedy=f"Write {meant}." if meant else f"Fields: {', '.join(list(self.known)[:20])}",
        )

    def _check_call(self, node: exp.Anonymous) -> Iterator[exp.Expr]:
        name = str(node.this)
        function = name.lower()
        if function not in FUNCTIONS:
            raise self._unknown_function(name)
        values = node.expressions
        if function in ("lookup", "link"):
            if len(values) != 2 or not (isinstance(values[0], exp.Literal) and values[0].is_string):
                raise self._refused(f"{function} needs a name in quotes and a value", name)
            self._lookup_name(function, values[0].name)
        extra = [key for key, value in node.args.items() if value and key not in _CALL_ARGS]
        if extra:
            raise self._refused(f"{name} takes values only", name)
        return iter(values)

    def _unknown_function(self, name: str) -> ExpressionRefused:
        reason = REASONS.get(name.lower())
        if reason:
            return self._refused(f"the function '{name}' is not allowed: {reason}", name)
        close = difflib.get_close_matches(name.lower(), FUNCTIONS, n=1, cutoff=0.6)
        hint = f": did you mean {close[0]}?" if close else ""
        return self._refused(f"unknown function '{name}'{hint}", name)

    def _lookup_name(self, function: str, name: str) -> str:
        full = f"link:{name}" if function == "link" else name
        if full in self.lookups:
            return full
        prefix = "link:" if function == "link" else ""
        names = [n[len(prefix) :] for n in self.lookups if n.startswith("link:") == bool(prefix)]
        close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
        hint = f": did you mean '{close[0]}'?" if close else ""
        noun = "rule to link by" if function == "link" else "lookup"
        raise self._refused(f"unknown {noun} '{name}'{hint}", name)

    def _check_cast(self, node: exp.Cast) -> Iterator[exp.Expr]:
        extra = [key for key, value in node.args.items() if value and key not in _CAST_ARGS]
        if extra:
            raise self._refused("a cast names a type and nothing more")
        self._cast_type(node.args["to"])
        return iter([node.this])

    def _cast_type(self, to: exp.Expr) -> str:
        name = to.this.value if isinstance(to, exp.DataType) and hasattr(to.this, "value") else ""
        if name == "DECIMAL" and not to.args.get("nested"):
            return self._decimal_type(to)
        if name not in _CAST_TYPES or (to.expressions and name not in ("TEXT", "VARCHAR")):
            raise self._refused(
                f"cannot cast to '{to.sql(dialect='duckdb')[:40]}'",
                remedy="Types: boolean, bigint, decimal(p,s), double, varchar, blob, date, time, "
                "timestamp, timestamptz, uuid, json.",
            )
        return _CAST_TYPES[name]

    def _decimal_type(self, to: exp.Expr) -> str:
        digits = [part.name for part in to.expressions]
        if not digits or len(digits) > 2 or not all(d.isdigit() and len(d) < 3 for d in digits):
            raise self._refused("a decimal names its digits, as in decimal(10,2)")
        precision, scale = int(digits[0]), int(digits[1]) if len(digits) == 2 else 0
        if not (1 <= precision <= 38 and scale <= precision):
            raise self._refused("a decimal has 1 to 38 digits, as in decimal(10,2)")
        return f"DECIMAL({precision}, {scale})"

    def _check_extract(self, node: exp.Extract) -> Iterator[exp.Expr]:
        self._check_unit(node.this)
        return iter([node.expression])

    def _check_interval(self, node: exp.Interval) -> Iterator[exp.Expr]:
        if not isinstance(node.this, exp.Literal):
            raise self._refused("an interval has a constant length; use to_days and the like")
        self._check_unit(node.args.get("unit"))
        return iter([node.this])

    def _check_unit(self, unit: Any) -> None:
        if not isinstance(unit, exp.Var) or unit.name.upper() not in _UNITS:
            raise self._refused(f"unknown unit of time '{unit}'"[:80])

    def _check_in(self, node: exp.In) -> Iterator[exp.Expr]:
        extra = [key for key, value in node.args.items() if value and key not in _IN_ARGS]
        if extra or not node.expressions:
            raise self._refused("IN takes a list of values in parentheses")
        return iter([node.this, *node.expressions])

    def _check_values(self, tree: exp.Expr) -> None:
        if _size_bound(tree) > MAX_VALUE_CHARACTERS:
            raise self._refused(
                f"the expression could build values of more than "
                f"{MAX_VALUE_CHARACTERS:,} characters"
            )
        for node in tree.find_all(exp.Anonymous, exp.DPipe):
            constant = node.find(exp.Column) is None
            if constant and _size_bound(node) > MAX_CONSTANT_CHARACTERS:
                raise self._refused(
                    f"the expression builds a constant of more than "
                    f"{MAX_CONSTANT_CHARACTERS:,} characters"
                )

    def _rewritten(self, tree: exp.Expr) -> exp.Expr:
        """The tree with columns, casts and lookups as the database knows them."""
        result = tree.copy().transform(self._rewrite, copy=False)
        for call in list(result.find_all(exp.Anonymous)):
            _narrow(call)
        return result

    def _rewrite(self, node: exp.Expr) -> exp.Expr:
        if isinstance(node, exp.Column):
            field = self._field(node.name)
            return exp.column(exp.to_identifier(self.columns.get(field, field), quoted=True))
        if isinstance(node, exp.DataType):
            return exp.DataType.build(self._cast_type(node), dialect="duckdb")
        if isinstance(node, exp.Anonymous) and str(node.this).lower() in ("lookup", "link"):
            return self._lookup(node)
        return node

    def _lookup(self, node: exp.Anonymous) -> exp.Expr:
        """Replace a call by the column that a join will provide."""
        name = self._lookup_name(str(node.this).lower(), node.expressions[0].name)
        before = set(self.calls)
        argument = self._rewritten(node.expressions[1])
        inside = [
            call.level
            for call in self.calls.values()
            if call.column not in before or f'"{call.column}"' in self._sql(argument)
        ]
        sql = self._sql(argument)
        digest = hashlib.md5(f"{name}\0{sql}".encode(), usedforsecurity=False).hexdigest()[:16]
        column = f"__lookup_{digest}"
        self.calls[column] = LookupCall(name, sql, column, 1 + max(inside, default=0))
        return exp.column(exp.to_identifier(column, quoted=True))

    @staticmethod
    def _sql(tree: exp.Expr) -> str:
        sql: str = tree.sql(dialect=_DIALECT, identify=True, comments=False)
        return sql


_NARROW = {"chr": 0, "round": 1, "trunc": 1}
"""Functions of which one value must be a 32 bit integer, where Lockstep has 64 bits."""


def _narrow(call: exp.Anonymous) -> None:
    place = _NARROW.get(str(call.this).lower())
    values = call.expressions
    if place is not None and place < len(values) and not isinstance(values[place], exp.Literal):
        values[place].replace(exp.cast(values[place].copy(), "INT", dialect="duckdb"))


_CALL_ARGS = frozenset({"this", "expressions"})
_CAST_ARGS = frozenset({"this", "to", "safe"})
_IN_ARGS = frozenset({"this", "expressions"})


def _spot(error: SqlglotError) -> str:
    details = getattr(error, "errors", None)
    if not details:
        return ""
    near = str(details[0].get("highlight") or "")[:30]
    column = details[0].get("col")
    return f" near '{near}' (at character {column})" if near else f" (at character {column})"


def _size_bound(node: exp.Expr) -> int:
    """An upper bound of the characters of a value, where fields are short.

    It keeps nested `replace` and the like from building gigabytes out of constants; long fields
    are the business of the sandbox.
    """
    if isinstance(node, exp.Literal):
        return len(node.name)
    if isinstance(node, exp.Column):
        return ASSUMED_FIELD_CHARACTERS
    sizes = [_size_bound(child) for child in node.iter_expressions()]
    name = str(node.this).lower() if isinstance(node, exp.Anonymous) else ""
    if name in _REPLACERS and len(sizes) >= 3:
        return min((sizes[0] + 1) * max(sizes[2], 1), MAX_VALUE_CHARACTERS * 10)
    if name == "concat_ws":
        sizes.append(sizes[0] * len(sizes))
    return min(sum(sizes) * _GROWTH.get(name, 1) + 32, MAX_VALUE_CHARACTERS * 10)
