"""Sources and their datasets."""

from __future__ import annotations

from typing import Any, cast
from uuid import UUID

from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from apps.accounts.models import User
from apps.api.base import Resource, etag_of, operation, require_match
from apps.api.examples import NEW_SOURCE
from apps.api.paging import newest_first, page_of
from apps.api.serializers.common import Nothing, Reason
from apps.api.serializers.sources import (
    DatasetChanges,
    DatasetConfiguration,
    NewSource,
    ShownDataset,
    ShownDatasetWhole,
    ShownDiscovery,
    ShownSource,
    SourceChanges,
    SourceConfiguration,
)
from apps.api.sparse import list_query, one_query, page_schema
from apps.sources import services
from apps.sources.models import Dataset, Source
from apps.sources.selectors import datasets, sources

CHANGE = (Source, "change")


class Sources(Resource):
    resource = "sources"

    @operation(
        "List sources",
        scope="sources:read",
        needs=(Source, "view"),
        answers=page_schema(ShownSource),
        query=list_query(
            ShownSource,
            connector=serializers.CharField(max_length=60),
            health=serializers.ChoiceField(choices=Source.Health.choices),
        ),
    )
    def list(self, request: Request, asked: dict[str, Any]) -> Response:
        """Those in your reach, the newest first."""
        exact = {name: asked[name] for name in ("connector", "health") if name in asked}
        items, following = newest_first(sources(request.user).filter(**exact), asked)
        return page_of(ShownSource, items, following, asked)

    @operation(
        "Read a source",
        scope="sources:read",
        needs=(Source, "view"),
        answers=ShownSource,
        query=one_query(ShownSource),
    )
    def retrieve(self, request: Request, id: UUID, asked: dict[str, Any]) -> Response:  # noqa: A002
        """Its ETag stands for its configuration; a change needs it as If-Match."""
        return _shown(self.found(sources(request.user), id), asked)

    @operation(
        "Add a source",
        scope="sources:write",
        needs=(Source, "add"),
        answers=ShownSource,
        status=201,
        body=NewSource,
        examples=NEW_SOURCE,
        unsafe=True,
    )
    def create(self, request: Request, sent: dict[str, Any]) -> Response:
        """Whoever adds a source reaches it. Test it, then discover its datasets."""
        values = sent.pop("settings", {})
        source = services.save_source(Source(**sent), values, actor=_actor(request))
        answer = _shown(source, {})
        answer.status_code = 201
        answer["Location"] = request.build_absolute_uri(f"{request.path}/{source.pk}")
        return answer

    @operation(
        "Change a source",
        scope="sources:write",
        needs=CHANGE,
        answers=ShownSource,
        body=SourceChanges,
        unsafe=True,
        matched=True,
    )
    def partial_update(self, request: Request, id: UUID, sent: dict[str, Any]) -> Response:  # noqa: A002
        """What is left out stays as it is."""
        rows = sources(request.user, "change").select_for_update(of=("self",))
        source = self.found(rows, id)
        require_match(request, etag_of(SourceConfiguration(source)))
        values = sent.pop("settings", source.settings)
        for name, value in sent.items():
            setattr(source, name, value)
        return _shown(services.save_source(source, values, actor=_actor(request)), {})

    @operation(
        "Test a source",
        scope="sources:write",
        needs=(Source, "check"),
        answers=ShownSource,
        body=Nothing,
        unsafe=True,
        atomic=False,
    )
    def check(self, request: Request, id: UUID, sent: dict[str, Any]) -> Response:  # noqa: A002
        """Connects to it, and answers with `health` and the steps that were tried."""
        source = self.found(sources(request.user, "check"), id)
        services.check_source(source, actor=_actor(request))
        return _shown(source, {})

    @operation(
        "Discover a source",
        scope="sources:write",
        needs=(Source, "discover"),
        answers=ShownDiscovery,
        body=Nothing,
        unsafe=True,
        atomic=False,
    )
    def discover(self, request: Request, id: UUID, sent: dict[str, Any]) -> Response:  # noqa: A002
        """Reads what the source holds, and says what has changed there since the last time."""
        source = self.found(sources(request.user, "discover"), id)
        found = services.discover(source, actor=_actor(request))
        answer = {"datasets": len(found.datasets), "drifts": found.drifts}
        return Response(ShownDiscovery(answer).data)

    @operation(
        "Pause a source",
        scope="sources:write",
        needs=(Source, "pause"),
        answers=ShownSource,
        body=Reason,
        unsafe=True,
    )
    def pause(self, request: Request, id: UUID, sent: dict[str, Any]) -> Response:  # noqa: A002
        """No run reads or writes it until it is resumed."""
        return self._paused(request, id, True, sent["reason"])

    @operation(
        "Resume a source",
        scope="sources:write",
        needs=(Source, "pause"),
        answers=ShownSource,
        body=Reason,
        unsafe=True,
    )
    def resume(self, request: Request, id: UUID, sent: dict[str, Any]) -> Response:  # noqa: A002
        """Runs read and write it again."""
        return self._paused(request, id, False, sent["reason"])

    def _paused(self, request: Request, pk: UUID, paused: bool, reason: str) -> Response:
        source = self.found(sources(request.user, "pause"), pk)
        services.set_source_paused(source, paused, reason, actor=_actor(request))
        return _shown(source, {})


class Datasets(Resource):
    resource = "datasets"

    @operation(
        "List datasets",
        scope="sources:read",
        needs=(Dataset, "view"),
        answers=page_schema(ShownDataset),
        query=list_query(
            ShownDataset, source=serializers.UUIDField(), name=serializers.CharField(max_length=255)
        ),
    )
    def list(self, request: Request, asked: dict[str, Any]) -> Response:
        """Those in your reach, the newest first."""
        exact = {name: asked[name] for name in ("source", "name") if name in asked}
        items, following = newest_first(datasets(request.user).filter(**exact), asked)
        return page_of(ShownDataset, items, following, asked)

    @operation(
        "Read a dataset",
        scope="sources:read",
        needs=(Dataset, "view"),
        answers=ShownDatasetWhole,
        query=one_query(ShownDatasetWhole),
    )
    def retrieve(self, request: Request, id: UUID, asked: dict[str, Any]) -> Response:  # noqa: A002
        """With its fields. Its ETag stands for the facts that people keep of it."""
        return _shown_dataset(self.found(datasets(request.user), id), asked)

    @operation(
        "Change the inventory facts of a dataset",
        scope="sources:write",
        needs=(Dataset, "change"),
        answers=ShownDatasetWhole,
        body=DatasetChanges,
        unsafe=True,
        matched=True,
    )
    def partial_update(self, request: Request, id: UUID, sent: dict[str, Any]) -> Response:  # noqa: A002
        """What is left out stays as it is."""
        rows = datasets(request.user, "change").select_for_update(of=("self",))
        dataset = self.found(rows, id)
        require_match(request, etag_of(DatasetConfiguration(dataset)))
        services.save_dataset_facts(dataset, sent, actor=_actor(request))
        return _shown_dataset(dataset, {})


def _actor(request: Request) -> User:
    return cast("User", request.user)


def _shown(source: Source, asked: dict[str, Any]) -> Response:
    body = ShownSource(source, context={"fields": asked.get("fields")}).data
    return Response(body, headers={"ETag": etag_of(SourceConfiguration(source))})


def _shown_dataset(dataset: Dataset, asked: dict[str, Any]) -> Response:
    body = ShownDatasetWhole(dataset, context={"fields": asked.get("fields")}).data
    return Response(body, headers={"ETag": etag_of(DatasetConfiguration(dataset))})
