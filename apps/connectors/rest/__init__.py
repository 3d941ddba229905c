"""REST APIs: declared datasets, read page by page and written record by record."""

from apps.connectors.rest.connector import RestConnector
from apps.connectors.rest.settings import RestSettings

__all__ = ["RestConnector", "RestSettings"]
