"""Which files of this machine a source may be at all.

Whoever may add a source names a path, and workers open it with their own rights. Two things bound
that: the folders that `LOCKSTEP_FILES_ROOTS` allows, and the platform's own files (its database
with everybody's sessions, its keys), which no source is ever made of. Real paths are compared, so
neither `..` nor a link leads around it. A script that uses connectors without the platform names
its paths itself, and is bound to no folder.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from apps.connectors.errors import PermissionRefused

ROOTS_VARIABLE = "LOCKSTEP_FILES_ROOTS"

_own: set[Path] = set()
_roots: frozenset[Path] | None = None  # None: all of the machine


def allow_files(roots: Iterable[Path]) -> None:
    """Say which folders sources may be in; none of them: no file is a source."""
    global _roots
    _roots = frozenset(Path(os.path.realpath(root)) for root in roots)


def keep_from_sources(*paths: Path) -> None:
    """Say which files and folders are the platform's own."""
    _own.update(Path(os.path.realpath(path)) for path in paths)


def is_own(path: Path) -> bool:
    """Whether this is one of the platform's own files, by path or by a hard link."""
    real = Path(os.path.realpath(path))
    return any(real.is_relative_to(own) or _same(real, own) for own in _own)


def _same(first: Path, second: Path) -> bool:
    try:
        return first.samefile(second)
    except OSError:
        return False


def require_reachable(path: Path, what: str) -> None:
    """Raise PermissionRefused unless a source may be at `path`. what: `file` or `folder`."""
    if is_own(path):
        raise PermissionRefused(
            f"the {what} '{path}' is Lockstep's own",
            remedy="Choose another one: Lockstep keeps its own files from every source.",
        )
    if _roots is None:
        return
    real = Path(os.path.realpath(path))
    if not any(real.is_relative_to(root) for root in _roots):
        allowed = ", ".join(sorted(str(root) for root in _roots)) or "none"
        raise PermissionRefused(
            f"the {what} '{path}' lies outside the folders that this installation allows",
            remedy=f"Move it into one of them ({allowed}), or have its folder added to "
            f"{ROOTS_VARIABLE} on every machine of Lockstep.",
        )
