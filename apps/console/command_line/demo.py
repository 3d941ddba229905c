"""`demo load`, `run`, `touch` and `remove`."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import asdict
from typing import ClassVar

from apps.connectors.errors import ConfigurationError
from apps.console import services
from apps.console.command_line.output import DONE, Output


class NoDemo(ConfigurationError):
    """The demo is not loaded."""

    code = "command.no_demo"
    default_remedy = "Load it first: lockstep demo load."
    exit_code: ClassVar[int] = 1


def load(arguments: Namespace, output: Output) -> int:
    services.load_demo()
    output.result({"loaded": True})
    output.line(f"The demo is there; its platforms are in {services.demo_folder()}")
    return DONE


def run(arguments: Namespace, output: Output) -> int:
    _require_demo()
    services.run_demo_once()
    output.result({"ran": True})
    output.line("The demo's rules have run, and a dry run is queued.")
    return DONE


def touch(arguments: Namespace, output: Output) -> int:
    _require_demo()
    touched = services.touch_demo()
    output.result(asdict(touched))
    output.line(
        f"In the demo's CRM {touched.edited} customers were edited, {touched.added} added, "
        f"{touched.deleted} deleted. The rule 'Demo customers' finds them within five minutes."
    )
    return DONE


def remove(arguments: Namespace, output: Output) -> int:
    services.remove_demo()
    output.result({"loaded": False})
    output.line("The demo is removed.")
    return DONE


def _require_demo() -> None:
    if not services.demo_is_loaded():
        raise NoDemo("the demo is not loaded")
