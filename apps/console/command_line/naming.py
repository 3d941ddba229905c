"""From what somebody typed to rules and sources."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import ClassVar

from apps.connectors.errors import ConfigurationError
from apps.console.command_line.output import USAGE
from apps.rules.models import Rule
from apps.sources.models import Dataset, Source


class UnknownName(ConfigurationError):
    """No rule or source is called that."""

    code = "command.unknown_name"
    default_remedy = "`lockstep status` lists the rules."
    exit_code: ClassVar[int] = USAGE


def find_source(name: str) -> Source:
    source = Source.objects.filter(name=name).first()
    if source is None:
        raise _unknown("source", name, list(Source.objects.values_list("name", flat=True)))
    return source


def find_dataset(name: str) -> Dataset:
    """By `source: dataset`, as lists show it."""
    source, _, rest = name.partition(":")
    found = Dataset.objects.filter(source__name=source.strip(), name=rest.strip()).first()
    if found is None:
        raise _unknown("dataset", name, [str(d) for d in Dataset.objects.select_related("source")])
    return found


def find_rule(name: str) -> Rule:
    rule = Rule.objects.filter(name=name).first()
    if rule is None:
        raise _unknown("rule", name, list(Rule.objects.values_list("name", flat=True)))
    return rule


def find_rules(patterns: Sequence[str]) -> list[Rule]:
    """Rules by name or shell pattern; each pattern must match something."""
    rules = list(Rule.objects.select_related("mapping__right"))
    found: dict[str, Rule] = {}
    for pattern in patterns:
        exact = [rule for rule in rules if rule.name == pattern]
        matching = exact or [rule for rule in rules if fnmatchcase(rule.name, pattern)]
        if not matching:
            raise _unknown("rule", pattern, [rule.name for rule in rules])
        found |= {rule.name: rule for rule in matching}
    return list(found.values())


def find_rule_or_source(name: str) -> Rule | Source:
    """By plain name, or by `rule:NAME` and `source:NAME` where both are called the same."""
    kind, _, rest = name.partition(":")
    if kind == "rule" and rest:
        return find_rule(rest)
    if kind == "source" and rest:
        return find_source(rest)
    rule = Rule.objects.filter(name=name).first()
    source = Source.objects.filter(name=name).first()
    if rule is not None and source is not None:
        raise UnknownName(
            f"'{name}' is a rule and a source", remedy=f"Write 'rule:{name}' or 'source:{name}'."
        )
    if rule is None and source is None:
        names = [*Rule.objects.values_list("name", flat=True)]
        names += Source.objects.values_list("name", flat=True)
        raise _unknown("rule or source", name, names)
    return rule or source  # type: ignore[return-value]


def _unknown(noun: str, name: str, known: list[str]) -> UnknownName:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    if close:
        remedy = f"Did you mean '{close[0]}'?"
    else:
        remedy = f"There is: {', '.join(known[:10])}." if known else f"There is no {noun} yet."
    return UnknownName(f"there is no {noun} '{name}'", remedy=remedy)
