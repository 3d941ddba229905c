"""`encryption rotate`, `rewrap`, `audit`, `erase` and `replay-erasures`."""

from __future__ import annotations

import time
from argparse import Namespace
from dataclasses import asdict

from apps.console.command_line.naming import find_dataset
from apps.console.command_line.output import DONE, FAILED, WITH_REJECTIONS, Output
from apps.core.clock import now
from apps.encryption import services
from apps.encryption.models import Rotation
from apps.encryption.selectors import progress_of
from apps.encryption.services import Proven
from apps.ledger.selectors import copies_beyond_subjects

STEP_SECONDS = 2.0
POLL_SECONDS = 0.5


def rotate(arguments: Namespace, output: Output) -> int:
    """Begin a rotation, or go on with the one that was begun."""
    rotation = services.start_rotation(actor=None)
    output.line(f"Everything is encrypted anew with the key {rotation.key.name}.")
    if not arguments.no_wait:
        rotation = _follow(rotation, output)
    progress = progress_of(rotation)
    output.result(
        {
            "key": rotation.key.name,
            "state": rotation.state,
            "passes": rotation.passes,
            "rewritten": progress.rewritten,
            "unreadable": progress.unreadable,
        }
    )
    if rotation.is_running:
        output.line("Workers do it; the page “Encryption” shows how far they are.")
        return DONE
    output.line(f"Done: {progress.rewritten:,} values in {rotation.passes} passes.")
    if not progress.unreadable:
        return DONE
    output.line(
        f"{progress.unreadable:,} values cannot be read and stay as they are: "
        "`lockstep encryption audit` says which."
    )
    return WITH_REJECTIONS


def _follow(rotation: Rotation, output: Output) -> Rotation:
    """Do the work here, or watch the worker who does it, until it is done."""
    told = ""
    while rotation.is_running:
        rotation = services.continue_rotation(rotation.pk, STEP_SECONDS)
        text = _phase(rotation)
        if text != told and rotation.is_running:
            told = text
            output.line(text)
        if rotation.is_running:
            time.sleep(POLL_SECONDS)
    return rotation


def _phase(rotation: Rotation) -> str:
    progress = progress_of(rotation)
    if rotation.columns.filter(walked=False).exists() or now() >= rotation.known_at:
        return f"{progress.rewritten:,} of about {progress.total:,} values counted so far"
    return "waiting until all processes know the new key"


def rewrap(arguments: Namespace, output: Output) -> int:
    keys = services.rewrap(actor=None)
    output.result({"keys": [{"key": key.name, "wrapped_by": key.wrapped_by} for key in keys]})
    for key in keys:
        output.line(f"{key.name}  {key.purpose:<7} {key.state:<8} {key.wrapped_by}")
    output.line(f"{len(keys)} data keys are wrapped with the key-encryption key in use now.")
    return DONE


def audit(arguments: Namespace, output: Output) -> int:
    proven = services.prove(actor=None)
    output.result(proven.as_json())
    _print(proven, output)
    return DONE if proven.is_sound else FAILED


def _print(proven: Proven, output: Output) -> None:
    width = max(len(column.column) for column in proven.columns)
    for column in proven.columns:
        keys = ", ".join(f"{n:,} under {name}" for name, n in column.keys.most_common())
        output.line(f"{column.column:<{width}}  {keys or 'nothing'}")
        if column.erased:
            output.line(f"{'':<{width}}  {column.erased:,} erased with their person's key")
        for count, what in ((column.plain, "plain"), (column.unreadable, "unreadable")):
            if count:
                places = ", ".join(column.examples)
                output.line(f"{'':<{width}}  {count:,} {what.upper()}: {places}")
    for file in proven.files:
        word = "encrypted" if file.is_encrypted else "PLAIN"
        output.line(f"{'spilled ' + file.path:<{width}}  {file.size:,} bytes, {word}")
    if proven.traces:
        output.line(
            f"{proven.traces:,} hashes are about persons who have been erased: "
            "`lockstep encryption replay-erasures` removes them."
        )
    if proven.is_sound:
        output.line("Everything stored is encrypted and can be read.")
    else:
        output.line(f"{proven.plain:,} plain, {proven.unreadable:,} unreadable.")


def erase(arguments: Namespace, output: Output) -> int:
    dataset = find_dataset(arguments.dataset)
    erased = services.erase_subject(
        dataset.pk, arguments.subject, actor=None, reason=arguments.reason
    )
    left = copies_beyond_subjects(dataset.pk)
    output.result({"keys": erased.keys, "traces": erased.traces, **asdict(left)})
    output.line(f"{erased.keys} keys were destroyed; what was under them cannot be read any more.")
    output.line(f"{erased.traces:,} hashes of words of former values were removed.")
    if left.segments or left.changes:
        output.line(
            f"Not under such a key are {left.segments:,} segments and {left.changes:,} changes of "
            "rules over this dataset: they may hold values of the person until their time is over."
        )
    if left.words:
        output.line(
            f"Of {left.words:,} hashes of words of former values of these rules this dataset does "
            "not say whom they are about: erase the person in the dataset that does, too."
        )
    return DONE


def replay_erasures(arguments: Namespace, output: Output) -> int:
    replayed = services.replay_erasures()
    output.result(
        {
            "entries": replayed.entries,
            "erased": replayed.erased,
            "traces": replayed.traces,
            "strange": replayed.strange,
        }
    )
    output.line(
        f"{replayed.entries:,} erasures on the register; {replayed.erased:,} keys cleared, "
        f"{replayed.traces:,} hashes of words removed."
    )
    if not replayed.strange:
        return DONE
    lines = ", ".join(str(line) for line in replayed.strange[:20])
    output.line(f"Lines that Lockstep did not write, or that cannot be read: {lines}")
    return FAILED
