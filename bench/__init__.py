"""Measurements: how fast Lockstep moves records, and that it survives being killed."""
