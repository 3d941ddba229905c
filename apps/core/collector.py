"""The garbage collector, spared what was loaded at start-up."""

import atexit
import gc


def spare_what_is_loaded() -> None:
    """What a program has loaded stays loaded; garbage is only among what comes later.

    The collector would go through all of it again and again: while a table is read, that took two
    thirds of the time. At the end it sees everything again, so that all is closed.
    """
    gc.freeze()
    atexit.register(gc.unfreeze)
