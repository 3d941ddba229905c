"""Mappings, field mappings, lookups; immutable versions."""
