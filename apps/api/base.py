"""The base of every resource: operations that say what they need, and are done once."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from django.db.models import Model, QuerySet
from django.http import HttpResponse
from drf_spectacular.utils import OpenApiExample, OpenApiParameter, extend_schema
from pydantic import BaseModel
from pydantic import ValidationError as PydanticError
from rest_framework.exceptions import ValidationError
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.serializers import BaseSerializer, Serializer
from rest_framework.viewsets import ViewSet

from apps.api.authorization import Needs
from apps.api.documenting import described
from apps.api.errors import (
    Malformed,
    NotFound,
    PreconditionFailed,
    PreconditionRequired,
    UnsupportedMediaType,
    invalid_of,
)
from apps.api.limits import count, require
from apps.api.services import Answer, Caller, do_once
from apps.core.rate_limits import Allowance
from apps.core.selectors import by_id
from apps.hub.bodies import loaded

SAFE = ("GET", "HEAD")
KEPT_HEADERS = ("ETag", "Location")
Model_ = TypeVar("Model_", bound=BaseModel)


def operation(
    summary: str,
    *,
    scope: str,
    needs: tuple[type[Model], str],
    answers: Any,
    status: int = 200,
    body: type[Serializer] | None = None,
    query: type[Serializer] | None = None,
    parameters: Sequence[OpenApiParameter] = (),
    examples: Sequence[OpenApiExample] = (),
    unsafe: bool = False,
    matched: bool = False,
    atomic: bool = True,
    repeatable: type[BaseModel] | None = None,
    further: Sequence[int] = (),
) -> Callable[[Callable[..., Response]], Callable[..., Response]]:
    """Make a method of a resource an operation.

    needs: model and action of the permission; answers: serializer of the answer; body, query: those
    of what is sent, handed to the method as `sent` and `asked`; unsafe: it asks for an idempotency
    key; matched: for If-Match as well; atomic: see `services.do_once`; repeatable: the body of an
    act that knows by itself what it has done before, so that it needs no key; further: statuses
    that it answers with beside the usual ones.
    """
    required = Needs(scope, *needs)

    def decorate(method: Callable[..., Response]) -> Callable[..., Response]:
        @functools.wraps(method)
        def answered(self: Resource, request: Request, **place: Any) -> Any:
            if query is not None:
                place["asked"] = validated(query, request.query_params.dict(), request)
            if repeatable is not None:
                place["sent"] = parsed(repeatable, request)
            if not unsafe:
                return method(self, request, **place)
            return self.once(request, functools.partial(method, self, request), place, body, atomic)

        answered.needs = required  # type: ignore[attr-defined]
        return extend_schema(
            **described(
                required,
                summary,
                method.__doc__ or "",
                answers=answers,
                status=status,
                body=repeatable or body,
                query=query,
                parameters=parameters,
                examples=examples,
                unsafe=unsafe,
                matched=matched,
                repeatable=repeatable is not None,
                further=further,
            )
        )(answered)

    return decorate


def validated(kind: type[Serializer], data: Any, request: Request) -> dict[str, Any]:
    """What was sent, as the serializer has it. Raises ValidationError, also for unknown names."""
    serializer = kind(data=data, context={"request": request})
    if not isinstance(data, dict):
        raise ValidationError({"non_field_errors": ["a JSON object is expected"]})
    unknown = sorted(set(data) - set(serializer.fields))
    if unknown:
        raise ValidationError({name: ["there is no such field"] for name in unknown})
    serializer.is_valid(raise_exception=True)
    found: dict[str, Any] = serializer.validated_data
    return found


def parsed(kind: type[Model_], request: Request) -> Model_:
    """A large body, as the model has it. Raises Invalid, UnsupportedMediaType, Malformed."""
    if request.content_type.partition(";")[0].strip().lower() != "application/json":
        raise UnsupportedMediaType("the body is to be JSON")
    try:
        data = loaded(request._request.body)
    except ValueError as error:
        raise Malformed("this is no JSON document") from error
    try:
        return kind.model_validate(data)
    except PydanticError as error:
        raise invalid_of(error) from None


class Resource(ViewSet):
    """Operations on one kind of object."""

    http_method_names = ["get", "head", "post", "patch"]
    allowance: Allowance | None = None

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        """Count the request before anything is looked up for it."""
        self.allowance = count(request)
        require(self.allowance)
        super().initial(request, *args, **kwargs)

    def found(self, rows: QuerySet[Any], pk: Any) -> Any:
        """The row with this id among those that are in reach. Raises NotFound."""
        obj = by_id(rows, str(pk))
        if obj is None:
            raise NotFound(f"there is no such {rows.model._meta.verbose_name}")
        return obj

    def once(
        self,
        request: Request,
        act: Callable[..., Response],
        place: dict[str, Any],
        body: type[Serializer] | None,
        atomic: bool,
    ) -> HttpResponse:
        """Do an unsafe operation, or give the answer that its key got before."""
        raw = request._request.body  # read first: Django's limit holds, and the parser reads a copy
        digest = hashlib.sha256(
            b"\n".join((request.method.encode(), request.get_full_path().encode(), raw))
        ).hexdigest()
        if body is not None:
            place["sent"] = validated(body, request.data if raw else {}, request)

        def acted() -> Answer:
            answer = act(**place)
            headers = {name: answer[name] for name in KEPT_HEADERS if name in answer}
            return Answer(answer.status_code, JSONRenderer().render(answer.data), headers)

        caller = Caller(request.user, request.auth.name)
        done = do_once(
            caller, request.headers.get("Idempotency-Key", ""), digest, acted, atomic=atomic
        )
        headers = {**done.headers, "Content-Type": "application/json"}
        response = HttpResponse(done.body, status=done.status, headers=headers)
        if done.is_replay:
            response.headers["Idempotency-Replayed"] = "true"
        return response

    def finalize_response(
        self, request: Request, response: Any, *args: Any, **kwargs: Any
    ) -> HttpResponse:
        """Answers are one caller's, are kept nowhere, and say how much is left."""
        answer: HttpResponse = super().finalize_response(request, response, *args, **kwargs)
        answer.headers.setdefault("Cache-Control", "no-store")
        return self.allowance.on(answer) if self.allowance else answer


def etag_of(serializer: BaseSerializer) -> str:
    """Names the configuration of an object: what `serializer` shows of it."""
    return f'"{hashlib.sha256(JSONRenderer().render(serializer.data)).hexdigest()[:32]}"'


def require_match(request: Request, etag: str) -> None:
    """Raise PreconditionRequired without If-Match, PreconditionFailed where it names another."""
    header = request.headers.get("If-Match")
    if header is None:
        raise PreconditionRequired("this changes configuration, so it needs If-Match")
    if etag not in [part.strip() for part in header.split(",")]:
        raise PreconditionFailed("it is not as you have read it")
