"""The hub as a source like all others, so that rules keep its datasets in step with tables.

It works on the platform's own database, through Django: what a batch writes and what the run notes
of it are committed together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import ClassVar

from apps.connectors.base import (
    Capabilities,
    CheckStep,
    Connector,
    ConnectorSettings,
    DatasetSchema,
    ReadBatch,
    ReadRequest,
    WriteSession,
)
from apps.connectors.errors import ConfigurationError
from apps.connectors.sql import run_steps
from apps.hub.connector.reading import hosted_named, read_batches
from apps.hub.connector.writing import HubWriteSession
from apps.hub.models import HostedDataset, HostedRecord
from apps.hub.schemas import schema_of
from apps.hub.selectors import shape_of_hosted
from apps.hub.services.datasets import NewDataset, make_hosted


class HubSettings(ConnectorSettings):
    """None: the hub is where Lockstep itself is."""


class HubConnector(Connector[HubSettings]):
    name: ClassVar[str] = "hub"
    label: ClassVar[str] = "Hub (hosted by Lockstep)"
    settings_model: ClassVar[type[ConnectorSettings]] = HubSettings
    capabilities: Capabilities = Capabilities(
        write=True,
        key_lookup=True,
        transactions=True,
        returns_stored=True,
        delete=True,
        create_dataset=True,
        batch_rows=5_000,
    )

    def check(self) -> Iterator[CheckStep]:
        return run_steps([("read", self._check_read)])

    def _check_read(self) -> str:
        return f"The hub holds {HostedDataset.objects.count()} datasets."

    def discover(self) -> list[DatasetSchema]:
        names = sorted(HostedDataset.objects.values_list("name", flat=True))
        return [self.describe(name) for name in names]

    def describe(self, dataset: str) -> DatasetSchema:
        hosted = hosted_named(dataset)
        return shape_of_hosted(hosted).described(dataset, _count(hosted))

    def count(self, dataset: DatasetSchema) -> int:
        return _count(hosted_named(dataset.name))

    def read(self, request: ReadRequest) -> Iterator[ReadBatch]:
        hosted = hosted_named(request.dataset.name)
        yield from read_batches(hosted, request, shape_of_hosted(hosted).described(hosted.name))

    def write_session(
        self, dataset: DatasetSchema, *, lock: str, lease_seconds: Callable[[], float]
    ) -> AbstractContextManager[WriteSession]:
        return HubWriteSession(dataset.name, lock)

    def create_dataset(self, schema: DatasetSchema) -> None:
        if len(set(schema.field_names)) != len(schema.fields):
            raise ConfigurationError("a dataset needs fields of different names")
        make_hosted(NewDataset(schema.name, schema_of(schema), schema.key), actor=None)


def _count(hosted: HostedDataset) -> int:
    return HostedRecord.objects.filter(hosted=hosted, is_deleted=False).count()
