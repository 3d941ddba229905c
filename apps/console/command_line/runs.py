"""`plan` and `run`."""

from __future__ import annotations

from argparse import Namespace
from typing import Any
from uuid import UUID

from apps.connectors.errors import ConfigurationError, LockstepError
from apps.console.command_line.following import Follower, run_facts, run_line
from apps.console.command_line.naming import UnknownName, find_rule, find_rules
from apps.console.command_line.output import DONE, FAILED, WITH_REJECTIONS, Output
from apps.engine.types_sql import key_values
from apps.ledger.models import Change
from apps.ledger.selectors import change_page, masked
from apps.rules.models import Rule
from apps.rules.selectors import dependencies, in_dependency_order
from apps.runs.models import Run, RunStatus
from apps.runs.services import request_run

_EXIT_CODES = {
    RunStatus.SUCCEEDED: DONE,
    RunStatus.PLANNED: DONE,
    RunStatus.PARTIAL: WITH_REJECTIONS,
    RunStatus.WAITING: WITH_REJECTIONS,  # a person is needed here as well
}
_SIGNS = {"insert": "+", "update": "~", "delete": "-"}


class RunUnfinished(ConfigurationError):
    """A run that was waited for and did not end well; the text is its cause."""

    code = "run.failed"


def plan(arguments: Namespace, output: Output) -> int:
    rule = find_rule(arguments.rule)
    run = _request(rule, mode=Run.Mode.DRY_RUN, sweep=arguments.sweep)
    if not arguments.wait:
        output.result(run_facts(run))
        output.line(f"{rule.name}: dry run queued; --wait shows its changes, so does its page.")
        return DONE
    run = Follower(output).follow(run)
    changes = masked(change_page(run.pk, limit=arguments.limit))
    output.result({**run_facts(run), "changes": [_change_facts(change) for change in changes]})
    output.line(run_line(run))
    _print_cause(run, output)
    for change in changes:
        _print_change(change, output)
    more = run.planned - len(changes)
    if more > 0 and changes:
        output.line(f"… and {more:,} more")
    return int(_EXIT_CODES.get(RunStatus(run.status), FAILED))


def _change_facts(change: Change) -> dict[str, Any]:
    before, after = change.images()
    return {
        "operation": change.operation,
        "cause": change.cause,
        "key": key_values(change.right_key),
        "before": before,
        "after": after,
    }


def _print_change(change: Change, output: Output) -> None:
    before, after = change.images()
    output.line(f"{_SIGNS[change.operation]} {_key(change)}")
    for name in after or before or {}:
        old, new = (before or {}).get(name), (after or {}).get(name)
        if change.operation == "update":
            output.line(f"    {name}: {_text(old)} → {_text(new)}")
        else:
            output.line(f"    {name}: {_text(new if after else old)}")


def _key(change: Change) -> str:
    return ", ".join(value or "NULL" for value in key_values(change.right_key))


def _text(value: str | None) -> str:
    if value is None:
        return "NULL"
    return value if len(value) <= 80 else f"{value[:77]}…"


def run(arguments: Namespace, output: Output) -> int:
    rules = _chosen(arguments)
    if not arguments.wait:
        return _queue(rules, arguments, output)
    return _run_in_turn(rules, arguments, output)


def _queue(rules: list[Rule], arguments: Namespace, output: Output) -> int:
    """Start them all; one that is refused keeps no other from starting."""
    facts: list[dict[str, Any]] = []
    code = DONE
    for rule in rules:
        try:
            item = _request(rule, sweep=arguments.sweep)
        except LockstepError as error:
            _note_refusal(rule, error, facts, output)
            code = FAILED
            continue
        facts.append(run_facts(item))
        output.line(f"{rule.name}: queued")
    output.result({"runs": facts})
    return code


def _note_refusal(
    rule: Rule, error: LockstepError, facts: list[dict[str, Any]], output: Output
) -> None:
    facts.append({"rule": rule.name, "status": "refused", "error": _error_facts(error)})
    if not output.as_json:
        output.error(error)


def _chosen(arguments: Namespace) -> list[Rule]:
    if arguments.everything == bool(arguments.rules):
        raise UnknownName("say which rules to run", remedy="Name rules, or write --all.")
    found = find_rules(["*"] if arguments.everything else arguments.rules)
    return in_dependency_order(found)


def _run_in_turn(rules: list[Rule], arguments: Namespace, output: Output) -> int:
    """Each rule after those it depends on; what depends on a failed one is left out."""
    needs = dependencies(rules)
    facts: list[dict[str, Any]] = []
    failed: set[UUID] = set()
    code, follower = DONE, Follower(output)
    for rule in rules:
        if needs[rule.pk] & failed:
            failed.add(rule.pk)
            facts.append({"rule": rule.name, "status": "skipped"})
            output.line(f"{rule.name}: left out, because a rule that it depends on failed")
            continue
        outcome = _run_one(rule, arguments.sweep, facts, follower)
        if outcome == FAILED:
            failed.add(rule.pk)
        code = FAILED if failed else max(code, outcome)
    output.result({"runs": facts})
    return code


def _run_one(rule: Rule, sweep: bool, facts: list[dict[str, Any]], follower: Follower) -> int:
    output = follower.output
    try:
        item = follower.follow(_request(rule, sweep=sweep))
    except LockstepError as error:
        _note_refusal(rule, error, facts, output)
        return FAILED
    facts.append(run_facts(item))
    output.line(run_line(item))
    _print_cause(item, output)
    return int(_EXIT_CODES.get(RunStatus(item.status), FAILED))


def _error_facts(error: LockstepError) -> dict[str, str]:
    return {
        "code": error.code,
        "message": error.message,
        "where": error.where,
        "remedy": error.remedy,
    }


def _print_cause(item: Run, output: Output) -> None:
    if item.cause and not output.as_json:
        output.error(RunUnfinished(item.cause, where=item.rule.name, remedy=item.remedy))


def _request(rule: Rule, *, mode: str = Run.Mode.APPLY, sweep: bool = False) -> Run:
    return request_run(rule, actor=None, mode=mode, trigger=Run.Trigger.COMMAND, sweep=sweep)
