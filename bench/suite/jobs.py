"""The jobs of the suite."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any

from bench.suite import limits
from bench.suite.measuring import Job, Timed
from bench.suite.peers import Peers
from bench.suite.platforms import Platform, seconds
from bench.suite.tables import COPY, EXPRESSIONS, MARIADB, RENAMED, RENAMES

LEFT, RIGHT = ("left", "customers"), ("right", "clients")
CHANGED, DELETED, ADDED = 10_000, 1_000, 1_000
SAME_COLUMNS = ", ".join(RENAMES.values())


class Jobs:
    """Makes the jobs of one scene of `rows` records."""

    def __init__(self, platform: Platform, rows: int, peers: Peers) -> None:
        self.platform = platform
        self.rows = rows
        self.peers = peers
        self._rules: dict[str, Any] = {}
        self._made = count(1)

    def all(self) -> dict[str, Callable[[], Job]]:
        """By name; each brings its own tables and rule when it is called."""
        return {
            "full load": self.full_load,
            "full load, 4 expressions, 6 checks": self.full_load_with_expressions,
            "first load of a two-way rule": self.two_way_load,
            "full load into MariaDB": self.mariadb_load,
            "incremental": self.incremental,
            "differences": self.differences,
            "two-way, 1 % edited on each side": self.two_way,
        }

    def _fresh(self) -> None:
        self.platform.retire()
        self.platform.on("right", "DROP TABLE IF EXISTS customers", "DROP TABLE IF EXISTS clients")
        self.platform.on("right", COPY.ddl, RENAMED.ddl)

    def _loads(self, rule: Any, name: str, goal: float, peer: str) -> Job:
        def prepare() -> None:
            self.platform.forget(rule)
            self.platform.on("right", "TRUNCATE customers", "TRUNCATE clients")
            self.platform.settle_down()

        return Job(
            name,
            goal,
            limit=lambda: seconds(lambda: limits.copy_copy(self.platform)),
            ours=lambda: self._checked(rule),
            prepare=prepare,
            peers=self.peers.of(peer),
        )

    def _checked(self, rule: Any, **options: Any) -> Timed:
        return self.platform.timed(rule, **options)

    def full_load(self) -> Job:
        self._fresh()
        rule = self.platform.rule("full load", LEFT, RIGHT, RENAMES)
        return self._loads(rule, "full load", 1.25, "full")

    def full_load_with_expressions(self) -> Job:
        self._fresh()
        rule = self.platform.rule(
            "expressions", LEFT, RIGHT, RENAMES, EXPRESSIONS, checks=_six_checks()
        )
        return self._loads(rule, "full load, 4 expressions, 6 checks", 1.9, "")

    def two_way_load(self) -> Job:
        self._fresh()
        rule = self.platform.rule(
            "two-way load", LEFT, RIGHT, RENAMES, direction="two_way", first_contact="left"
        )
        return self._loads(rule, "first load of a two-way rule", 2.5, "")

    def mariadb_load(self) -> Job:
        platform = self.platform
        platform.on_mariadb(
            "DROP TABLE IF EXISTS clients, limit_clients",
            MARIADB,
            "CREATE TABLE limit_clients LIKE clients",
        )
        rule = platform.rule("mariadb", LEFT, ("mariadb", "clients"), RENAMES)

        def prepare() -> None:
            platform.forget(rule)
            platform.on_mariadb("TRUNCATE clients", "TRUNCATE limit_clients")
            platform.settle_down()

        return Job(
            "full load into MariaDB",
            1.2,
            limit=lambda: seconds(lambda: limits.copy_load_data(platform)),
            ours=lambda: self._checked(rule),
            prepare=prepare,
            peers=self.peers.of("mariadb"),
        )

    def incremental(self) -> Job:
        platform = self.platform
        self._fresh()
        limits.copy_copy(platform)
        platform.on("left", "CREATE INDEX IF NOT EXISTS by_update ON customers (updated_at)")
        rule = platform.rule(
            "incremental", LEFT, RIGHT, RENAMES, delta="cursor", cursor_field="updated_at"
        )
        platform.timed(rule)
        platform.on("right", "VACUUM ANALYZE clients", "VACUUM ANALYZE customers")
        self.peers.begin_incremental()
        since = [""]

        def prepare() -> None:
            number = next(self._made)
            since[0] = _moment(number, 0)
            _edit(platform, number, self.rows)
            platform.settle_down()

        return Job(
            "incremental",
            3.0,
            limit=lambda: seconds(lambda: limits.copy_upsert(platform, since[0])),
            ours=lambda: self._checked(rule),
            prepare=prepare,
            peers=self.peers.of("incremental"),
        )

    def differences(self) -> Job:
        platform = self.platform
        self._fresh()
        rule = platform.rule("differences", LEFT, RIGHT, RENAMES)
        platform.timed(rule)
        platform.on("right", "VACUUM ANALYZE clients")
        self.peers.begin_differences()
        step = max(1, self.rows // CHANGED)
        platform.on(
            "left",
            f"UPDATE customers SET name = name || '.' WHERE id % {step} = 1",
            f"DELETE FROM customers WHERE id % {step * 10} = 2",
            f"INSERT INTO customers (id, token, name) SELECT -n, md5(n::text)::uuid, 'new ' || n "
            f"FROM generate_series(1, {ADDED}) AS n",
            "VACUUM ANALYZE customers",
        )
        return Job(
            "differences",
            1.3,
            limit=lambda: seconds(lambda: limits.read_and_join(platform)),
            ours=lambda: self._checked(rule, mode="dry_run"),
            prepare=platform.settle_down,
            peers=self.peers.of("differences"),
        )

    def two_way(self) -> Job:
        platform = self.platform
        self._fresh()
        rule = platform.rule(
            "two-way",
            LEFT,
            RIGHT,
            RENAMES,
            direction="two_way",
            first_contact="left",
            policy="left",
        )
        platform.timed(rule)
        platform.on("right", "VACUUM ANALYZE clients")

        def prepare() -> None:
            number = next(self._made)
            low = number * 10 % 1000
            platform.on(
                "left",
                f"UPDATE customers SET name = 'left ' || id || ' {number}' "
                f"WHERE id % 1000 BETWEEN {low} AND {low + 9}",
            )
            platform.on(
                "right",
                f"UPDATE clients SET full_name = 'right ' || client_id || ' {number}' "
                f"WHERE client_id % 1000 BETWEEN {low + 9} AND {low + 18}",
            )
            platform.settle_down()

        return Job(
            "two-way, 1 % edited on each side",
            2.5,
            limit=lambda: seconds(lambda: limits.read_both(platform)),
            ours=lambda: self._checked(rule),
            prepare=prepare,
        )


def _six_checks() -> tuple[Any, ...]:
    from apps.engine.spec import CheckKind, CheckSpec

    return (
        CheckSpec(name="named", kind=CheckKind.REQUIRED, field="full_name"),
        CheckSpec(name="address", kind=CheckKind.PATTERN, field="mail", pattern="^[^@]+@[^@]+$"),
        CheckSpec(name="amount", kind=CheckKind.RANGE, field="amount", minimum="0"),
        CheckSpec(name="points", kind=CheckKind.RANGE, field="points", minimum="0"),
        CheckSpec(name="born", kind=CheckKind.REQUIRED, field="birthday"),
        CheckSpec(name="land", kind=CheckKind.EXPRESSION, expression="length(land) = 2"),
    )


def _moment(number: int, offset: int) -> str:
    """A time later than all of the table's, and than those of earlier pairs."""
    return f"2027-01-{number:02d} 00:00:{offset:02d}"


def _edit(platform: Platform, number: int, rows: int) -> None:
    """Change some records spread over the table, and add some at its end."""
    step = max(1, rows // CHANGED)
    at = f"timestamp '{_moment(number, 1)}' + {{}} * interval '1 microsecond'"
    first = rows + number * ADDED
    platform.on(
        "left",
        f"UPDATE customers SET balance = balance + 1, updated_at = {at.format('id')} "
        f"WHERE id % {step} = {number % step} AND id <= {rows}",
        f"INSERT INTO customers (id, token, name, updated_at) SELECT {first} + n, "
        f"md5(n::text)::uuid, 'new ' || n, {at.format('n')} "
        f"FROM generate_series(1, {ADDED}) AS n",
    )
