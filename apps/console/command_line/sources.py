"""`check` and `discover`."""

from __future__ import annotations

from argparse import Namespace

from apps.connectors.base import StepStatus
from apps.connectors.errors import ConfigurationError
from apps.connectors.rest.openapi import propose_from
from apps.console.command_line.naming import find_source
from apps.console.command_line.output import DONE, FAILED, Output
from apps.sources import services

_SIGNS = {StepStatus.OK: "ok     ", StepStatus.FAILED: "FAILED ", StepStatus.SKIPPED: "skipped"}


def check(arguments: Namespace, output: Output) -> int:
    source = find_source(arguments.source)
    steps = services.check_source(source, actor=None)
    failed = any(step.status is StepStatus.FAILED for step in steps)
    output.result(
        {
            "source": source.name,
            "ok": not failed,
            "steps": [
                {"name": s.name, "status": s.status, "message": s.message, "remedy": s.remedy}
                for s in steps
            ],
        }
    )
    for step in steps:
        remedy = f" {step.remedy}" if step.remedy else ""
        output.line(f"{_SIGNS[step.status]}  {step.name:<8}  {step.message}{remedy}")
    return FAILED if failed else DONE


def propose_rest(arguments: Namespace, output: Output) -> int:
    try:
        text = arguments.file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        raise ConfigurationError(
            f"the document cannot be read: {reason}", where=str(arguments.file)
        ) from None
    proposal = propose_from(text)
    output.result(
        {
            "settings": proposal.settings,
            "definition": {"datasets": proposal.datasets},
            "notes": proposal.notes,
        }
    )
    output.line(proposal.as_yaml().rstrip())
    return DONE if proposal.datasets else FAILED


def discover(arguments: Namespace, output: Output) -> int:
    found = services.discover(find_source(arguments.source), actor=None)
    present = [dataset for dataset in found.datasets if dataset.missing_since is None]
    output.result(
        {
            "source": arguments.source,
            "datasets": [
                {
                    "name": dataset.name,
                    "format": dataset.format,
                    "key": dataset.key,
                    "rows": dataset.row_count,
                    "fields": [
                        {"name": field.name, "type": field.type, "nullable": field.nullable}
                        for field in dataset.fields.filter(missing_since=None)
                    ],
                }
                for dataset in present
            ],
            "drift": [
                {
                    "kind": drift.kind,
                    "dataset": drift.dataset_name,
                    "field": drift.field_name,
                    "before": drift.before,
                    "after": drift.after,
                    "breaking": drift.breaking,
                }
                for drift in found.drifts
            ],
        }
    )
    width = max((len(dataset.name) for dataset in present), default=0)
    for dataset in present:
        rows = "? rows" if dataset.row_count is None else f"{dataset.row_count:,} rows"
        key = ", ".join(dataset.key) or "no key"
        output.line(f"{dataset.name:<{width}}  {rows:>14}  {dataset.fields.count()} fields  {key}")
    for drift in found.drifts:
        output.line(f"changed: {drift}{' (breaking)' if drift.breaking else ''}")
    return DONE
