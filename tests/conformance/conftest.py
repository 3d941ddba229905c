"""Every connector that has a module in `harnesses` runs the whole suite."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

import pytest

from apps.connectors.testing import Harness
from tests.conformance import harnesses

_NAMES = sorted(module.name for module in iter_modules(harnesses.__path__))


def _parameter(name: str) -> object:
    module = import_module(f"{harnesses.__name__}.{name}")
    return pytest.param(name, marks=module.MARKS)


@pytest.fixture(scope="module", params=[_parameter(name) for name in _NAMES])
def harness(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Harness]:
    folder: Path = tmp_path_factory.mktemp(request.param)
    module = import_module(f"{harnesses.__name__}.{request.param}")
    with module.harness(folder) as found:
        yield found
