"""The reference says what the code does: generated pages are up to date, lists are complete."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from apps.connectors.errors import LockstepError
from apps.connectors.types import Kind
from apps.console import reference
from apps.rules.configuration import read_text
from apps.rules.configuration.reading import _parse
from apps.rules.configuration.schema import Document

ROOT = Path(__file__).resolve().parent.parent.parent
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *DOCS.rglob("*.md")]


@pytest.mark.parametrize("name", reference.PAGES)
def test_generated_pages_are_up_to_date(name: str) -> None:
    written = (reference.FOLDER / name).read_text(encoding="utf-8")

    assert written == reference.PAGES[name](), "run: python manage.py write_reference"


def test_every_error_code_has_its_line() -> None:
    page = (DOCS / "reference" / "error-codes.md").read_text(encoding="utf-8")
    described = set(re.findall(r"^\| `([a-z_.]+)` \|", page, re.MULTILINE))

    assert described == class_codes() | literal_codes()


def class_codes() -> set[str]:
    """The codes of all error classes there are."""
    for path in (ROOT / "apps").rglob("*.py"):
        if "LockstepError" in path.read_text() or "ConfigurationError)" in path.read_text():
            module = path.relative_to(ROOT).with_suffix("")
            import_module(".".join(module.parts).removesuffix(".__init__"))
    return {kind.code for kind in _subclasses(LockstepError) if kind.__module__.startswith("apps.")}


def _subclasses(kind: type[LockstepError]) -> Iterator[type[LockstepError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from _subclasses(child)


def literal_codes() -> set[str]:
    """Codes of rejections and stale changes, which are plain texts in the code."""
    texts = (
        node.value
        for path in (ROOT / "apps").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    )
    return {text for text in texts if re.fullmatch(r"(record|file)\.[a-z_]+", text)}


def test_every_key_of_a_configuration_file_is_explained() -> None:
    page = (DOCS / "reference" / "configuration.md").read_text(encoding="utf-8")
    words = set(re.findall(r"[a-z_]+", page))

    assert {key for model in models(Document) for key in keys(model)} - words == set()


def keys(model: type[BaseModel]) -> set[str]:
    return {info.alias or name for name, info in model.model_fields.items()}


def models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
        for info in annotation.model_fields.values():
            yield from models(info.annotation)
    for part in get_args(annotation):
        yield from models(part)


EXAMPLES = [path for path in DOCS.rglob("*.yaml") if path.name not in reference.PAGES]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_example_files_can_be_read(path: Path) -> None:
    assert read_text(path.read_text(encoding="utf-8"), path.name).document.sources


def yaml_examples() -> list[tuple[str, str]]:
    blocks = re.compile(r"^```yaml\n(.*?)^```", re.MULTILINE | re.DOTALL)
    return [
        (f"{page.name} {number}", block)
        for page in PAGES
        for number, block in enumerate(blocks.findall(page.read_text(encoding="utf-8")))
    ]


@pytest.mark.parametrize(("name", "text"), yaml_examples())
def test_yaml_in_the_docs_is_a_configuration_file(name: str, text: str) -> None:
    assert read_text(text, name)


def test_the_json_schema_knows_the_keys_of_the_examples() -> None:
    schema = json.loads((reference.FOLDER / "configuration.schema.json").read_text())
    content, _ = _parse((DOCS / "how-to" / "chinook-postgresql.yaml").read_text(), "f")

    assert schema["additionalProperties"] is False
    assert set(content) <= set(schema["properties"])
    assert set(content["syncs"]["chinook"]) <= set(schema["$defs"]["SyncSection"]["properties"])


def test_every_neutral_type_is_in_its_page() -> None:
    page = (DOCS / "reference" / "neutral-types.md").read_text(encoding="utf-8")

    assert [kind for kind in Kind if f"`{kind}" not in page] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    local = [target for target in targets if "://" not in target and not target.endswith(".png")]

    assert [target for target in local if not (page.parent / target).exists()] == []
