"""The worker's own preparations."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
import gc
from celery.signals import worker_process_init
import config.celery
import django
django.setup()
worker_process_init.send(sender=None)
print(gc.get_freeze_count())
"""


def test_what_a_worker_has_loaded_is_never_looked_through_for_garbage() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert int(done.stdout.split()[-1]) > 100_000
