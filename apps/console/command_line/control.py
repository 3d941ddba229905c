"""`status`, `pause` and `resume`."""

from __future__ import annotations

from argparse import Namespace
from datetime import datetime
from typing import Any

from django.utils import timezone

from apps.console import services
from apps.console.command_line.following import run_facts, run_line
from apps.console.command_line.naming import UnknownName, find_rule, find_rule_or_source
from apps.console.command_line.output import DONE, Output
from apps.core.clock import now
from apps.core.selectors import platform_state
from apps.ledger.models import Rejection
from apps.rules.models import Rule
from apps.rules.schedule import next_due
from apps.rules.services import set_rule_paused
from apps.runs.models import Checkpoint, Run
from apps.sources.services import set_source_paused

RECENT_RUNS = 5


def status(arguments: Namespace, output: Output) -> int:
    if arguments.rule:
        return _status_of_rule(find_rule(arguments.rule), output)
    rules = list(Rule.objects.select_related("mapping__left__source", "mapping__right__source"))
    facts = [_rule_facts(rule) for rule in rules]
    paused = platform_state().paused
    output.result({"paused": paused, "rules": facts})
    if paused:
        output.line("Everything is paused.")
    if not rules:
        output.line("There are no rules yet.")
    width = max((len(rule.name) for rule in rules), default=0)
    for rule, fact in zip(rules, facts, strict=True):
        done = _last_words(rule)
        due = f"  next {fact['next_due']}" if fact["next_due"] else ""
        output.line(f"{rule.name:<{width}}  {fact['state']:<8}  {done}{due}")
    return DONE


def _rule_facts(rule: Rule) -> dict[str, Any]:
    last = rule.runs.first()
    due = next_due(rule, now(), 1) if _state(rule) == "enabled" else []
    return {
        "rule": rule.name,
        "state": _state(rule),
        "left": str(rule.mapping.left),
        "right": str(rule.mapping.right),
        "last_run": run_facts(last) if last else None,
        "next_due": _when(due[0]) if due else None,
        "open_rejections": _open_rejections(rule),
    }


def _state(rule: Rule) -> str:
    mapping = rule.mapping
    if rule.paused or mapping.left.source.paused or mapping.right.source.paused:
        return "paused"
    if rule.schedule_kind == Rule.ScheduleKind.MANUAL:
        return "manual"
    return "enabled" if rule.enabled else "disabled"


def _open_rejections(rule: Rule) -> int:
    return Rejection.objects.filter(rule_id=rule.pk, state=Rejection.State.OPEN).count()


def _last_words(rule: Rule) -> str:
    last: Run | None = rule.runs.first()
    if last is None:
        return "never run"
    moment = last.finished_at or last.created_at
    return f"{last.get_status_display().lower()} {_when(moment)}"


def _when(moment: datetime) -> str:
    return timezone.localtime(moment).isoformat(sep=" ", timespec="minutes")


def _status_of_rule(rule: Rule, output: Output) -> int:
    facts = _rule_facts(rule)
    recent = list(rule.runs.select_related("rule")[:RECENT_RUNS])
    checkpoint = Checkpoint.objects.filter(rule=rule).first()
    facts["runs"] = [run_facts(item) for item in recent]
    facts["cursor"] = checkpoint.cursor if checkpoint else ""
    output.result(facts)
    output.line(f"{rule.name}: {facts['left']} → {facts['right']}, {facts['state']}")
    if facts["next_due"]:
        output.line(f"next due     {facts['next_due']}")
    if facts["cursor"]:
        output.line(f"cursor       {rule.cursor_field} = {facts['cursor']}")
    if facts["open_rejections"]:
        output.line(f"rejections   {facts['open_rejections']} open")
    for item in recent:
        output.line(f"{_when(item.created_at)}  {run_line(item)}")
    return DONE


def pause(arguments: Namespace, output: Output) -> int:
    return _set_paused(arguments, output, paused=True)


def resume(arguments: Namespace, output: Output) -> int:
    return _set_paused(arguments, output, paused=False)


def _set_paused(arguments: Namespace, output: Output, *, paused: bool) -> int:
    word = "paused" if paused else "resumed"
    reason = f"{word} on the command line"
    if arguments.everything == bool(arguments.name):
        raise UnknownName(
            "say what is meant", remedy="Name a rule or a source, or write --all for everything."
        )
    if arguments.everything:
        change = services.pause_everything if paused else services.resume_everything
        change(actor=None, reason=reason)
        what = "everything"
    else:
        found = find_rule_or_source(arguments.name)
        if isinstance(found, Rule):
            set_rule_paused(found, paused, reason, actor=None)
        else:
            set_source_paused(found, paused, reason, actor=None)
        what = f"{found._meta.verbose_name} {found.name}"
    output.result({"paused": paused, "what": what})
    output.line(f"{what}: {word}")
    return DONE
