"""The record of who did what: an append-only stream of events, and the seals that guard it."""
