"""Rules, checks, guards, policies, schedules; immutable versions."""
