"""`audit verify` and `audit seal`."""

from __future__ import annotations

from argparse import Namespace

from apps.audit import services
from apps.audit.services import Report
from apps.console.command_line.output import DONE, FAILED, Output

SHOWN = 20


def verify(arguments: Namespace, output: Output) -> int:
    report = services.verify(actor=None, checkpoints=arguments.checkpoints)
    findings = report.in_order()
    output.result(
        {
            "sound": report.is_sound,
            "events": report.events,
            "seals": report.seals,
            "waiting": report.waiting,
            "checkpoints": report.checkpoints,
            "counts": dict(report.counts),
            "first": findings[0].as_json() if findings else None,
            "findings": [finding.as_json() for finding in findings],
        }
    )
    output.line(
        f"{report.events:,} events and {report.seals:,} seals, compared with "
        f"{report.checkpoints:,} checkpoints; {report.waiting:,} events wait for their seal"
    )
    _print_findings(report, output)
    return DONE if report.is_sound else FAILED


def _print_findings(report: Report, output: Output) -> None:
    findings = report.in_order()
    if not findings:
        output.line("Everything is as it was written.")
        return
    output.line(f"The audit log is not as it was written. First: {findings[0].text}")
    for finding in findings[1:SHOWN]:
        output.line(f"    {finding.text}")
    more = sum(report.counts.values()) - min(len(findings), SHOWN)
    if more > 0:
        output.line(f"… and {more:,} more")


def seal(arguments: Namespace, output: Output) -> int:
    sealed = services.seal_pending()
    output.result({"sealed": sealed})
    output.line(f"{sealed:,} events were sealed.")
    return DONE
