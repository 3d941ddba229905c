"""Addresses of the API. Each is named with its resource, and says which methods it has."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.urls import URLPattern, path, re_path

from apps.api.document import Document, InteractiveDocument
from apps.api.explaining import problem
from apps.api.problems import not_there
from apps.api.views.audit import Audit
from apps.api.views.hub import HubDatasets, Replicas
from apps.api.views.hub_stream import stream
from apps.api.views.mappings import Mappings
from apps.api.views.metrics import Metrics
from apps.api.views.records import Conflicts, Records, Rejections
from apps.api.views.rules import Rules
from apps.api.views.runs import Changes, Runs
from apps.api.views.sources import Datasets, Sources

app_name = "api"


def _at(route: str, kind: Any, **methods: str) -> URLPattern:
    name = f"{kind.resource}-{'-'.join(methods.values())}"
    return path(f"v1/{route}", kind.as_view(methods), name=name)


def _acts(route: str, kind: Any, *names: str) -> list[URLPattern]:
    """Acts on one object, each a POST to an address below its own."""
    return [_at(f"{route}/<uuid:id>/{name}", kind, post=name) for name in names]


def _configured(route: str, kind: Any) -> list[URLPattern]:
    return [
        _at(route, kind, get="list", post="create"),
        _at(f"{route}/<uuid:id>", kind, get="retrieve", patch="partial_update"),
    ]


urlpatterns = [
    *_configured("sources", Sources),
    *_acts("sources", Sources, "check", "discover", "pause", "resume"),
    _at("datasets", Datasets, get="list"),
    _at("datasets/<uuid:id>", Datasets, get="retrieve", patch="partial_update"),
    _at("datasets/<uuid:id>/changes", HubDatasets, get="changes"),
    _at("datasets/<uuid:id>/push", HubDatasets, post="push"),
    _at("datasets/<uuid:id>/digest", HubDatasets, get="digest"),
    _at("datasets/<uuid:id>/schema", HubDatasets, get="describe"),
    _at("datasets/<uuid:id>/ticket", HubDatasets, post="ticket"),
    path("v1/datasets/<uuid:id>/stream", stream, name="hub-stream"),
    _at("replicas", Replicas, get="list", post="create"),
    *_configured("mappings", Mappings),
    *_configured("rules", Rules),
    *_acts("rules", Rules, "enable", "disable", "pause", "resume"),
    _at("runs", Runs, get="list", post="create"),
    _at("runs/<uuid:id>", Runs, get="retrieve"),
    _at("runs/<uuid:id>/log", Runs, get="log"),
    _at("runs/<uuid:id>/changes", Runs, get="changes"),
    *_acts("runs", Runs, "approve", "reject", "cancel", "undo"),
    _at("changes/<str:id>", Changes, get="retrieve"),
    _at("records", Records, get="retrieve"),
    _at("conflicts", Conflicts, get="list"),
    _at("conflicts/<uuid:id>", Conflicts, get="retrieve"),
    *_acts("conflicts", Conflicts, "decide"),
    _at("rejections", Rejections, get="list"),
    _at("rejections/replay", Rejections, post="replay"),
    _at("rejections/<uuid:id>", Rejections, get="retrieve"),
    *_acts("rejections", Rejections, "dismiss"),
    _at("audit", Audit, get="list"),
    _at("audit/<uuid:id>", Audit, get="retrieve"),
    _at("metrics", Metrics, get="list"),
    path("v1/problems/<str:code>", problem, name="problem"),
    path("v1/openapi.json", admin.site.admin_view(Document.as_view()), name="openapi"),
    path("v1/docs", admin.site.admin_view(InteractiveDocument.as_view()), name="docs"),
    re_path(r"", not_there, name="nowhere"),  # whatever follows
]
