"""The Celery application. Tasks are found in each room's `tasks.py`."""

import gc
import os
import threading
import time
from typing import Any

from celery import Celery
from celery.signals import worker_process_init

from apps.core.collector import spare_what_is_loaded
from config import queue_folder

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")

queue_folder.use()
app = Celery("lockstep")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()


@worker_process_init.connect
def end_with_the_worker(**kwargs: Any) -> None:
    """A pool process whose worker was killed ends too, in the middle of a task if need be.

    Left alone it would finish its task beside the new worker, and wait for ever when that hangs.
    """
    threading.Thread(target=_watch, args=(os.getppid(),), daemon=True).start()


@worker_process_init.connect
def spare_the_collector(**kwargs: Any) -> None:
    gc.collect()
    spare_what_is_loaded()


def _watch(worker: int) -> None:
    while os.getppid() == worker:
        time.sleep(1)
    os._exit(1)
