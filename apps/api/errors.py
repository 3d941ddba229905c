"""What the API itself refuses, each with its HTTP status."""

from __future__ import annotations

from typing import ClassVar

from pydantic import ValidationError

from apps.connectors.errors import Action, LockstepError

MOST_MISTAKES = 100


class ApiError(LockstepError):
    """Base of what an answer says of the request, not of the objects it is about."""

    code = "api.invalid"
    action = Action.ASK
    default_remedy = "Correct what `errors` names; the OpenAPI document says what is expected."
    status: ClassVar[int] = 400


class Invalid(ApiError):
    """The body or the query is not as the document says; `problems` names each place."""

    def __init__(self, problems: list[dict[str, str]]) -> None:
        super().__init__("the request is not as expected")
        self.problems = problems


def invalid_of(error: ValidationError, place: str = "") -> Invalid:
    """What a model says of a body, without the values. place: where in the body it was."""
    return Invalid(
        [
            {
                "place": ".".join([*([place] if place else ()), *(str(p) for p in mistake["loc"])]),
                "code": "invalid",
                "message": mistake["msg"].removeprefix("Value error, "),
            }
            for mistake in error.errors(include_url=False, include_input=False)[:MOST_MISTAKES]
        ]
    )


class Malformed(ApiError):
    code = "api.malformed"
    default_remedy = "Send one JSON document, as UTF-8."


class Unauthenticated(ApiError):
    code = "api.unauthenticated"
    default_remedy = "Send a token that is valid: `Authorization: Bearer …`."
    status = 401


class Forbidden(ApiError):
    code = "api.forbidden"
    default_remedy = "Ask an administrator for the role or the grant that this needs."
    status = 403


class InsufficientScope(ApiError):
    code = "api.insufficient_scope"
    default_remedy = "Use a token with the scope that the message names."
    status = 403


class NotFound(ApiError):
    code = "api.not_found"
    default_remedy = "Check the address; what is out of your reach is not found either."
    status = 404


class MethodNotAllowed(ApiError):
    code = "api.method_not_allowed"
    default_remedy = "Use a method that `Allow` names."
    status = 405


class NotAcceptable(ApiError):
    code = "api.not_acceptable"
    default_remedy = "Accept application/json."
    status = 406


class Conflicting(ApiError):
    """Two requests at one time, such as for one name."""

    code = "api.conflict"
    default_remedy = "Read what is there now, and try again."
    status = 409


class PreconditionFailed(ApiError):
    code = "api.precondition_failed"
    default_remedy = "Read it again, and send the new ETag with what you change."
    status = 412


class TooLarge(ApiError):
    code = "api.too_large"
    default_remedy = "Send less at a time."
    status = 413


class UnsupportedMediaType(ApiError):
    code = "api.unsupported_media_type"
    default_remedy = "Send JSON, with Content-Type: application/json."
    status = 415


class PreconditionRequired(ApiError):
    code = "api.precondition_required"
    default_remedy = "Send If-Match with the ETag of what you have read."
    status = 428


class Throttled(ApiError):
    code = "api.throttled"
    action = Action.RETRY
    default_remedy = "Wait as many seconds as Retry-After says."
    status = 429


class IdempotencyKeyMissing(ApiError):
    code = "api.idempotency_key_missing"
    default_remedy = "Send Idempotency-Key with a new random value for each act, such as a UUID."


class IdempotencyInFlight(ApiError):
    code = "api.idempotency_in_flight"
    action = Action.RETRY
    default_remedy = "Wait for the first request to end, then send it again to get its answer."
    status = 409


class IdempotencyKeyReused(ApiError):
    code = "api.idempotency_key_reused"
    default_remedy = "Send a new Idempotency-Key for another request."
    status = 422
