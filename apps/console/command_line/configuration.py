"""`apply` and `export`."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import asdict

from apps.audit.actions import Act
from apps.audit.services import record
from apps.connectors.errors import ConfigurationError
from apps.console.command_line.output import DONE, Output
from apps.rules import configuration
from apps.rules.configuration.diff import Action, Entry
from apps.rules.configuration.exporting import content

_SIGNS = {Action.CREATED: "+", Action.UPDATED: "~"}


def apply(arguments: Namespace, output: Output) -> int:
    file = configuration.read_file(arguments.file)
    diff = configuration.apply(file, actor=None, dry=arguments.dry_run)
    output.result(
        {"dry_run": arguments.dry_run, "entries": [asdict(entry) for entry in diff.entries]}
    )
    for entry in diff.entries:
        if entry.action is not Action.UNCHANGED:
            _print_entry(entry, output)
    counts = {action: len(diff.of(action)) for action in Action}
    would = " (dry run: nothing was done)" if arguments.dry_run else ""
    output.line(
        f"{counts[Action.CREATED]} created, {counts[Action.UPDATED]} updated, "
        f"{counts[Action.UNCHANGED]} unchanged{would}"
    )
    return DONE


def _print_entry(entry: Entry, output: Output) -> None:
    output.line(f"{_SIGNS[entry.action]} {entry.kind} {entry.name}")
    for change in entry.changes:
        output.line(f"    {change}")


def export(arguments: Namespace, output: Output) -> int:
    record(Act.CONFIGURATION_EXPORTED, actor=None)
    if output.as_json and arguments.output is None:
        output.result(content(configuration.export()))
        return DONE
    text = configuration.export_text()
    if arguments.output is None:
        output.line(text.rstrip("\n"))
        return DONE
    try:
        arguments.output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(
            f"the file cannot be written: {error.strerror}", where=str(arguments.output)
        ) from None
    output.result({"file": str(arguments.output)})
    output.line(f"Written to {arguments.output}")
    return DONE
