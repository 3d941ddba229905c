"""Turning what readers, checks and targets refuse into the ledger's rejections."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa

from apps.connectors.base import RawRejection, WriteProblem
from apps.connectors.errors import ConfigurationError
from apps.engine.codec import encode_keys
from apps.engine.transform import RecordRejection
from apps.ledger.models import Rejection
from apps.ledger.selectors import PlannedChange
from apps.ledger.services import RejectedRecord

if TYPE_CHECKING:
    from apps.runs.models import Run
    from apps.runs.services.context import RunContext


class CheckStopped(ConfigurationError):
    """A check of severity `stop` failed."""

    code = "check.stopped"
    default_remedy = "Correct the record among this run's rejections, or lower the severity."


def check_stopped(run: Run, item: RecordRejection) -> CheckStopped:
    """The error that ends a run; the record itself is among the rejections."""
    subject = f"field '{item.field}'" if item.field else "a record"
    return CheckStopped(
        f"check '{item.check}' on {subject} stops the run", where=f"rule '{run.rule.name}'"
    )


def from_reading(item: RawRejection, context: RunContext) -> RejectedRecord:
    """What a connector could not read."""
    return RejectedRecord(
        stage=Rejection.Stage.READ,
        code=item.code,
        message=item.message,
        left_key=left_key_of(item, context),
        position=item.position,
        field=item.field,
        raw=item.raw,
    )


def left_key_of(item: RawRejection, context: RunContext) -> str:
    """The canonical left key of what could not be read; empty where it is unknown."""
    names = context.mapping.left.key
    if not item.key or any(item.key.get(name) is None for name in names) or not names:
        return ""
    types = {name: context.left.field(name).type for name in names}
    try:
        table = pa.table({n: pa.array([item.key[n]], t.arrow) for n, t in types.items()})
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return ""
    return encode_keys(table, types)[0]


def from_check(
    item: RecordRejection, stage: Rejection.Stage = Rejection.Stage.CHECK
) -> RejectedRecord:
    """What conversion, an expression, a check or the planner kept out."""
    return RejectedRecord(
        stage=stage,
        code=item.code,
        message=item.message,
        left_key=item.left_key or "",
        right_key=item.right_key or "",
        position="" if item.left_key else f"right {item.right_key or ''}".strip(),
        field=item.field,
        check=item.check,
        record=item.record or None,
    )


def from_target(change: PlannedChange, problem: WriteProblem) -> RejectedRecord:
    """What the target refused to write."""
    return RejectedRecord(
        stage=Rejection.Stage.WRITE,
        code=problem.code or "record.invalid",
        message=problem.message,
        left_key=change.left_key,
        right_key=change.right_key,
        position=f"{change.operation} {change.side} {'' if change.left_key else change.right_key}",
        field=problem.field,
    )
