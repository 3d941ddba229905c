"""Files in a folder: CSV, JSON Lines, JSON and Parquet."""

from apps.connectors.files.connector import FilesConnector
from apps.connectors.files.settings import FilesSettings

__all__ = ["FilesConnector", "FilesSettings"]
