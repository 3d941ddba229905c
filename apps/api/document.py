"""The OpenAPI document: made from the operations, kept in the docs, and served."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from django.conf import settings
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views import View
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.renderers import OpenApiYamlRenderer
from drf_spectacular.utils import extend_schema
from drf_spectacular.validation import validate_schema
from drf_spectacular.views import SpectacularSwaggerSplitView

from apps.core.middleware import content_policy

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


class InteractiveDocument(SpectacularSwaggerSplitView):  # type: ignore[misc]
    """The page that shows it, and on which operations are tried."""

    url_name = "api:openapi"
    authentication_classes = ()
    permission_classes = ()

    @extend_schema(exclude=True)
    def get(self, request: Any, *args: Any, **kwargs: Any) -> HttpResponse:
        """Swagger UI writes styles into its page; scripts come from our own files alone."""
        answer: HttpResponse = super().get(request, *args, **kwargs)
        styles = (("style-src", "'self' 'unsafe-inline'"), ("style-src-attr", "'unsafe-inline'"))
        answer.headers["Content-Security-Policy"] = content_policy(changed=styles)
        return answer
