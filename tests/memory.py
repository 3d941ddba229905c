"""How much memory this process has taken at most."""

from __future__ import annotations

from pathlib import Path


def peak_mib() -> int:
    """The high-water mark of resident memory since this program was started.

    Not `ru_maxrss`: a child takes that over from the process that started it.
    """
    status = Path("/proc/self/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) // 1024
