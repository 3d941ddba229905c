"""Where a verb's words go: lines for people, or one JSON document for machines."""

from __future__ import annotations

import json
from typing import Any, ClassVar, TextIO

from apps.connectors.errors import ConfigurationError, LockstepError

DONE, FAILED, USAGE, WITH_REJECTIONS = 0, 1, 2, 3


class WrongUsage(ConfigurationError):
    """Words that no verb of the command line understands."""

    code = "command.usage"
    exit_code: ClassVar[int] = USAGE


class Output:
    """Lines on stdout and errors on stderr, or with `as_json` one document on stdout."""

    def __init__(self, stdout: TextIO, stderr: TextIO, *, as_json: bool = False) -> None:
        self.stdout = stdout
        self.stderr = stderr
        self.as_json = as_json

    @property
    def is_terminal(self) -> bool:
        return not self.as_json and self.stdout.isatty()

    def line(self, text: str = "") -> None:
        """A line for people."""
        if not self.as_json:
            self.stdout.write(f"{text}\n")
            self.stdout.flush()

    def result(self, document: Any) -> None:
        """What machines read; once per verb."""
        if self.as_json:
            self.stdout.write(json.dumps(document, ensure_ascii=False, indent=2) + "\n")

    def error(self, error: LockstepError) -> None:
        """What went wrong, where, and what to do about it."""
        problems = getattr(error, "problems", ())
        if self.as_json:
            document: dict[str, Any] = {
                "code": error.code,
                "message": error.message,
                "where": error.where,
                "remedy": error.remedy,
            }
            if len(problems) > 1:
                document["problems"] = [
                    {"where": p.place, "message": p.message, "remedy": p.remedy} for p in problems
                ]
            self.result({"error": document})
            return
        told = [(str(p), p.remedy) for p in problems] or [(str(error), error.remedy)]
        for text, remedy in told:
            self.stderr.write(f"lockstep: {text.rstrip('.')}. {remedy}\n")
