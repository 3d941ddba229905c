"""Runs, partitions, leases, scheduling: plan, review, apply, settle, verify."""
