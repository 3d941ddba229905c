"""Figures for programs that watch Lockstep."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from drf_spectacular.types import OpenApiTypes
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response

from apps.api.base import Resource, operation
from apps.insights.metrics import exposition
from apps.runs.models import Run


class ExpositionRenderer(JSONRenderer):
    """Text as it is; problems are JSON all the same."""

    media_type = "text/plain"
    charset = "utf-8"

    def render(
        self,
        data: Any,
        accepted_media_type: str | None = None,
        renderer_context: Mapping[str, Any] | None = None,
    ) -> bytes:
        if isinstance(data, str):
            return data.encode()
        return bytes(super().render(data, accepted_media_type, renderer_context))


class Metrics(Resource):
    resource = "metrics"
    renderer_classes = [ExpositionRenderer]

    @operation(
        "Read metrics",
        scope="metrics:read",
        needs=(Run, "view"),
        answers=OpenApiTypes.STR,
    )
    def list(self, request: Request) -> Response:
        """In the text format of Prometheus, of the rules that the account reaches."""
        return Response(exposition(request.user))
