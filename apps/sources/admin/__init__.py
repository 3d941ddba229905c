"""Pages about sources, their datasets and fields, and schema drift."""

from apps.sources.admin.dataset import DatasetAdmin, DriftAdmin, FieldAdmin
from apps.sources.admin.source import SourceAdmin

__all__ = ["DatasetAdmin", "DriftAdmin", "FieldAdmin", "SourceAdmin"]
