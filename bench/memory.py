"""How much memory a group of processes takes at its peak, and how much processor time."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

INTERVAL = 0.25


class PeakMemory:
    """While it is open, watches a process group; `peak_mb` is the most that it took."""

    def __init__(self, group: int) -> None:
        self.group = group
        self.peak_mb = 0.0
        self._stop = threading.Event()
        self._watcher = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> PeakMemory:
        self._watcher.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._watcher.join()

    def _watch(self) -> None:
        while not self._stop.wait(INTERVAL):
            self.peak_mb = max(self.peak_mb, resident_mb(self.group))


def resident_mb(group: int) -> float:
    """Megabytes of all processes of a group; pages that they share are counted once (PSS)."""
    kilobytes = 0
    for process, _ in _members(group):
        try:
            rollup = (process / "smaps_rollup").read_text()
            kilobytes += int(rollup.partition("Pss:")[2].split()[0])
        except (OSError, IndexError):  # it has ended
            continue
    return kilobytes / 1_000


def cpu_seconds(group: int) -> float:
    """Processor seconds that a group's living processes and their ended children have used."""
    ticks = sum(sum(map(int, fields[11:15])) for _, fields in _members(group))
    return ticks / os.sysconf("SC_CLK_TCK")


def _members(group: int) -> Iterator[tuple[Path, list[str]]]:
    """The folders of a group's processes, and the fields of their `stat` from the state on."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            fields = (process / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[2]) == group:
            yield process, fields
