"""YAML that people write, checked against a model, with errors that name the line."""

from __future__ import annotations

from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError
from yaml.constructor import SafeConstructor

MOST_CHARACTERS = 500_000
_MOST_ERRORS = 5
_MESSAGES = {"extra_forbidden": "there is no such name here", "missing": "this is missing"}
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_SCALARS = SafeConstructor()

M = TypeVar("M", bound=BaseModel)


class YamlProblem(ValueError):
    """The text is no YAML, or does not fit; the message names the line."""


def parse_yaml(text: str, model: type[M]) -> M:
    """The text as such a model. Raises YamlProblem, which never repeats a value."""
    node = _compose(text)
    value = {} if node is None else _plain(node)
    try:
        return model.model_validate(value)
    except ValidationError as error:
        problems = [
            f"line {_line(node, item['loc'])}, {'.'.join(map(str, item['loc'])) or 'the whole'}: "
            f"{_MESSAGES.get(item['type']) or item['msg'].removeprefix('Value error, ')}"
            for item in error.errors(include_input=False, include_url=False)
        ]
        shown = "; ".join(problems[:_MOST_ERRORS])
        more = len(problems) - _MOST_ERRORS
        raise YamlProblem(f"{shown}; and {more} more" if more > 0 else shown) from None


def _compose(text: str) -> yaml.Node | None:
    if len(text) > MOST_CHARACTERS:
        raise YamlProblem(f"more than {MOST_CHARACTERS:,} characters")
    try:
        for event in yaml.parse(text, _LOADER):
            if isinstance(event, yaml.AliasEvent):
                line = event.start_mark.line + 1 if event.start_mark else 1
                raise YamlProblem(f"line {line}: aliases are not allowed")
        node: yaml.Node | None = yaml.compose(text, _LOADER)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise YamlProblem(f"line {line}: {error.problem or 'not YAML'}") from None
    except (yaml.YAMLError, RecursionError):
        raise YamlProblem("the text is not YAML") from None
    return node


def _plain(node: yaml.Node) -> Any:
    if isinstance(node, yaml.MappingNode):
        found: dict[Any, Any] = {}
        for key, value in node.value:
            name = _plain(key) if isinstance(key, yaml.ScalarNode) else None
            if not isinstance(name, str):
                name = key.value if isinstance(key, yaml.ScalarNode) else ""
            if not name or name in found:
                reason = f"'{name[:80]}' stands twice" if name else "a name is a plain text"
                raise YamlProblem(f"line {key.start_mark.line + 1}: {reason}")
            found[name] = _plain(value)
        return found
    if isinstance(node, yaml.SequenceNode):
        return [_plain(item) for item in node.value]
    try:
        return _SCALARS.construct_object(node)
    except (yaml.YAMLError, ValueError):
        raise YamlProblem(f"line {node.start_mark.line + 1}: the value cannot be read") from None


def _line(node: yaml.Node | None, place: tuple[int | str, ...]) -> int:
    """The line of what an error's place leads to, as far as the text has it."""
    if node is None:
        return 1
    line = node.start_mark.line + 1
    for part in place:
        if isinstance(node, yaml.MappingNode):
            found = [(k, v) for k, v in node.value if k.value == str(part)]
            if not found:
                continue
            line, node = found[0][0].start_mark.line + 1, found[0][1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int):
            node = node.value[part]
            line = node.start_mark.line + 1
    return line
