#!/usr/bin/env python3
"""Asks an advisory source about every package of requirements/base.txt.

Exit status 0: all were asked about and nothing is known; 1: something is known; 2: not all could
be asked about. pip-audit itself calls a package that its source does not know a success.
"""

from __future__ import annotations

import json
import subprocess
import sys

SECONDS = 20
COMMAND = [sys.executable, "-m", "pip_audit", "--requirement", "requirements/base.txt"]
COMMAND += ["--require-hashes", "--disable-pip", "--progress-spinner", "off"]
COMMAND += ["--timeout", "5", "--format", "json"]


def main() -> int:
    try:
        answer = subprocess.run(COMMAND, capture_output=True, text=True, timeout=SECONDS)
        packages = json.loads(answer.stdout)["dependencies"]
    except (subprocess.TimeoutExpired, ValueError, KeyError):
        print(f"SKIPPED: no advisory source could be reached within {SECONDS} s")
        return 2
    found = [(p["name"], v["id"]) for p in packages for v in p.get("vulns", [])]
    unknown = [p["name"] for p in packages if "skip_reason" in p]
    if found:
        print("FAILED: " + ", ".join(f"{name} ({advisory})" for name, advisory in found))
        return 1
    if unknown:
        print(f"SKIPPED: the advisory source knows nothing of {len(unknown)} of {len(packages)}")
        return 2
    print(f"ok: nothing is known against {len(packages)} packages")
    return 0


if __name__ == "__main__":
    sys.exit(main())
