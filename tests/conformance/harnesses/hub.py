"""The hub under the conformance suite, in the platform's own database."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from apps.connectors import types as neutral
from apps.connectors.base import DatasetSchema
from apps.connectors.testing import Harness
from apps.connectors.types import NeutralType
from apps.hub.connector import HubConnector, HubSettings
from apps.hub.models import HostedDataset
from apps.hub.services import change_schema

MARKS: tuple[Any, ...] = (pytest.mark.django_db,)


class HubHarness(Harness):
    def __init__(self) -> None:
        super().__init__(HubConnector(HubSettings()))

    def drop_field(self, dataset: DatasetSchema, field: str) -> None:
        hosted = HostedDataset.objects.get(name=dataset.name)
        schema = hosted.versions.order_by("-number")[0].schema
        kept = {name: said for name, said in schema["properties"].items() if name != field}
        change_schema(hosted, {**schema, "properties": kept}, may_break=True, actor=None)

    def samples(self, kind: NeutralType) -> Sequence[Any]:
        values = super().samples(kind)
        return [v for v in values if v != "null"] if kind == neutral.JSON else values


@contextmanager
def harness(folder: Path) -> Iterator[Harness]:
    yield HubHarness()
