"""How operations are described in the OpenAPI document."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from drf_spectacular.extensions import OpenApiSerializerFieldExtension
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiExample, OpenApiParameter, OpenApiResponse
from pydantic import BaseModel
from rest_framework import serializers

from apps.api.authorization import Needs
from apps.api.problems import PROBLEM, TITLES
from apps.api.sparse import FieldNames

READING = (400, 401, 403, 404, 406, 429)
WRITING = (409, 413, 415, 422, 503)
MATCHING = (412, 428)


class Mistake(serializers.Serializer):
    """One mistake in a request."""

    place = serializers.CharField(
        allow_blank=True, help_text="The path to it, such as checks.0.kind; empty: the whole."
    )
    code = serializers.CharField()
    message = serializers.CharField()


class Problem(serializers.Serializer):
    """An error (RFC 9457). `code` is stable; `type` leads to what is said of it."""

    type = serializers.URLField()
    title = serializers.CharField()
    status = serializers.IntegerField()
    code = serializers.CharField()
    detail = serializers.CharField()
    remedy = serializers.CharField()
    request_id = serializers.CharField(help_text="The audit log and the server's log name it.")
    where = serializers.CharField(required=False)
    errors = Mistake(many=True, required=False)


IDEMPOTENCY_KEY = OpenApiParameter(
    "Idempotency-Key",
    {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[\\x21-\\x7e]+$"},
    OpenApiParameter.HEADER,
    required=True,
    description="A new random value for each act, such as a UUID. The same one again within 24 "
    "hours gets the first answer, and nothing is done twice.",
)
IF_MATCH = OpenApiParameter(
    "If-Match",
    OpenApiTypes.STR,
    OpenApiParameter.HEADER,
    required=True,
    description="The ETag of what you have read: 412 when it has changed since.",
)

TOO_MANY = [
    OpenApiParameter(name, kind, OpenApiParameter.HEADER, response=[429], description=description)
    for name, kind, description in (
        ("RateLimit-Policy", OpenApiTypes.STR, "Requests (`q`) in so many seconds (`w`)."),
        ("RateLimit", OpenApiTypes.STR, "What is left (`r`); seconds until one more is (`t`)."),
        ("Retry-After", OpenApiTypes.INT, "Seconds to wait."),
    )
]


class OperationSchema(AutoSchema):  # type: ignore[misc]
    """Operations are named and grouped by their resource."""

    def get_operation_id(self) -> str:
        return f"{self.view.resource}_{self.view.action}"

    def get_tags(self) -> list[str]:
        return [self.view.resource]

    def _is_list_view(self, serializer: Any = None) -> bool:
        """Lists answer with a page, which is one object."""
        return isinstance(serializer, serializers.ListSerializer)

    def get_auth(self) -> list[dict[str, Any]]:
        handler = getattr(self.view, self.view.action)
        return [{"token": []}, {"oauth2": [handler.needs.scope]}]


def described(
    needs: Needs,
    summary: str,
    text: str,
    *,
    answers: Any,
    status: int,
    body: type[serializers.Serializer] | type[BaseModel] | None,
    query: type[serializers.Serializer] | None,
    parameters: Sequence[OpenApiParameter],
    examples: Sequence[OpenApiExample],
    unsafe: bool,
    matched: bool,
    repeatable: bool,
    further: Sequence[int],
) -> dict[str, Any]:
    """Arguments of `extend_schema`; what is needed stands in the text, and for programs."""
    writing = WRITING if unsafe or repeatable else ()
    statuses = (*READING, *writing, *(MATCHING if matched else ()), *further)
    responses: dict[Any, Any] = {status: answers}
    for number in sorted(statuses):
        responses[number, PROBLEM] = OpenApiResponse(Problem, description=TITLES[number])
    shown = [_field_names(query)] if query and "fields" in query._declared_fields else []
    headers = [*([IDEMPOTENCY_KEY] if unsafe else ()), *([IF_MATCH] if matched else ())]
    return {
        "summary": summary,
        "description": f"{_flowing(text)}\n\n{_words(needs)}",
        "request": body,
        "parameters": [*([query] if query else ()), *shown, *parameters, *headers, *TOO_MANY],
        "responses": responses,
        "examples": list(examples),
        "extensions": {
            "x-scope": needs.scope,
            "x-permission": needs.permission,
            "x-roles": needs.roles,
            **({"x-repeatable": True} if repeatable else {}),
        },
    }


def _field_names(query: type[serializers.Serializer]) -> OpenApiParameter:
    field = query._declared_fields["fields"]
    kind = {"type": "array", "minItems": 1, "items": {"type": "string", "enum": field.names}}
    return OpenApiParameter(
        "fields", kind, description=field.help_text, style="form", explode=False
    )


class FieldNamesInTheDocument(OpenApiSerializerFieldExtension):  # type: ignore[misc]
    """Found by the generator; `_field_names` says more."""

    target_class = FieldNames

    def map_serializer_field(self, auto_schema: Any, direction: Any) -> dict[str, Any]:
        return {"type": "string"}


def _flowing(text: str) -> str:
    return " ".join(text.split())


def _words(needs: Needs) -> str:
    roles = ", ".join(needs.roles)
    return f"Scope `{needs.scope}`; permission `{needs.permission}` (roles: {roles})."


def close_bodies(result: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
    """What is sent has the fields that are named, and no others; a hook of the generator."""
    schemas = result["components"]["schemas"]
    waiting = [
        content["schema"]["$ref"]
        for methods in result["paths"].values()
        for operation in methods.values()
        for content in operation.get("requestBody", {}).get("content", {}).values()
        if "$ref" in content["schema"]
    ]
    closed: set[str] = set()
    while waiting:
        name = waiting.pop().rpartition("/")[2]
        if name not in closed:
            closed.add(name)
            if schemas[name].get("type") == "object":
                schemas[name]["additionalProperties"] = False
            waiting += _references(schemas[name])
    return result


def _references(value: Any) -> list[str]:
    if isinstance(value, list):
        return [found for item in value for found in _references(item)]
    if not isinstance(value, dict):
        return []
    own = [value["$ref"]] if "$ref" in value else []
    return own + [found for item in value.values() for found in _references(item)]


def add_security(result: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
    """Say how programs get in; a hook of the generator."""
    from apps.accounts.scopes import SCOPES

    result["components"]["securitySchemes"] = {
        "token": {
            "type": "http",
            "scheme": "bearer",
            "description": "A personal or service token (`lks_…`).",
        },
        "oauth2": {
            "type": "oauth2",
            "description": "Programs of others.",
            "flows": {
                "authorizationCode": {
                    "authorizationUrl": "/oauth/authorize",
                    "tokenUrl": "/oauth/token",
                    "refreshUrl": "/oauth/token",
                    "scopes": {scope.name: scope.says for scope in SCOPES.values()},
                },
                "clientCredentials": {
                    "tokenUrl": "/oauth/token",
                    "scopes": {scope.name: scope.says for scope in SCOPES.values()},
                },
            },
        },
    }
    return result
