"""Answers that a process keeps by their ETag, so that what has not changed is not sent again.

Only of datasets that say so, in memory only, and at most 16 MiB in all.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Mapping
from typing import TYPE_CHECKING
from urllib.parse import urlencode

if TYPE_CHECKING:
    from apps.connectors.rest.answers import Answer
    from apps.connectors.rest.settings import RestSettings

_MOST_BYTES = 16 << 20
_answers: OrderedDict[str, Answer] = OrderedDict()
_lock = threading.Lock()


def name_of(settings: RestSettings, path: str, params: Mapping[str, str]) -> str:
    """What tells a request from all others: who asks is a part of it."""
    api = settings.api
    who = (api.url, api.auth, settings.user, settings.secret_text, sorted(api.headers.items()))
    asked = f"{who!r} {path}?{urlencode(sorted(params.items()))}"
    return hashlib.sha256(asked.encode()).hexdigest()


def kept(name: str) -> Answer | None:
    """The answer that was kept."""
    with _lock:
        return _answers.get(name)


def keep(name: str, answer: Answer) -> None:
    """Keep an answer; the oldest ones make room."""
    with _lock:
        _answers[name] = answer
        _answers.move_to_end(name)
        size = sum(len(each.data) for each in _answers.values())
        while size > _MOST_BYTES:
            size -= len(_answers.popitem(last=False)[1].data)
