"""Pages about mappings and lookup tables."""

from apps.mappings.admin.lookup import LookupTableAdmin
from apps.mappings.admin.mapping import MappingAdmin

__all__ = ["LookupTableAdmin", "MappingAdmin"]
