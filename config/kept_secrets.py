"""Secrets that the embedded profile makes for itself at first use, in the data folder."""

from __future__ import annotations

import base64
import os
import secrets
from collections.abc import Callable
from pathlib import Path


def new_secret() -> str:
    return secrets.token_urlsafe(64)


def new_key_line() -> str:
    return f"k1:{base64.b64encode(secrets.token_bytes(32)).decode()}\n"


def kept_secret(path: Path, make: Callable[[], str]) -> str:
    """The secret in `path`; made there, readable by its owner alone, when there is none."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        draft = path.with_name(f".{path.name}.{os.getpid()}")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as stream:
            stream.write(make())
        try:
            os.link(draft, path)  # the first process wins; all read the same secret
        except FileExistsError:
            pass
        finally:
            draft.unlink()
    return path.read_text(encoding="ascii")
