"""Compile a mapping and a rule into a program that turns left records into right ones.

A program is one SQL query over a batch, built in layers, each of which adds columns:

1. `c*`  the left fields, `row` the place in the batch;
2. `a*`  arguments of lookups and `__lookup_*` their results, level by level;
3. `r*`  results of expressions, `f` the filter's; `x*` whether one failed (careful query only);
4. `o*`  right values, converted exactly, `p*` the number of the first problem of each;
5. `lk`, `rk` the canonical keys; `k*` whether a check failed;
6. `problem` the number of the record's first problem, `detail` the value that it is about.

The fast query evaluates expressions as they are. Should one raise for some record, the careful
query evaluates each under TRY and says for which records it failed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from apps.connectors.canonical import canonical_json
from apps.connectors.errors import ConfigurationError, ExpressionRefused, FieldMissing, KeyMissing
from apps.connectors.types import TEXT, Kind, NeutralType
from apps.engine.conversion import Conversion, Problem, convert, neutral_of
from apps.engine.database import open_database
from apps.engine.expressions import Expression, LookupCall, parse_expression
from apps.engine.program import (
    CHECK_FAILED,
    EXPRESSION_FAILED,
    KEY_MISSING,
    LEFT_KEY,
    REQUIRED,
    RIGHT_KEY,
    Column,
    ProblemSpec,
    RecordRejection,
    Transformed,
    TransformProgram,
)
from apps.engine.spec import (
    CheckKind,
    CheckSpec,
    DatasetSpec,
    DeletePolicy,
    FieldMappingSpec,
    LeavePolicy,
    MappingSpec,
    RuleSpec,
    Severity,
)
from apps.engine.types_sql import (
    canonical_sql,
    duckdb_type,
    from_canonical_sql,
    key_sql,
    literal,
    quote,
)


def compile_transform(
    mapping: MappingSpec,
    rule: RuleSpec,
    *,
    lookups: Collection[str] = (),
    carry: Collection[str] | None = None,
    assigned: bool = False,
) -> TransformProgram:
    """Check a mapping with its rule and translate them.

    lookups: names that expressions may use;
    carry: left fields to read as well; where it is given (even empty), all that is read rides
    along as `__left.<name>`;
    assigned: a key field that its side assigns may be empty, as in a record still to be inserted.
    Raises ConfigurationError and its subclasses (ExpressionRefused, FieldMissing, KeyMissing);
    `where` of the error names the field or check.
    """
    carried = None if carry is None else tuple(carry)
    return _compiled(mapping, rule, frozenset(lookups), carried, assigned)


@lru_cache(maxsize=256)
def _compiled(
    mapping: MappingSpec,
    rule: RuleSpec,
    lookups: frozenset[str],
    carry: tuple[str, ...] | None,
    assigned: bool,
) -> TransformProgram:
    """One program serves every step of every run of a version."""
    with open_database(memory_mb=128) as connection:
        return _Compiler(connection, mapping, rule, lookups, carry, assigned).compile()


def expression_type(
    expression: Expression, fields: Mapping[str, NeutralType], *, where: str = ""
) -> NeutralType:
    """The type that an expression over `fields` gives. Raises ExpressionRefused."""
    with open_database(memory_mb=128) as connection:
        columns = [f"{quote(name)} {duckdb_type(fields[name])}" for name in expression.fields]
        columns += [f"{quote(call.column)} VARCHAR" for call in expression.calls]
        try:
            connection.execute(f"CREATE TABLE input({', '.join(columns) or 'nothing INTEGER'})")
        except duckdb.Error:
            raise ExpressionRefused(
                "two of its fields differ only in upper and lower case", where=where
            ) from None
        return neutral_of("x", _describe(connection, expression.sql, "input", where), where)[1]


def canonical_value(text: str, neutral: NeutralType, *, where: str = "") -> str:
    """The canonical text of a value written by a person. Raises ConfigurationError."""
    with open_database(memory_mb=128) as connection:
        return _canonical_value(connection, text, neutral, where)


def cursor_maximum(batch: pa.RecordBatch, field: str) -> str | None:
    """The greatest cursor value of a batch as text, None if there is none.

    Integers as digits, dates and timestamps in their canonical form; texts compare by code point.
    """
    column = batch.column(field)
    kind = column.type
    if pa.types.is_null(kind) or column.null_count == len(column):
        return None
    value = pc.max(column)
    if pa.types.is_timestamp(kind):
        moment = value.cast(pa.timestamp("us")).as_py()
        return f"{moment.isoformat(timespec='microseconds')}{'Z' if kind.tz else ''}"
    if pa.types.is_date(kind):
        return str(value.as_py().isoformat())
    if pa.types.is_decimal(kind):
        text = format(value.as_py(), "f")
        return text.rstrip("0").rstrip(".") if "." in text else text
    return str(value.as_py())


def mark_text(mapping: MappingSpec, rule: RuleSpec) -> str | None:
    """Canonical text of the mark, None if no policy marks. Raises ConfigurationError."""
    if rule.on_delete is not DeletePolicy.MARK and rule.on_leave is not LeavePolicy.MARK:
        return None
    where = f"rule, mark field '{rule.mark_field}'"
    spec = _field_of(mapping.right, rule.mark_field, where)
    if rule.mark_field in mapping.key:
        raise ConfigurationError("a key field cannot be the mark", where=where)
    return canonical_value(rule.mark_value, spec, where=where)


def _field_of(dataset: DatasetSpec, name: str, where: str) -> NeutralType:
    try:
        return dataset.field(name).neutral_type
    except KeyError:
        names = ", ".join(spec.name for spec in dataset.fields[:20])
        raise FieldMissing(
            f"'{dataset.name}' has no field '{name}'", where=where, remedy=f"Fields: {names}"
        ) from None


def _canonical_value(
    connection: duckdb.DuckDBPyConnection, text: str, neutral: NeutralType, where: str
) -> str:
    if neutral.kind is Kind.JSON:
        try:
            return canonical_json(text)
        except ValueError:
            raise ConfigurationError(f"'{text[:60]}' is not JSON", where=where) from None
    value = literal(text)
    if neutral.kind is Kind.BYTES:
        conversion = Conversion(f"TRY(from_base64({value}))")
    else:
        conversion = convert(value, TEXT, neutral, where)
    conditions = ", ".join(f"({problem.condition})" for problem in conversion.problems) or "false"
    row = connection.sql(f"SELECT {canonical_sql(f'({conversion.sql})', neutral)}, {conditions}")
    result, *wrong = row.fetchall()[0]
    for problem, found in zip(conversion.problems, wrong, strict=False):
        if found:
            message = problem.message.format(value=text[:60])
            raise ConfigurationError(message, where=where)
    if result is None:
        raise ConfigurationError(f"'{text[:60]}' is not a value of type {neutral}", where=where)
    return str(result)


def _describe(connection: duckdb.DuckDBPyConnection, sql: str, source: str, where: str) -> str:
    try:
        rows = connection.sql(f"DESCRIBE SELECT ({sql}) AS value FROM {source}").fetchall()
        connection.sql(f"SELECT ({sql}) AS value FROM {source}").fetchall()
    except duckdb.Error as error:
        raise ExpressionRefused(
            f"the expression does not fit its values: {_reason(error)}",
            where=where,
            remedy="Cast values to the type that the function needs.",
        ) from None
    return str(rows[0][1])


def _reason(error: Exception) -> str:
    """The first sentence of a DuckDB error, without its class name and candidates."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[0] if lines else "unknown"
    for prefix in ("Binder Error: ", "Conversion Error: ", "Invalid Input Error: ",
                   "Out of Range Error: ", "Parser Error: "):  # fmt: skip
        text = text.removeprefix(prefix)
    return text[:300]


@dataclass(slots=True)
class _Layers:
    """A query that grows by layers; each adds columns to all those below."""

    sql: str = "SELECT * FROM input"

    def add(self, columns: Sequence[tuple[str, str]]) -> None:
        if columns:
            added = ", ".join(f"{sql} AS {name}" for name, sql in columns)
            self.sql = f"SELECT q.*, {added} FROM ({self.sql}) q"

    def join(self, table: str, key: str, value: str, column: str) -> None:
        self.sql = (
            f'SELECT q.*, t.{value} AS "{column}" FROM ({self.sql}) q '
            f"LEFT JOIN {table} t ON t.key = q.{key}"
        )


@dataclass(slots=True)
class _Judged:
    """A condition with the number of its problem."""

    condition: str
    number: int


class _Compiler:
    """Builds the fast and the careful query side by side."""

    def __init__(
        self,
        connection: duckdb.DuckDBPyConnection,
        mapping: MappingSpec,
        rule: RuleSpec,
        lookups: Collection[str],
        carry: Collection[str] | None,
        assigned: bool,
    ) -> None:
        self.connection = connection
        self.mapping = mapping
        self.rule = rule
        self.lookups = lookups
        self.carry = carry
        self.assigned = assigned
        self.left = {spec.name: spec.neutral_type for spec in mapping.left.fields}
        self.right: dict[str, NeutralType] = {}
        self.columns: dict[str, str] = {}
        self.fast = _Layers()
        self.careful = _Layers()
        self.failures: list[_Judged] = []
        self.judged: list[_Judged] = []
        self.details: dict[int, str] = {}
        self.problems: list[ProblemSpec] = []
        self.tables: dict[str, str] = {}
        self.canonical: list[int] = []
        self.warnings: list[tuple[str, str]] = []
        self.notes: list[str] = []
        self.arguments = 0
        self.inputs: list[str] = []

    def compile(self) -> TransformProgram:
        self._check_fields()
        expressions = self._parse_expressions()
        inputs = self.inputs = self._choose_inputs(expressions)
        self._open_tables(inputs)
        results = self._add_expressions(expressions)
        self._add_values(results)
        self._add_keys()
        self._add_checks()
        self._add_verdict()
        names = [spec.right for spec in self.mapping.fields]
        return TransformProgram(
            inputs=tuple(Column(name, str(self.left[name]), self.columns[name]) for name in inputs),
            outputs=tuple(
                Column(name, str(self.right[name]), f"o{place}") for place, name in enumerate(names)
            ),
            lookups=tuple(self.tables),
            problems=tuple(self.problems),
            warnings=tuple(name for name, _ in self.warnings),
            canonical_json=tuple(self.canonical),
            fast_sql=self.fast.sql,
            careful_sql=self.careful.sql,
            trusted=not expressions
            and not any(
                c.kind in (CheckKind.EXPRESSION, CheckKind.PATTERN) for c in self.rule.checks
            ),
            left_key=self.mapping.left.key,
            carries=self.carry is not None,
            notes=tuple(self.notes),
        )

    def _check_fields(self) -> None:
        mapping, rule = self.mapping, self.rule
        for spec in mapping.fields:
            where = f"field '{spec.right}'"
            if spec.right in self.right:
                raise ConfigurationError("the field is mapped twice", where=where)
            self.right[spec.right] = _field_of(mapping.right, spec.right, where)
            if spec.left and not spec.to_right:
                _field_of(mapping.left, spec.left, where)
        for name in mapping.left.key:
            _field_of(mapping.left, name, "key of the left dataset")
        for name in self.carry or ():
            _field_of(mapping.left, name, "rule")
        if rule.cursor_field:
            _field_of(mapping.left, rule.cursor_field, "cursor")
        self._check_key()
        mark_text(mapping, rule)
        unmapped = [
            spec.name
            for spec in mapping.right.fields
            if not (spec.nullable or spec.has_default or spec.server_assigned)
            and spec.name not in self.right
        ]
        self.notes += [
            f"The right field '{name}' must have a value but is not mapped." for name in unmapped
        ]

    def _check_key(self) -> None:
        if not self.mapping.key:
            raise KeyMissing("no match field is chosen", where="mapping")
        keys = []
        for name in self.mapping.key:
            neutral = _field_of(self.mapping.right, name, "key")
            if name not in self.right and not _is_assigned(self.mapping.right, name):
                raise KeyMissing(f"the match field '{name}' is not mapped", where="mapping")
            keys.append((name, neutral))
        keys += [(name, self.left[name]) for name in self.mapping.left.key]
        for name, neutral in keys:
            if neutral.kind in (Kind.JSON, Kind.ARRAY):
                raise KeyMissing(
                    f"'{name}' of type {neutral} cannot identify a record", where="mapping"
                )

    def _parse_expressions(self) -> list[tuple[str, str, Expression]]:
        """(column, right field, expression) of the filter (column `f`) and of each mapping."""
        columns = {name: f"c{place}" for place, name in enumerate(self.left)}
        self.columns = columns
        texts = [("f", "", self.rule.filter, "filter")] if self.rule.filter.strip() else []
        texts += [
            (f"r{place}", spec.right, spec.to_right, f"field '{spec.right}'")
            for place, spec in enumerate(self.mapping.fields)
            if spec.to_right
        ]
        parsed = [
            (
                column,
                name,
                parse_expression(
                    text, self.left, lookups=self.lookups, where=where, columns=columns
                ),
            )
            for column, name, text, where in texts
        ]
        for spec in self.mapping.fields:
            if spec.to_left:
                parse_expression(
                    spec.to_left,
                    self.right,
                    lookups=self.lookups,
                    where=f"field '{spec.right}', to the left",
                )
        return parsed

    def _choose_inputs(self, expressions: list[tuple[str, str, Expression]]) -> list[str]:
        used = set(self.mapping.left.key) | {self.rule.cursor_field} | set(self.carry or ())
        used |= {spec.left for spec in self.mapping.fields if not spec.to_right}
        for _, _, expression in expressions:
            used |= expression.fields
        return [name for name in self.left if name in used]

    def _open_tables(self, inputs: list[str]) -> None:
        columns = "".join(
            f", {self.columns[name]} {duckdb_type(self.left[name])}" for name in inputs
        )
        self.connection.execute(f"CREATE TABLE input(row BIGINT{columns})")

    def _table_of(self, lookup: str) -> str:
        if lookup not in self.tables:
            table = f"lookup_{len(self.tables)}"
            self.connection.execute(
                f"CREATE TABLE {table}(key VARCHAR, value VARCHAR, known BOOLEAN)"
            )
            self.tables[lookup] = table
        return self.tables[lookup]

    def _add(self, columns: Sequence[tuple[str, str]]) -> None:
        self.fast.add(columns)
        self.careful.add(columns)

    def _join(self, lookup: str, key: str, value: str, column: str) -> None:
        table = self._table_of(lookup)
        self.fast.join(table, key, value, column)
        self.careful.join(table, key, value, column)

    def _add_guarded(
        self,
        columns: Sequence[tuple[str, str]],
        post: Callable[[str, str], str],
        code: Sequence[int],
    ) -> None:
        """Add columns of a person's expressions; the careful query catches what they raise.

        post(name, SQL) turns the result into the column's SQL; code: the problem of each.
        """
        if not columns:
            return
        self.fast.add([(name, post(name, sql)) for name, sql in columns])
        self.careful.add(
            [(f"t_{name}", f"TRY(struct_pack(v := {post(name, sql)}))") for name, sql in columns]
        )
        self.careful.add([(name, f"struct_extract(t_{name}, 'v')") for name, _ in columns])
        for (name, _), number in zip(columns, code, strict=True):
            self.failures.append(_Judged(f"t_{name} IS NULL", number))

    def _problem(self, spec: ProblemSpec) -> int:
        self.problems.append(spec)
        return len(self.problems) - 1

    def _failure(self, name: str, check: str = "") -> int:
        subject = f"of check '{check}'" if check else f"for '{name}'" if name else "of the filter"
        return self._problem(
            ProblemSpec(
                EXPRESSION_FAILED, f"the expression {subject} failed: {{value}}", name, check
            )
        )

    def _add_lookups(self, calls: Iterable[tuple[LookupCall, int]]) -> None:
        """Join the lookups level by level; `int` is the problem of a failing argument."""
        unique = {call.column: (call, number) for call, number in calls}
        for level in sorted({call.level for call, _ in unique.values()}):
            arguments = []
            for call, number in unique.values():
                if call.level == level:
                    arguments.append((f"a{self.arguments}", call, number))
                    self.arguments += 1
            texts = [(name, self._key_text(call)) for name, call, _ in arguments]
            self._add_guarded(texts, lambda _, sql: sql, [number for _, _, number in arguments])
            for name, call, _ in arguments:
                self._join(call.name, name, "value", call.column)

    def _key_text(self, call: LookupCall) -> str:
        where = f"lookup '{call.name}'"
        duck = _describe(self.connection, call.argument_sql, f"({self.fast.sql})", where)
        sql, neutral = neutral_of(f"({call.argument_sql})", duck, where)
        return canonical_sql(sql, neutral)

    def _add_expressions(
        self, expressions: list[tuple[str, str, Expression]]
    ) -> dict[str, tuple[str, NeutralType]]:
        """Add the results; returns (SQL, type) of each by column."""
        numbers = {column: self._failure(name) for column, name, _ in expressions}
        self._add_lookups(
            (call, numbers[column])
            for column, _, expression in expressions
            for call in expression.calls
        )
        types: dict[str, tuple[str, NeutralType]] = {}
        for column, name, expression in expressions:
            where = f"field '{name}'" if name else "filter"
            duck = _describe(self.connection, expression.sql, f"({self.fast.sql})", where)
            if not name and duck != "BOOLEAN":
                raise ExpressionRefused("the filter must be true or false", where=where)
            types[column] = neutral_of(column, duck, where)
        self._add_guarded(
            [(column, expression.sql) for column, _, expression in expressions],
            lambda _, sql: f"({sql})",
            [numbers[column] for column, _, _ in expressions],
        )
        for column, _, _ in expressions:
            self.details[numbers[column]] = "NULL"
        return types

    def _add_values(self, results: Mapping[str, tuple[str, NeutralType]]) -> None:
        columns: list[tuple[str, str]] = []
        for place, spec in enumerate(self.mapping.fields):
            neutral = self.right[spec.right]
            where = f"field '{spec.right}'"
            sql, conversion = self._value(place, spec, neutral, results, where)
            if conversion.canonical_json:
                self.canonical.append(place)
            numbered = [
                (problem, self._problem(ProblemSpec(problem.code, problem.message, spec.right)))
                for problem in conversion.problems
            ]
            value = conversion.sql
            if spec.default is not None and spec.constant is None:
                text = _canonical_value(self.connection, spec.default, neutral, f"{where}, default")
                value = f"coalesce({value}, {self._literal(text, neutral)})"
            columns.append((f"o{place}", value))
            if numbered:
                columns.append((f"p{place}", _first(numbered)))
                self.judged += [_Judged(f"p{place} = {number}", number) for _, number in numbered]
                self.details.update((number, f"CAST({sql} AS VARCHAR)") for _, number in numbered)
        self._add(columns)
        self._judge_required()

    def _literal(self, text: str, neutral: NeutralType) -> str:
        return f"CAST({from_canonical_sql(literal(text), neutral)} AS {duckdb_type(neutral)})"

    def _value(
        self,
        place: int,
        spec: FieldMappingSpec,
        neutral: NeutralType,
        results: Mapping[str, tuple[str, NeutralType]],
        where: str,
    ) -> tuple[str, Conversion]:
        """(SQL of the source value, conversion to the right type) of one field mapping."""
        if spec.to_right:
            sql, source = results[f"r{place}"]
            conversion = convert(sql, source, neutral, where)
            if neutral.kind is Kind.JSON and source.kind is Kind.JSON:
                conversion = Conversion(conversion.sql, canonical_json=True)
            return sql, conversion
        if spec.left:
            sql = self.columns[spec.left]
            return sql, convert(sql, self.left[spec.left], neutral, where)
        text = _canonical_value(self.connection, spec.constant or "", neutral, f"{where}, constant")
        return "NULL", Conversion(self._literal(text, neutral))

    def _judge_required(self) -> None:
        for place, spec in enumerate(self.mapping.fields):
            target = self.mapping.right.field(spec.right)
            if spec.right in self.mapping.key:
                if self.assigned and _is_assigned(self.mapping.right, spec.right):
                    continue
                number = self._problem(
                    ProblemSpec(
                        KEY_MISSING, f"the match field '{spec.right}' has no value", spec.right
                    )
                )
            elif not target.nullable and not target.server_assigned:
                number = self._problem(
                    ProblemSpec(REQUIRED, f"'{spec.right}' must have a value", spec.right)
                )
            else:
                continue
            self.judged.append(_Judged(f"o{place} IS NULL", number))

    def _add_keys(self) -> None:
        places = {spec.right: place for place, spec in enumerate(self.mapping.fields)}
        known = all(name in places for name in self.mapping.key)
        right = [(f"o{places[name]}", self.right[name]) for name in self.mapping.key if known]
        left = [(self.columns[name], self.left[name]) for name in self.mapping.left.key]
        for name in self.mapping.left.key:
            if self.assigned and _is_assigned(self.mapping.left, name):
                continue
            number = self._problem(
                ProblemSpec(KEY_MISSING, f"the key field '{name}' of the record is empty", name)
            )
            self.judged.insert(0, _Judged(f"{self.columns[name]} IS NULL", number))
        if not (left or right):
            raise KeyMissing(
                "a record needs a key: the right side assigns its own, and the left has none",
                where="mapping",
            )
        rk = _key(right) if right else "CAST(NULL AS VARCHAR)"
        self._add([("lk", _key(left or right)), ("rk", rk)])

    def _add_checks(self) -> None:
        places = {spec.right: place for place, spec in enumerate(self.mapping.fields)}
        columns: list[tuple[str, str]] = []
        guarded: list[tuple[str, str]] = []
        numbers: list[int] = []
        for index, check in enumerate(self.rule.checks):
            where = f"check '{check.name}'"
            if check.field and check.field not in self.right:
                raise FieldMissing(f"the field '{check.field}' is not mapped", where=where)
            if not check.field and check.kind is not CheckKind.EXPRESSION:
                raise ConfigurationError("the check names no field", where=where)
            if check.kind is CheckKind.UNIQUE:
                continue
            value = f"o{places[check.field]}" if check.field else ""
            if check.kind is CheckKind.EXPRESSION:
                failure = self._failure(check.field, check.name)
                guarded.append((f"k{index}", self._check_expression(check, failure, places, where)))
                numbers.append(failure)
            else:
                columns.append((f"k{index}", self._check_sql(check, value, where)))
            self._judge_check(index, check, value)
        self._add_guarded(guarded, lambda _, sql: f"NOT coalesce({sql}, true)", numbers)
        self._add(columns)

    def _judge_check(self, index: int, check: CheckSpec, value: str) -> None:
        if check.severity is Severity.WARN:
            self.warnings.append((check.name, f"k{index}"))
            return
        stop = check.severity is Severity.STOP
        spec = ProblemSpec(CHECK_FAILED, _check_message(check), check.field, check.name, stop)
        number = self._problem(spec)
        self.judged.append(_Judged(f"k{index}", number))
        if value:
            self.details[number] = f"CAST({value} AS VARCHAR)"

    def _check_expression(
        self, check: CheckSpec, failure: int, places: Mapping[str, int], where: str
    ) -> str:
        expression = parse_expression(
            check.expression,
            self.right,
            lookups=self.lookups,
            where=where,
            columns={name: f"o{place}" for name, place in places.items()},
        )
        self._add_lookups((call, failure) for call in expression.calls)
        duck = _describe(self.connection, expression.sql, f"({self.fast.sql})", where)
        if duck != "BOOLEAN":
            raise ExpressionRefused("a check must be true or false", where=where)
        return expression.sql

    def _check_sql(self, check: CheckSpec, value: str, where: str) -> str:
        """SQL that is true where a check (other than an expression) fails."""
        neutral = self.right[check.field]
        builders: dict[CheckKind, Callable[[], str]] = {
            CheckKind.TYPE: lambda: self._type_check(check, value, neutral, where),
            CheckKind.REQUIRED: lambda: f"{value} IS NULL",
            CheckKind.PATTERN: lambda: self._pattern_check(check, value, neutral, where),
            CheckKind.RANGE: lambda: self._range_check(check, value, neutral, where),
            CheckKind.SET: lambda: self._set_check(check, value, neutral, where),
            CheckKind.REFERENCE: lambda: self._reference_check(check, value, neutral, where),
        }
        return builders[check.kind]()

    def _type_check(self, check: CheckSpec, value: str, neutral: NeutralType, where: str) -> str:
        try:
            wanted = NeutralType.parse(check.type)
        except ValueError as error:
            raise ConfigurationError(str(error), where=where) from None
        problems = convert(value, neutral, wanted, where).problems
        found = " OR ".join(f"coalesce({problem.condition}, false)" for problem in problems)
        return f"({found})" if found else "false"

    def _pattern_check(self, check: CheckSpec, value: str, neutral: NeutralType, where: str) -> str:
        if not check.pattern or len(check.pattern) > 1_000:
            raise ConfigurationError("the pattern has 1 to 1,000 characters", where=where)
        text = canonical_sql(value, neutral)
        sql = f"NOT regexp_full_match({text}, {literal(check.pattern)})"
        try:
            self.connection.sql(
                f"SELECT regexp_full_match('', {literal(check.pattern)})"
            ).fetchall()
        except duckdb.Error as error:
            raise ConfigurationError(
                f"the pattern is not a regular expression: {_reason(error)}", where=where
            ) from None
        return f"coalesce({sql}, false)"

    def _range_check(self, check: CheckSpec, value: str, neutral: NeutralType, where: str) -> str:
        if check.minimum is None and check.maximum is None:
            raise ConfigurationError("a range has a minimum, a maximum or both", where=where)
        parts, bounds = [], []
        for sign, bound in (("<", check.minimum), (">", check.maximum)):
            if bound is not None:
                text = _canonical_value(self.connection, bound, neutral, where)
                bounds.append(self._literal(text, neutral))
                parts.append(f"{value} {sign} {bounds[-1]}")
        if neutral.is_wide_decimal or neutral.kind in (Kind.JSON, Kind.ARRAY):
            raise ConfigurationError(f"values of type {neutral} have no range", where=where)
        if len(bounds) == 2:
            least, most = bounds
            if self.connection.sql(f"SELECT {least} > {most}").fetchall() == [(True,)]:
                raise ConfigurationError(
                    "the minimum lies above the maximum: no value is in the range", where=where
                )
        return f"coalesce({' OR '.join(parts)}, false)"

    def _set_check(self, check: CheckSpec, value: str, neutral: NeutralType, where: str) -> str:
        if not check.values:
            raise ConfigurationError("the check names no values", where=where)
        texts = [_canonical_value(self.connection, text, neutral, where) for text in check.values]
        allowed = ", ".join(literal(text) for text in texts)
        return f"coalesce({canonical_sql(value, neutral)} NOT IN ({allowed}), false)"

    def _reference_check(
        self, check: CheckSpec, value: str, neutral: NeutralType, where: str
    ) -> str:
        if check.lookup not in self.lookups:
            raise ConfigurationError(f"unknown lookup '{check.lookup}'", where=where)
        key, known = f"a{self.arguments}", f"known{self.arguments}"
        self.arguments += 1
        self._add([(key, canonical_sql(value, neutral))])
        self._join(check.lookup, key, "known", known)
        return f'{key} IS NOT NULL AND "{known}" IS NULL'

    def _add_verdict(self) -> None:
        keep = "coalesce(f, false)" if self.rule.filter.strip() else "true"
        for layers, failures in ((self.fast, []), (self.careful, self.failures)):
            filter_first = [j for j in failures if j.condition == "t_f IS NULL"]
            others = [j for j in failures if j not in filter_first] + self.judged
            verdict = (
                "CASE "
                + "".join(f"WHEN {j.condition} THEN {j.number} " for j in filter_first)
                + f"WHEN NOT {keep} THEN {self._unreadable_key()} "
                + "".join(f"WHEN {j.condition} THEN {j.number} " for j in others)
                + "END"
            )
            layers.add([("problem", f"CAST({verdict} AS INTEGER)")])
            layers.sql = f"SELECT {self._final_columns(keep)} FROM ({layers.sql}) q"

    def _unreadable_key(self) -> str:
        """SQL of the problem of a record outside the filter: only that its key cannot be told.

        Without its key nobody knows which right record it belongs to, so it must be seen.
        """
        if self.mapping.left.key:
            return "NULL"
        places = [p for p, spec in enumerate(self.mapping.fields) if spec.right in self.mapping.key]
        columns = [f"p{place}" for place in places if any(
            judged.condition.startswith(f"p{place} = ") for judged in self.judged
        )]  # fmt: skip
        return f"coalesce({', '.join(columns)})" if columns else "NULL"

    def _final_columns(self, keep: str) -> str:
        details = "".join(
            f"WHEN {number} THEN left({sql}, 60) " for number, sql in self.details.items()
        )
        detail = f"CASE problem {details}END" if details else "NULL"
        outputs = "".join(
            f", CAST(o{place} AS {duckdb_type(self.right[spec.right])}) AS o{place}"
            for place, spec in enumerate(self.mapping.fields)
        )
        warned = "".join(
            f", coalesce({column}, false) AS w{place}"
            for place, (_, column) in enumerate(self.warnings)
        )
        carried = "".join(
            f", {self.columns[name]}" for name in self.inputs if self.carry is not None
        )
        return (
            f"row, {keep} AS keep, problem, CAST({detail} AS VARCHAR) AS detail, lk, rk"
            f"{outputs}{warned}{carried}"
        )


def _is_assigned(dataset: DatasetSpec, name: str) -> bool:
    """Whether a side gives this field a value of its own when none is written."""
    spec = dataset.field(name)
    return spec.server_assigned or spec.has_default


def _first(numbered: Sequence[tuple[Problem, int]]) -> str:
    cases = "".join(f"WHEN {problem.condition} THEN {number} " for problem, number in numbered)
    return f"CASE {cases}END"


def _key(columns: Sequence[tuple[str, NeutralType]]) -> str:
    """The key text, NULL where a key value is."""
    missing = " OR ".join(f"{sql} IS NULL" for sql, _ in columns)
    return f"CASE WHEN NOT ({missing}) THEN {key_sql(columns)} END"


def _check_message(check: CheckSpec) -> str:
    field = f"'{check.field}'"
    messages = {
        CheckKind.TYPE: f"{field} is not of type {check.type}",
        CheckKind.REQUIRED: f"{field} must have a value",
        CheckKind.PATTERN: f"{field} does not match the pattern",
        CheckKind.RANGE: f"{field} is out of the range",
        CheckKind.SET: f"{field} is none of the allowed values",
        CheckKind.REFERENCE: f"{field} is not known to the lookup '{check.lookup}'",
        CheckKind.EXPRESSION: "the record does not pass the check",
    }
    return messages[check.kind]


__all__ = [
    "LEFT_KEY",
    "RIGHT_KEY",
    "RecordRejection",
    "TransformProgram",
    "Transformed",
    "canonical_value",
    "compile_transform",
    "cursor_maximum",
    "expression_type",
    "mark_text",
]
