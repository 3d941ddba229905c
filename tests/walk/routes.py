"""All addresses there are, taken from the resolver, and how each is asked."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any
from uuid import uuid4

from django.contrib import admin
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.contenttypes.models import ContentType
from django.urls import get_resolver

from apps.accounts.models import Grant, Token, User
from apps.api.views.hub import HubDatasets
from apps.audit.models import AuditEvent, SavedFilter
from apps.ledger.models import Change, Conflict, Rejection
from apps.mappings.models import Mapping
from apps.rules.models import Rule, SyncDraft
from apps.runs.models import Run
from apps.sources.models import Dataset, Source
from tests.walk.world import KEY, Realm, World

CAPTURED = re.compile(r"<(?:\w+:)?(\w+)>")
UNNAMED = re.compile(r"\(\[\^/\]\+\)")


@dataclass(frozen=True)
class Route:
    """A pattern of the resolver. name: as `reverse` has it; variant: one of several ways to ask."""

    name: str
    pattern: str
    variant: str = ""
    operations: tuple[str, ...] = ()  # of the API: the methods that are there

    @property
    def label(self) -> str:
        short = self.name if not self.name.endswith(":") else f"{self.name}{self.pattern}"
        short = short or self.pattern or "/"
        return f"{short}[{self.variant}]" if self.variant else short

    @property
    def names_an_object(self) -> bool:
        """Whether the address, or what is sent along, names an object of a realm."""
        return bool(CAPTURED.search(self.pattern) or UNNAMED.search(self.pattern)) or (
            self.name in _BODIES or self.name in _API_BODIES or self.name == "api:records-retrieve"
        )

    @property
    def model(self) -> type | None:
        """The model whose page it is."""
        for model in admin.site._registry:
            if f"/{model._meta.app_label}/{model._meta.model_name}/" in f"/{self.pattern}":
                return model
        return None


def every_route() -> list[Route]:
    """Each pattern once, those of several actions or fields as one each."""
    seen: dict[tuple[str, str], Route] = {}
    for route in _walked(get_resolver().url_patterns, "", ""):
        seen.setdefault((route.name, route.pattern), route)
    return [variant for route in seen.values() for variant in _variants(route)]


def _walked(patterns: Any, prefix: str, namespace: str) -> Iterator[Route]:
    for entry in patterns:
        pattern = prefix + str(entry.pattern)
        if hasattr(entry, "url_patterns"):
            inner = f"{entry.namespace}:" if entry.namespace else ""
            yield from _walked(entry.url_patterns, pattern, namespace + inner)
        else:
            actions = getattr(entry.callback, "actions", None) or {}
            operations = tuple(method.upper() for method in actions if method != "head")
            yield Route(namespace + (entry.name or ""), pattern, operations=operations)


def _variants(route: Route) -> list[Route]:
    if route.pattern.endswith("/do/<slug:name>/"):
        actions = admin.site._registry[route.model].object_actions
        return [replace(route, variant=action.name) for action in actions]
    if route.name == "admin:autocomplete":
        return [
            replace(route, variant=f"{a.opts.app_label}.{a.opts.model_name}.{name}")
            for a in admin.site._registry.values()
            for name in a.autocomplete_fields
        ]
    if route.name == "admin:app_list":
        labels = sorted({model._meta.app_label for model in admin.site._registry})
        return [replace(route, variant=label) for label in labels]
    if route.name.endswith("_changelist"):
        names = [*(admin.site._registry[route.model].actions or ()), "delete_selected"]
        return [route, *(replace(route, variant=f"action {name}") for name in names)]
    return [route]


def path_of(route: Route, world: World, realm: Realm) -> str:
    """The address, with the ids of the realm in it."""
    path = route.pattern
    if route.name == "admin:app_list":
        path = re.sub(r"\^\(\?P.*$", f"{route.variant}/", path)
    path = path.replace("(?P<url>.*)$", "no/such/page")
    for name in CAPTURED.findall(path):
        value = str(_argument(name, route, world, realm))
        path = re.sub(rf"<(?:\w+:)?{name}>", lambda _: value, path, count=1)  # noqa: B023
    if UNNAMED.search(path):
        row = world.row(route.model, realm)
        for value in (row.pk, row.history.first().pk):
            path = UNNAMED.sub(str(value), path, count=1)
    path = "/" + path.replace("^", "").replace("$", "")
    return f"{path}?choice=left" if route.name == "admin:ledger_conflict_bulk" else path


def _argument(name: str, route: Route, world: World, realm: Realm) -> Any:
    if route.operations:
        return world.row(_RESOURCES[route.name.partition(":")[2].partition("-")[0]], realm).pk
    fixed = {
        "code": lambda: "run.refused",
        "rest": lambda: "no/such/page",
        "draft_id": lambda: world.shared[SyncDraft].pk,
        "filter_id": lambda: world.shared[SavedFilter].pk,
        "step": lambda: "sources",
        "token": lambda: "no-such-token",
        "name": lambda: route.variant,
        "content_type_id": lambda: ContentType.objects.get_for_model(Rule).pk,
        "dataset_id": lambda: realm.address.dataset_id,
        "digest": lambda: realm.address.digest,
    }
    if name in fixed:
        return fixed[name]()
    return world.row(route.model or Rule, realm).pk


_RESOURCES: dict[str, type] = {
    "audit": AuditEvent,
    "changes": Change,
    "conflicts": Conflict,
    "datasets": Dataset,
    "hub": HubDatasets,
    "mappings": Mapping,
    "rejections": Rejection,
    "rules": Rule,
    "runs": Run,
    "sources": Source,
}


def sent_to_the_api(route: Route, method: str, world: World, realm: Realm) -> dict[str, Any]:
    """The query of a read, the body of all else."""
    if route.name == "api:records-retrieve":
        return {"dataset": str(realm.address.dataset_id), "key": KEY}
    made = _API_BODIES.get(route.name)
    return made(realm) if made and method == "POST" else {}


_FIELD_MAPPINGS = [{"right": "client_id", "left": "id"}, {"right": "full_name", "left": "name"}]
_API_BODIES: dict[str, Any] = {
    "api:sources-list-create": lambda r: {
        "name": "new",
        "connector": "sqlite",
        "settings": {"path": r.rows[Source].settings["path"]},
    },
    "api:mappings-list-create": lambda r: {
        "name": "new",
        "left": str(r.pair.mapping.left_id),
        "right": str(r.pair.mapping.right_id),
        "key": ["client_id"],
        "field_mappings": _FIELD_MAPPINGS,
    },
    "api:rules-list-create": lambda r: {"name": "new", "mapping": str(r.pair.mapping.pk)},
    "api:runs-list-create": lambda r: {"rule": str(r.rows[Rule].pk)},
    "api:runs-undo": lambda r: {"reason": "wrong"},
    "api:conflicts-decide": lambda r: {"record": "left", "seen": r.rows[Conflict].seen},
    "api:replicas-list-create": lambda r: {"client_id": str(uuid4())},
    "api:rejections-replay": lambda r: {"rejections": [str(r.rows[Rejection].pk)]},
}


def asked_with(route: Route, method: str, world: World, realm: Realm) -> dict[str, Any]:
    """What is sent along: enough that only the right to do it can be missing."""
    if method == "GET":
        if route.name == "admin:autocomplete":
            room, model, field = route.variant.split(".")
            return {"app_label": room, "model_name": model, "field_name": field, "term": "e"}
        return {}
    if route.variant.startswith("action "):
        row = world.row(route.model, realm)
        chosen = {ACTION_CHECKBOX_NAME: [row.pk], "select_across": "0", "index": "0"}
        return {"action": route.variant.removeprefix("action "), **chosen}
    made = _BODIES.get(route.name)
    return made(world, realm) if made else {}


def _pair(world: World, realm: Realm) -> dict[str, Any]:
    mapping = realm.pair.mapping
    return {"left_dataset": mapping.left_id, "right_dataset": mapping.right_id}


def _holder(world: World, realm: Realm) -> dict[str, Any]:
    return {"holder": f"person:{world.shared[User].pk}", "level": "1"}


def _object(world: World, realm: Realm) -> dict[str, Any]:
    return {"object": f"rule:{realm.rows[Rule].pk}", "level": "1"}


def _token(world: World, realm: Realm) -> dict[str, Any]:
    return {"token": world.shared[Token].pk, "hours": "1"}


_BODIES: dict[str, Any] = {
    "admin:sources_source_grant": _holder,
    "admin:sources_dataset_grant": _holder,
    "admin:rules_rule_grant": _holder,
    "admin:accounts_user_give": _object,
    "admin:accounts_serviceaccount_give": _object,
    "admin:accounts_serviceaccount_take": lambda w, r: {"grant": r.grants[Rule].pk},
    "admin:accounts_serviceaccount_replace_token": _token,
    "admin:accounts_serviceaccount_revoke_token": _token,
    "admin:auth_group_give": _object,
    **{
        f"admin:{name}_ungrant": lambda w, r, m=model: {"grant": r.grants[m].pk}
        for name, model in (
            ("sources_source", Source),
            ("sources_dataset", Dataset),
            ("rules_rule", Rule),
        )
    },
    "admin:accounts_user_take": lambda w, r: {"grant": r.grants[Rule].pk},
    "admin:auth_group_take": lambda w, r: {"grant": w.shared[Grant].pk},
    "admin:audit_auditevent_export": lambda w, r: {"format": "csv"},
    "admin:runs_restorerequest_decide": lambda w, r: {"approve": "1"},
    "admin:runs_run_decide": lambda w, r: {"approve": "1"},
    "admin:ledger_rejection_decide": lambda w, r: {"dismiss": "1"},
    "admin:ledger_conflict_decide": lambda w, r: {
        "side": "left",
        "seen": r.rows[Conflict].seen,
    },
    "admin:ledger_conflict_bulk": lambda w, r: {
        "seen": json.dumps({str(r.rows[Conflict].pk): r.rows[Conflict].seen}),
    },
    "admin:sources_source_test": lambda w, r: {"source_id": r.rows[Source].pk},
    "admin:mappings_mapping_preview": _pair,
    "admin:mappings_mapping_matches": _pair,
    "admin:mappings_mapping_suggest": _pair,
    "admin:mappings_mapping_create_target": lambda w, r: {
        "left": r.rows[Dataset].pk,
        "source": r.rows[Source].pk,
        "name": "customers",  # is there already, so that nothing is made
    },
    "admin:ledger_change_live": lambda w, r: {"where": f"{r.rows[Dataset].pk}:name", "value": "x"},
    "admin:ledger_change_sync": lambda w, r: {"rule": r.rows[Rule].pk, "left_key": KEY},
    "admin:runs_run_undo": lambda w, r: {"run": r.rows[Run].pk, "reason": "wrong"},
}


def bulk_offered(answer: Any) -> bool:
    """Whether an action over chosen rows asked whether to go on: else it was not offered."""
    names = {template.name for template in answer.templates if template.name}
    if "lockstep/confirm_bulk.html" in names:
        return True
    confirms = "admin/delete_selected_confirmation.html" in names
    return confirms and bool(answer.context["queryset"])
