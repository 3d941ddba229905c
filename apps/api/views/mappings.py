"""Mappings."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.db.models import QuerySet
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from apps.api.base import Resource, etag_of, operation, require_match
from apps.api.examples import NEW_MAPPING
from apps.api.paging import newest_first, page_of
from apps.api.serializers.mappings import (
    MappingChanges,
    MappingConfiguration,
    NewMapping,
    ShownMapping,
    field_specs,
    match_specs,
)
from apps.api.sparse import list_query, one_query, page_schema
from apps.mappings.models import Mapping
from apps.mappings.selectors import mapping_spec, mappings
from apps.mappings.services import save_mapping


class Mappings(Resource):
    resource = "mappings"

    @operation(
        "List mappings",
        scope="mappings:read",
        needs=(Mapping, "view"),
        answers=page_schema(ShownMapping),
        query=list_query(
            ShownMapping,
            left=serializers.UUIDField(),
            right=serializers.UUIDField(),
            name=serializers.CharField(max_length=150),
        ),
    )
    def list(self, request: Request, asked: dict[str, Any]) -> Response:
        """Those in your reach, the newest first."""
        exact = {name: asked[name] for name in ("left", "right", "name") if name in asked}
        items, following = newest_first(_whole(request).filter(**exact), asked)
        return page_of(ShownMapping, items, following, asked)

    @operation(
        "Read a mapping",
        scope="mappings:read",
        needs=(Mapping, "view"),
        answers=ShownMapping,
        query=one_query(ShownMapping),
    )
    def retrieve(self, request: Request, id: UUID, asked: dict[str, Any]) -> Response:  # noqa: A002
        """Its ETag stands for all that it says; a change needs it as If-Match."""
        return _shown(self.found(_whole(request), id), asked)

    @operation(
        "Add a mapping",
        scope="mappings:write",
        needs=(Mapping, "add"),
        answers=ShownMapping,
        status=201,
        body=NewMapping,
        examples=NEW_MAPPING,
        unsafe=True,
    )
    def create(self, request: Request, sent: dict[str, Any]) -> Response:
        """It is compiled at once: what cannot work is refused, with the place."""
        fields, match, key = sent.pop("field_mappings"), sent.pop("match", []), sent.pop("key")
        mapping = Mapping(**sent)
        save_mapping(mapping, field_specs(fields), key, match_specs(match), actor=request.user)
        answer = _shown(mapping, {})
        answer.status_code = 201
        answer["Location"] = request.build_absolute_uri(f"{request.path}/{mapping.pk}")
        return answer

    @operation(
        "Change a mapping",
        scope="mappings:write",
        needs=(Mapping, "change"),
        answers=ShownMapping,
        body=MappingChanges,
        unsafe=True,
        matched=True,
    )
    def partial_update(self, request: Request, id: UUID, sent: dict[str, Any]) -> Response:  # noqa: A002
        """What is left out stays as it is. Runs that go on keep to the version they began with."""
        rows = mappings(request.user, "change").select_for_update(of=("self",))
        mapping = self.found(rows, id)
        require_match(request, etag_of(MappingConfiguration(mapping)))
        now = mapping_spec(mapping)
        fields, match = sent.pop("field_mappings", None), sent.pop("match", None)
        key = sent.pop("key", mapping.key)
        for name, value in sent.items():
            setattr(mapping, name, value)
        save_mapping(
            mapping,
            now.fields if fields is None else field_specs(fields),
            key,
            now.match if match is None else match_specs(match),
            actor=request.user,
        )
        return _shown(Mapping.objects.get(pk=mapping.pk), {})


def _whole(request: Request) -> QuerySet[Mapping]:
    return mappings(request.user).prefetch_related("fields")


def _shown(mapping: Mapping, asked: dict[str, Any]) -> Response:
    body = ShownMapping(mapping, context={"fields": asked.get("fields")}).data
    return Response(body, headers={"ETag": etag_of(MappingConfiguration(mapping))})
