"""From YAML to a document, with the place of everything that is wrong.

YAML's own guesses are left aside: a plain scalar is its text (only `null`, `~` and nothing are
null), a key that stands twice is refused, and there are no tags and no aliases into themselves.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from apps.connectors.errors import ConfigurationError
from apps.rules.configuration.schema import Document

Path_ = tuple[str | int, ...]
_NULL = re.compile(r"^(?:~|null|Null|NULL|)$")
MAX_BYTES = 5_000_000
MAX_VALUES = 500_000  # aliases count each time: a small text must not become a large one


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong in a file, and where."""

    place: str
    message: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.place}: {self.message}"


class ConfigurationFileError(ConfigurationError):
    """A configuration file that cannot be read; `problems` names each thing that is wrong."""

    code = "configuration.file"
    default_remedy = "Correct the file at the place named; docs/reference/configuration.md helps."

    def __init__(
        self, message: str, *, where: str = "", remedy: str = "", problems: tuple[Problem, ...] = ()
    ) -> None:
        super().__init__(message, where=where, remedy=remedy)
        self.problems = problems or (Problem(where, message, self.remedy),)


@dataclass(frozen=True)
class ConfigurationFile:
    """A document, where it came from, and which line says what."""

    document: Document
    name: str = ""
    lines: Mapping[Path_, int] = field(default_factory=dict)

    def place(self, *path: str | int) -> str:
        """`file, line 7, rules.customers.schedule`, as far as it is known."""
        known = path
        while known and known not in self.lines:
            known = known[:-1]
        line = f"line {self.lines[known]}" if known in self.lines else ""
        return ", ".join(part for part in (self.name, line, path_text(path)) if part)

    @contextmanager
    def locating(self, *path: str | int) -> Iterator[None]:
        """Errors that pass say where in the file they come from."""
        try:
            yield
        except ConfigurationError as error:
            place = self.place(*path)
            if error.where.startswith(place):
                raise
            where = f"{place}: {error.where}" if error.where else place
            raise type(error)(error.message, where=where, remedy=error.remedy) from error


def path_text(path: Path_) -> str:
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def read_file(path: str | Path) -> ConfigurationFile:
    """Read a file. Raises ConfigurationFileError."""
    path = Path(path)
    try:
        data = path.read_bytes()
        text = data.decode()
    except OSError as error:
        raise ConfigurationFileError(
            f"the file cannot be read: {error.strerror}",
            where=str(path),
            remedy="Check the file's name and that it may be read.",
        ) from None
    except UnicodeDecodeError:
        raise ConfigurationFileError(
            "the file is not UTF-8", where=str(path), remedy="Save it as UTF-8."
        ) from None
    return read_text(text, name=path.name)


def read_text(text: str, name: str = "") -> ConfigurationFile:
    """Read the text of a file. Raises ConfigurationFileError that names every problem."""
    content, lines = _parse(text, name)
    try:
        document = Document.model_validate(content)
    except ValidationError as error:
        origin = ConfigurationFile(Document(), name, lines)
        problems = tuple(
            _problem(item, origin) for item in error.errors(include_input=False, include_url=False)
        )
        first = problems[0]
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise ConfigurationFileError(
            first.message + more, where=first.place, remedy=first.remedy, problems=problems
        ) from None
    return ConfigurationFile(document, name, lines)


def _problem(item: ErrorDetails, origin: ConfigurationFile) -> Problem:
    path = tuple(part for part in item["loc"] if part != "[key]")
    remedy = ConfigurationFileError.default_remedy
    message = item["msg"]
    if item["type"] == "extra_forbidden":
        message, remedy = _unknown_key(path)
    elif item["type"] == "wrong":
        remedy = item.get("ctx", {}).get("remedy") or remedy
    elif item["type"] == "missing":
        message, remedy = f"'{path[-1]}' is missing", f"Add `{path[-1]}:`."
    return Problem(origin.place(*path), message[:1].lower() + message[1:], remedy)


def _unknown_key(path: Path_) -> tuple[str, str]:
    word = str(path[-1])
    known = _keys_at(path[:-1])
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    remedy = f"Write `{close[0]}`." if close else f"Known here: {', '.join(known)}."
    return f"unknown key '{word}'", remedy


def _keys_at(path: Path_) -> list[str]:
    """The keys that the model at this place of a document knows."""
    here: Any = Document
    for part in path:
        if isinstance(here, type) and issubclass(here, BaseModel):
            info = next((i for n, i in here.model_fields.items() if part in (n, i.alias)), None)
            here = info.annotation if info else None
        else:
            here = (get_args(here) or (None,))[-1]
    if not (isinstance(here, type) and issubclass(here, BaseModel)):
        return []
    return [info.alias or name for name, info in here.model_fields.items()]


def _parse(text: str, name: str) -> tuple[Any, dict[Path_, int]]:
    if len(text) > MAX_BYTES:
        raise ConfigurationFileError(
            "the file is larger than 5 MB", where=name, remedy="Split it into several files."
        )
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ConfigurationFileError(
            f"this is not YAML: {error.problem}", where=f"{name}{line}"
        ) from None
    except yaml.YAMLError:
        raise ConfigurationFileError(
            "this is not YAML: it holds characters that YAML does not allow", where=name
        ) from None
    reader = _NodeReader(name)
    return (reader.value(root, ()) if root is not None else {}), reader.lines


class _NodeReader:
    """Plain values from YAML nodes, noting the line of each."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.lines: dict[Path_, int] = {}
        self.open: list[yaml.Node] = []
        self.count = 0

    def value(self, node: yaml.Node, path: Path_) -> Any:
        self.lines.setdefault(path, node.start_mark.line + 1)
        self.count += 1
        if any(node is other for other in self.open) or self.count > MAX_VALUES:
            raise self._refused(node, "an alias leads into itself or multiplies beyond measure")
        self.open.append(node)
        try:
            return self._content(node, path)
        finally:
            self.open.pop()

    def _content(self, node: yaml.Node, path: Path_) -> Any:
        if isinstance(node, yaml.ScalarNode):
            plain = node.style is None
            return None if plain and _NULL.match(node.value) else node.value
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item, (*path, i)) for i, item in enumerate(node.value)]
        found: dict[str, Any] = {}
        for key, item in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise self._refused(key, "a key must be a plain text")
            if key.value in found:
                raise self._refused(key, f"the key '{key.value}' stands here twice")
            self.lines[(*path, key.value)] = key.start_mark.line + 1
            found[key.value] = self.value(item, (*path, key.value))
        return found

    def _refused(self, node: yaml.Node, message: str) -> ConfigurationFileError:
        return ConfigurationFileError(
            message, where=f"{self.name}, line {node.start_mark.line + 1}"
        )
