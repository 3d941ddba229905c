"""Definitions of well-known APIs that come with Lockstep, one YAML file each."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from apps.connectors.rest.definition import Definition
from apps.connectors.rest.yaml_text import parse_yaml

_FOLDER = Path(__file__).parent


@cache
def preset_names() -> tuple[str, ...]:
    """Their names, sorted."""
    return tuple(sorted(path.stem for path in _FOLDER.glob("*.yaml")))


@cache
def preset(name: str) -> Definition:
    """The definition of that name. Raises ValueError, listing the names there are."""
    if name not in preset_names():
        raise ValueError(f"there is none of that name; there are {', '.join(preset_names())}")
    return parse_yaml((_FOLDER / f"{name}.yaml").read_text(), Definition)
