"""Datasets that Lockstep hosts itself, and the copies of them that client apps keep."""
