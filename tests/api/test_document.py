"""The OpenAPI document is exact: what it promises is asked of the running API."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from django.core.signals import request_finished, request_started
from django.core.wsgi import get_wsgi_application
from django.db import close_old_connections
from django.urls import get_resolver
from hypothesis import HealthCheck, Phase
from hypothesis import settings as sampled
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance

from apps.accounts.roles import ROLES
from apps.accounts.scopes import SCOPES
from apps.api.base import etag_of
from apps.api.document import document
from apps.api.serializers.mappings import MappingConfiguration
from apps.api.serializers.rules import RuleConfiguration
from apps.api.serializers.sources import DatasetConfiguration, SourceConfiguration
from apps.audit.models import AuditEvent
from apps.engine.spec import CheckKind, CheckSpec
from apps.ledger.models import Change, Conflict, Rejection
from apps.mappings.models import Mapping
from apps.rules.models import Rule
from apps.runs.models import Run
from apps.sources.models import Dataset, Source
from tests.hub_world import Pusher, hosted
from tests.people import administrator
from tests.platforms import PLAIN_FIELDS, TwoWayPair
from tests.programs import Program, program

CONFIGURATIONS: dict[str, tuple[Any, Any]] = {
    "sources": (Source, SourceConfiguration),
    "datasets": (Dataset, DatasetConfiguration),
    "mappings": (Mapping, MappingConfiguration),
    "rules": (Rule, RuleConfiguration),
}


@pytest.fixture(scope="module")
def made() -> dict[str, Any]:
    return document()


def operations(made: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in made["paths"].items():
        for method, operation in methods.items():
            yield path, method, operation


def test_it_is_made_without_a_warning(capsys):
    document()

    assert capsys.readouterr().err == ""


def test_it_names_every_operation_there_is(made):
    found = {
        ("/" + str(pattern).replace("<uuid:id>", "{id}").replace("<str:id>", "{id}"), method)
        for pattern, actions in _routes(get_resolver().url_patterns, "")
        for method in actions
        if method != "head"
    }

    assert found == {(path, method) for path, method, _ in operations(made)}


def _routes(patterns: Any, prefix: str) -> Iterator[tuple[str, dict[str, str]]]:
    for entry in patterns:
        if hasattr(entry, "url_patterns"):
            yield from _routes(entry.url_patterns, prefix + str(entry.pattern))
        elif getattr(entry.callback, "actions", None):
            yield prefix + str(entry.pattern), entry.callback.actions


def test_each_operation_says_what_it_needs(made):
    names = {role.name for role in ROLES}
    for _, method, operation in operations(made):
        assert operation["x-scope"] in SCOPES
        assert operation["x-permission"] in SCOPES[operation["x-scope"]].permissions
        assert set(operation["x-roles"]) <= names
        assert operation["x-scope"] in operation["description"]
        assert operation["security"] == [{"token": []}, {"oauth2": [operation["x-scope"]]}]
        assert operation["summary"]
        sent = {p["name"] for p in operation.get("parameters", ()) if p["in"] == "header"}
        needs_key = method != "get" and not operation.get("x-repeatable")
        assert ("Idempotency-Key" in sent) == needs_key
        assert ("If-Match" in sent) == (method == "patch")


def test_what_is_sent_names_no_field_that_only_answers_have(made):
    schemas = made["components"]["schemas"]
    for _, _, operation in operations(made):
        content = operation.get("requestBody", {}).get("content", {})
        reference = content.get("application/json", {}).get("schema", {}).get("$ref")
        if reference:
            fields = schemas[reference.rpartition("/")[2]].get("properties", {})
            assert not [name for name, field in fields.items() if field.get("readOnly")]


# Against the running API


HUB_PLACES = ("changes", "push", "digest", "schema", "ticket")


class World:
    """Something of each kind, so that what is asked for by id is there now and then."""

    def __init__(self, folder: Path) -> None:
        check = CheckSpec(name="mail", kind=CheckKind.PATTERN, field="mail", pattern=".*[0-6]@.*")
        pair = TwoWayPair(folder, fields=PLAIN_FIELDS, checks=[check], facts={"policy": "ask"})
        for number in (1, 2, 7):
            values = (number, f"Name {number}", f"n{number}@x.org", "1.50", None)
            pair.on_left("INSERT INTO customers VALUES (?, ?, ?, ?, ?)", *values)
        pair.run()
        pair.on_left("UPDATE customers SET email = 'left6@x.org' WHERE id = 1")
        pair.on_right("UPDATE clients SET mail = 'right6@x.org' WHERE client_id = 1")
        pair.run()
        hub = hosted()
        Pusher(hub).push("a", title="Buy milk")
        self.program: Program = program(administrator())
        self.ids = {
            "sources": [pair.mapping.left.source_id, pair.mapping.right.source_id],
            "datasets": [pair.mapping.left_id, pair.mapping.right_id],
            "hub": [Dataset.objects.get(name=hub.name).pk],
            "mappings": [pair.mapping.pk],
            "rules": [pair.rule.pk],
            "runs": list(Run.objects.values_list("pk", flat=True)),
            "changes": list(Change.objects.values_list("pk", flat=True)),
            "conflicts": list(Conflict.objects.values_list("pk", flat=True)),
            "rejections": list(Rejection.objects.values_list("pk", flat=True)),
            "audit": list(AuditEvent.objects.values_list("pk", flat=True)[:5]),
        }
        self.turn = 0

    def make_real(self, case: Any) -> None:
        """Every second valid case is about something that is there."""
        self.turn += 1
        if case.meta is not None and case.meta.generation.mode is not GenerationMode.POSITIVE:
            return
        resource, _, rest = case.path.removeprefix("/api/v1/").partition("/")
        resource = "hub" if rest.partition("/")[2] in HUB_PLACES else resource
        if "id" in case.path_parameters and self.turn % 2:
            ids = self.ids[resource]
            case.path_parameters["id"] = str(ids[self.turn % len(ids)])
            if case.method == "PATCH":
                model, shown = CONFIGURATIONS[resource]
                obj = model.objects.get(pk=case.path_parameters["id"])
                case.headers["If-Match"] = etag_of(shown(obj))
        if isinstance(case.body, dict):
            for name in ("rule", "mapping", "left", "right"):
                if name in case.body and self.turn % 2:
                    kind = "datasets" if name in ("left", "right") else f"{name}s"
                    case.body[name] = str(self.ids[kind][name == "right"])


@pytest.fixture
def _one_connection() -> Iterator[None]:
    """Requests stay within the transaction of the test."""
    told = (request_started, request_finished)
    for signal in told:
        signal.disconnect(close_old_connections)
    yield
    for signal in told:
        signal.connect(close_old_connections)


@pytest.fixture
def api_schema(db: None, _one_connection: None, tmp_path: Path, settings: Any) -> Any:
    settings.LOCKSTEP = {**settings.LOCKSTEP, "API_REQUESTS": 1_000_000}
    loaded = schemathesis.openapi.from_dict(document())
    loaded.app = get_wsgi_application()
    loaded.config.phases.coverage.enabled = False  # thousands of cases: minutes
    loaded.config.generation.allow_x00 = False  # which texts have is no schema's to say
    loaded.world = World(tmp_path)
    return loaded


schema = schemathesis.pytest.from_fixture("api_schema")


def says_more(case: Any) -> bool:
    """Whether what is sent has to fit more than a schema: what is there, or a token of ours."""
    return case.method != "GET" or "since" in (case.query or {})


@schema.parametrize()
@sampled(
    max_examples=15,
    deadline=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_the_running_api_keeps_what_the_document_promises(case: Any, api_schema: Any) -> None:
    world: World = api_schema.world
    world.make_real(case)
    case.call_and_validate(
        headers={"Authorization": f"Bearer {world.program.bearer}"},
        # What a body names may not be there, or not fit what is: no schema says that.
        excluded_checks=[positive_data_acceptance] if says_more(case) else [],
    )


def test_what_is_asked_for_by_id_was_there(api_schema):
    """Else the test above would look at problems only."""
    world: World = api_schema.world

    for resource, ids in world.ids.items():
        assert ids, resource
        place = f"datasets/{ids[0]}/changes" if resource == "hub" else f"{resource}/{ids[0]}"
        assert world.program.get(place).status_code == 200
