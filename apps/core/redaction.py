"""Log lines without secrets: whatever put one there, it is blotted out by its value.

Code does not log secrets. What is logged may hold one all the same: the text of a driver's error,
the address in a warning of a library, a traceback. So the values that this process works with are
remembered when they come into its hands, and each line is searched for them, in the forms that
text takes on its way. Control characters are written out, so that no text makes up a line of its
own; a traceback keeps its lines.
"""

from __future__ import annotations

import json
import logging
import re
import threading
from collections import OrderedDict
from collections.abc import Iterable
from urllib.parse import quote, quote_plus

BLOT = "•••"
SHORTEST = 6  # what is shorter stands in too many words
MOST = 5_000
_CONTROL = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160)) if code != 9}
# Who has the link of an invitation can use it; paths are part of many lines.
_INVITATION = re.compile(r"(/invitation/)[^/\s\"']+")


class _Hidden:
    """The values to be blotted out, the ones that came last; those that are part of others last."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._values: OrderedDict[str, None] = OrderedDict()
        self._pattern: re.Pattern[str] | None = None

    def add(self, values: Iterable[str | None]) -> None:
        forms = {form for value in values if value for form in _forms(value)}
        with self._lock:
            if not forms - self._values.keys():
                return
            self._values.update(dict.fromkeys(forms))
            while len(self._values) > MOST:
                self._values.popitem(last=False)
            ordered = sorted(self._values, key=len, reverse=True)
            self._pattern = re.compile("|".join(map(re.escape, ordered)))

    def blotted(self, text: str) -> str:
        pattern = self._pattern
        return pattern.sub(BLOT, text) if pattern is not None else text


def _forms(value: str) -> Iterable[str]:
    """The value as it stands in texts, addresses, JSON and representations."""
    found = (value, quote(value, safe=""), quote_plus(value), json.dumps(value)[1:-1])
    return (form for form in (*found, repr(value)[1:-1]) if len(form) >= SHORTEST)


_hidden = _Hidden()


def hide(*values: str | None) -> None:
    """From now on these values do not stand in any line that this process logs."""
    _hidden.add(values)


def blotted(text: str) -> str:
    """The text without hidden values, and without the tokens of invitations."""
    return _INVITATION.sub(rf"\1{BLOT}", _hidden.blotted(text))


class LineFormatter(logging.Formatter):
    """One line for each record, and its traceback."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  # logging's own name
        return super().formatMessage(record).translate(_CONTROL)

    def format(self, record: logging.LogRecord) -> str:
        return blotted(super().format(record))
