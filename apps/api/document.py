"""The OpenAPI document: made from the operations, kept in the docs, and served."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from django.conf import settings
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views import View
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.renderers import OpenApiYamlRenderer
from drf_spectacular.validation import validate_schema

KEPT = Path(settings.BASE_DIR) / "docs" / "reference" / "openapi.yaml"


def document() -> dict[str, Any]:
    """The document, valid by the schema of OpenAPI 3.1. Raises ValidationError where it is not."""
    found: dict[str, Any] = SchemaGenerator().get_schema(request=None, public=True)
    validate_schema(found)
    return found


def as_yaml() -> str:
    """The document as it is kept in `docs/reference`."""
    return OpenApiYamlRenderer().render(document(), renderer_context={}).decode()


class Document(View):
    """For the page that shows it, and for whoever is signed in."""

    def get(self, request: HttpRequest) -> HttpResponse:
        return JsonResponse(document())
