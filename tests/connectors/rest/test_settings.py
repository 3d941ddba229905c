"""What admins write, and how they are told what is wrong with it."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from apps.connectors.errors import ConfigurationError
from apps.connectors.registry import parse_settings, secret_names
from apps.connectors.rest import RestSettings
from apps.connectors.rest.definition import Definition
from apps.connectors.rest.yaml_text import YamlProblem, parse_yaml

URL = "https://api.example.org/v1/"


def problem(text: str) -> str:
    with pytest.raises(YamlProblem) as caught:
        parse_yaml(text, Definition)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("datasets:\n  a:\n    path: /a\n    pagination:\n      kind: pages\n", "line 5, datasets"),
        ("datasets:\n  a:\n    path: /a\n    colour: red\n", "line 4, datasets.a.colour: there"),
        ("datasets:\n  a:\n    records: x\n", "line 2, datasets.a.path: this is missing"),
        ("datasets:\n  a: {path: /a, records: 'a['}\n", "not a JMESPath expression"),
        ("datasets:\n  a: {path: 'https://evil.example/'}\n", "below the base address"),
        ("datasets:\n  a: {path: '/a/{b}'}\n", "'{b}' in 'path' is no field of 'parent'"),
        ("datasets:\n  a: {path: /a, fields: {x: number}}\n", "'number' is not a neutral type"),
        ("datasets:\n  a: {path: /a, parent: {dataset: b, fields: {x: y}}}\n", "there is no 'b'"),
        ("datasets:\n  a: {path: /a}\n  a: {path: /b}\n", "line 3: 'a' stands twice"),
        ("datasets: [\n", "line 2"),
        ("x: &a [1]\ny: *a\n", "line 2: aliases are not allowed"),
        ("datasets:\n  a: {path: /a, key: [id], fields: {id: text}, delete: {method: DELETE, "
         "path: '/a/{no}'}}", "path of 'delete' is no field"),
    ],
)  # fmt: skip
def test_an_error_names_the_line(text: str, words: str) -> None:
    assert words in problem(text)


def test_no_error_repeats_a_value() -> None:
    assert "s3cret" not in problem("headers:\n  X: [s3cret]\n")


def test_a_definition_is_written_as_text_or_as_it_is() -> None:
    written = {"datasets": {"a": {"path": "/a"}}}
    as_text = "datasets:\r\n  a:\r\n    path: /a\r\n"
    parsed = [RestSettings(url=URL, definition=each) for each in (written, as_text)]  # type: ignore[arg-type]
    assert parsed[0].api == parsed[1].api
    again = parse_settings("rest", parsed[0].model_dump(mode="json", exclude={"secret"}))
    assert again == parsed[0]
    assert parsed[0].api.url == "https://api.example.org/v1"


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"url": ""}, "'url' is missing"),
        ({"url": "ftp://a.example"}, "begins with https"),
        ({"url": "https://me:pw@a.example"}, "without a user"),
        ({"auth": "bearer"}, "needs a secret"),
        ({"auth": "api_key_header", "secret": "x"}, "needs 'key_name'"),
        ({"auth": "oauth2_client_credentials", "secret": "x"}, "needs 'token_url'"),
        ({"preset": "nobody"}, "preset"),
    ],
)
def test_settings_that_do_not_go_together(values: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        parse_settings("rest", {"url": URL, **values})


@pytest.mark.parametrize("name", ["url", "auth", "key_name", "token_url"])
def test_the_address_of_secrets_is_not_hidden_in_the_text(name: str) -> None:
    with pytest.raises(ValidationError, match="a setting of its own"):
        RestSettings(url=URL, definition=f"{name}: https://evil.example")


def test_the_secret_is_marked_as_one() -> None:
    assert secret_names("rest") == ("secret",)
