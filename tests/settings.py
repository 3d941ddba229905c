"""The settings of the tests: the test profile, on a data folder that ends with them.

Nothing of a developer's own environment reaches the tests; what is meant for them is called
LOCKSTEP_TEST_…. Worker processes of pytest and programs that a test starts inherit the folder.
"""

import atexit
import os
import shutil
import tempfile
from pathlib import Path

OF_THE_TESTS = ("LOCKSTEP_TEST_", "LOCKSTEP_FORBID_SKIPS")


def _prepare_environment() -> None:
    data_dir = os.environ.get("LOCKSTEP_TEST_DATA_DIR")
    if data_dir is None:
        data_dir = tempfile.mkdtemp(prefix="lockstep-test-")
        atexit.register(shutil.rmtree, data_dir, ignore_errors=True)
        os.environ["LOCKSTEP_TEST_DATA_DIR"] = data_dir
    for name in list(os.environ):
        foreign = name.startswith("LOCKSTEP_") and not name.startswith(OF_THE_TESTS)
        if foreign or name in ("DATABASE_URL", "REDIS_URL", "BROKER_URL"):
            del os.environ[name]
    os.environ["LOCKSTEP_PROFILE"] = "test"
    worker = os.environ.get("PYTEST_XDIST_WORKER", "main")
    os.environ["LOCKSTEP_DATA_DIR"] = str(Path(data_dir) / worker)
    os.environ["LOCKSTEP_FILES_ROOTS"] = tempfile.gettempdir()
    if os.environ.get("LOCKSTEP_TEST_DATABASE_URL"):
        os.environ["LOCKSTEP_DATABASE_URL"] = os.environ["LOCKSTEP_TEST_DATABASE_URL"]


_prepare_environment()

from config.settings import *  # noqa: E402, F403
from config.settings import DATA_DIR, DATABASES  # noqa: E402

if DATABASES["default"]["ENGINE"].endswith("sqlite3"):
    # A file, so that threads and processes meet in it; nobody misses it after a power cut.
    DATABASES["default"]["TEST"] = {"NAME": str(DATA_DIR / "test.sqlite3")}
    DATABASES["default"]["OPTIONS"]["init_command"] = (
        "PRAGMA journal_mode=WAL; PRAGMA synchronous=OFF; PRAGMA temp_store=MEMORY"
    )
WHITENOISE_USE_FINDERS = True
WHITENOISE_AUTOREFRESH = True
