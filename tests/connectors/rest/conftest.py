from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from apps.connectors.base import DatasetSchema, ReadRequest
from apps.connectors.rest import RestConnector, RestSettings, client
from apps.connectors.testing import read_all
from tests.connectors.rest.example import Example, configured
from tests.connectors.rest.server import Api, serving

Connect = Callable[..., RestConnector]


@pytest.fixture(scope="module")
def _served() -> Iterator[Api]:
    with serving() as api:
        yield api


@pytest.fixture
def api(_served: Api) -> Api:
    """The server, as if it was new."""
    url = _served.url
    _served.__init__()  # type: ignore[misc]
    _served.url = url
    return _served


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """For how long the client wanted to wait; it does not."""
    waited: list[float] = []
    monkeypatch.setattr(client, "sleep", waited.append)
    return waited


@pytest.fixture
def connect(api: Api, waits: list[float]) -> Connect:
    """A connector of the server with these datasets, and settings by name."""

    def build(datasets: dict[str, Any], *, api_wide: Any = None, **settings: Any) -> RestConnector:
        text = yaml.safe_dump({**(api_wide or {}), "datasets": datasets}, sort_keys=False)
        return RestConnector(RestSettings(**{"url": api.url, "definition": text, **settings}))

    return build


@pytest.fixture
def example(
    db: None, api: Api, waits: list[float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Example:
    """The example of the documentation, with some customers on both sides."""
    return configured(api, tmp_path, monkeypatch)


def records(connector: RestConnector, name: str, **request: Any) -> list[dict[str, Any]]:
    """Everything that is read of a dataset."""
    dataset: DatasetSchema = connector.describe(name)
    read = read_all(connector, ReadRequest(dataset, dataset.field_names, **request))
    found: list[dict[str, Any]] = read.to_pylist()
    return found
