"""The end points of OAuth 2.0, the consent page among them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import wraps
from typing import Any
from urllib.parse import urlsplit

from django.contrib import admin
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.utils.decorators import method_decorator
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.debug import sensitive_post_parameters
from django.views.generic import View
from oauth2_provider.models import get_access_token_model
from oauth2_provider.oauth2_backends import get_oauthlib_core
from oauth2_provider.views import AuthorizationView
from oauthlib.common import Request as OAuthRequest

from apps.api.authentication import is_in_clear
from apps.api.models import OAuthClient
from apps.audit.actions import Act
from apps.audit.services import record
from apps.core.middleware import content_policy


class ConsentView(AuthorizationView):  # type: ignore[misc]
    """Asks whoever is signed in, with both factors, whether a client may act as that person.

    It always asks: a consent of yesterday says nothing of who asks today.
    """

    template_name = "lockstep/oauth/consent.html"

    def get(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        request.GET = request.GET.copy()  # type: ignore[assignment]
        for name in ("approval_prompt", "prompt"):
            request.GET.pop(name, None)  # type: ignore[attr-defined]
        answer: HttpResponse = super().get(request, *args, **kwargs)
        return answer

    def form_valid(self, form: Any) -> HttpResponse:
        answer: HttpResponse = super().form_valid(form)
        if form.cleaned_data["allow"] and "code=" in answer.get("Location", ""):
            client = OAuthClient.objects.get(client_id=form.cleaned_data["client_id"])
            scopes = form.cleaned_data["scope"].split()
            user = self.request.user
            record(Act.CLIENT_CONSENTED, client, actor=user, details={"scopes": scopes})
        return answer

    def render_to_response(self, context: dict[str, Any], **kwargs: Any) -> HttpResponse:
        """With the frame of our pages, where the library says what is wrong as well."""
        frame = {**admin.site.each_context(self.request), "title": "Let a program in?"}
        answer: HttpResponse = super().render_to_response({**frame, **context}, **kwargs)
        answer.headers["Content-Security-Policy"] = self._content_policy()
        return answer

    def _content_policy(self) -> str:
        """That of the admin, whose frame the page has. The answer to the form leads to the client,
        which browsers count as the form's action."""
        back = urlsplit(getattr(self, "oauth2_data", {}).get("redirect_uri") or "")
        if not back.netloc:
            return content_policy(is_admin=True)
        forms = ("form-action", f"'self' {back.scheme}://{back.netloc}")
        return content_policy(is_admin=True, changed=(forms,))

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        context: dict[str, Any] = super().get_context_data(**kwargs)
        named = zip(context.get("scopes", ()), context.get("scopes_descriptions", ()), strict=True)
        return {**context, "named_scopes": list(named)}


@method_decorator([csrf_exempt, never_cache, sensitive_post_parameters()], name="dispatch")
class IntrospectView(View):
    """Whether a token is active (RFC 7662): for confidential clients, of their own tokens only."""

    def post(self, request: HttpRequest) -> HttpResponse:
        client = _confidential_client(request)
        if client is None:
            return JsonResponse(
                {"error": "invalid_client"},
                status=401,
                headers={"WWW-Authenticate": 'Basic realm="lockstep"'},
            )
        checksum = hashlib.sha256(request.POST.get("token", "").encode()).hexdigest()
        rows = get_access_token_model().objects.filter(application=client)
        token = rows.filter(token_checksum=checksum).first()
        if token is None or not token.is_valid():
            return JsonResponse({"active": False})
        return JsonResponse(
            {
                "active": True,
                "scope": token.scope,
                "client_id": client.client_id,
                "exp": int(token.expires.timestamp()),
                "token_type": "Bearer",  # nosec B105  # a name of the protocol
            }
        )


def _confidential_client(request: HttpRequest) -> OAuthClient | None:
    """The client that has proved its secret."""
    core = get_oauthlib_core()
    uri, method, body, headers = core._extract_params(request)
    asked = OAuthRequest(uri, method, body, headers)
    validator = core.server.request_validator
    if not validator.authenticate_client(asked):
        return None
    client: OAuthClient = asked.client
    return client if client.client_type == OAuthClient.CLIENT_CONFIDENTIAL else None


def encrypted(view: Callable[..., HttpResponse]) -> Callable[..., HttpResponse]:
    """A view that takes secrets by HTTPS only, where HTTPS is in use."""

    @wraps(view)  # with what it says of CSRF
    def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        if is_in_clear(request):
            problem = {"error": "invalid_request", "error_description": "HTTPS is needed"}
            return JsonResponse(problem, status=400)
        return view(request, *args, **kwargs)

    return guarded


def consent(request: HttpRequest) -> HttpResponse:
    """The consent page, behind both steps of the sign-in."""
    guarded = admin.site.admin_view(never_cache(sensitive_post_parameters()(ConsentView.as_view())))
    answer: HttpResponse = guarded(request)
    return answer
