"""Datasets proposed from an OpenAPI document."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from apps.connectors.errors import ConfigurationError
from apps.connectors.registry import parse_settings
from apps.connectors.rest import RestConnector, RestSettings
from apps.connectors.rest.openapi import Proposal, propose_from
from tests.connectors.rest.conftest import records
from tests.connectors.rest.server import Api, Asked, Reply

TEXT = (Path(__file__).parent / "shop.openapi.yaml").read_text()


@pytest.fixture(scope="module")
def proposal() -> Proposal:
    return propose_from(TEXT)


def test_address_and_sign_in_are_proposed(proposal: Proposal) -> None:
    assert proposal.settings == {
        "url": "https://shop.example.org/api/v2",
        "auth": "api_key_header",
        "key_name": "X-Shop-Key",
    }
    assert any("Set 'secret'" in note for note in proposal.notes)


def test_a_list_becomes_a_dataset_with_paging_key_types_and_writes(proposal: Proposal) -> None:
    assert proposal.datasets["shops"] == {
        "path": "/shops",
        "records": "data",
        "key": ["id"],
        "pagination": {
            "kind": "page",
            "param": "page",
            "size_param": "per_page",
            "size": 50,
            "total": "meta.total",
        },
        "fields": {
            "name": {"type": "text(80)", "required": True},
            "id": {"type": "integer", "assigned": True, "required": True},
            "tags": "array(text)",
            "opened": "date",
            "address": "json",
            "rating": {"type": "float", "read_only": True},
            "odd name": {"type": "boolean", "path": '"odd name"'},
        },
        "item": "/shops/{id}",
        "item_record": "data",
        "create": {
            "method": "POST",
            "path": "/shops",
            "record": "data",
            "idempotency_header": "Idempotency-Key",
        },
        "update": {"method": "PUT", "path": "/shops/{id}", "whole": True, "if_match": True},
        "delete": {"method": "DELETE", "path": "/shops/{id}"},
    }


def test_a_list_below_a_record_becomes_its_child(proposal: Proposal) -> None:
    orders = proposal.datasets["orders"]
    assert orders["parent"] == {"dataset": "shops", "fields": {"shopId": "id"}}
    assert orders["key"] == ["shopId", "code"]
    assert orders["item"] == "/shops/{shopId}/orders/{code}"
    assert orders["pagination"] == {"kind": "cursor", "param": "cursor", "next": "next_cursor"}
    assert orders["incremental"] == {
        "field": "updated_at",
        "param": "updated_since",
        "format": "iso",
    }
    assert orders["fields"]["note"] == "text"
    assert orders["fields"]["parent"] == "json"


def test_what_could_not_be_told_is_said(proposal: Proposal) -> None:
    assert "visits" in proposal.datasets
    assert "key" not in proposal.datasets["visits"]
    notes = " ".join(proposal.notes)
    assert "visits: no key could be told" in notes
    assert "/users/{user}/carts is left out" in notes


def test_a_proposal_is_the_settings_of_a_source(proposal: Proposal, api: Api) -> None:
    values = yaml.safe_load(proposal.as_yaml())
    assert parse_settings("rest", {**values, "secret": "k"})

    def answer(asked: Asked) -> Reply:
        assert asked.headers["x-shop-key"] == "k"
        if asked.path == "/shops":
            rows = [{"id": 1, "name": "one"}] if asked.params["page"] == "1" else []
            return Reply(body={"data": rows, "meta": {"total": 1}})
        code = "6ba7b810-9dad-11d1-80b4-00c04fd430c8"
        return Reply(body={"orders": [{"code": code}], "next_cursor": None})

    api.handle = answer
    connector = RestConnector(RestSettings(**{**values, "url": api.url, "secret": "k"}))
    assert [(row["shopId"], row["code"][:8]) for row in records(connector, "orders")] == [
        (1, "6ba7b810")
    ]


def test_json_says_the_same_as_yaml(proposal: Proposal) -> None:
    assert propose_from(json.dumps(yaml.safe_load(TEXT))) == proposal


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("swagger: '2.0'", "no OpenAPI 3"),
        ("[1, 2]", "no OpenAPI 3"),
        ("{", "neither"),
        ("a: [", "neither"),
    ],
)
def test_what_is_no_such_document_is_refused(text: str, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        propose_from(text)


@pytest.mark.parametrize(
    "odd",
    [
        {"paths": []},
        {"paths": {"/a": {"get": {"responses": {"200": {"$ref": "other.yaml#/x"}}}}}},
        {"paths": {"/a": {"$ref": "#/paths/~1a"}}},
        {"servers": [], "components": {"securitySchemes": {"a": "b"}}},
    ],
)
def test_odd_documents_propose_nothing(odd: dict[str, Any]) -> None:
    found = propose_from(json.dumps({"openapi": "3.1.0", **odd}))
    assert found.datasets == {}
    assert "No path answers with a list of objects." in found.notes
