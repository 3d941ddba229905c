"""Addresses of OAuth 2.0; what the library offers beside these is not there."""

from __future__ import annotations

from django.urls import path
from oauth2_provider.views import OAuthServerMetadataView, RevokeTokenView, TokenView

from apps.api.oauth.views import IntrospectView, consent, encrypted

app_name = "oauth2_provider"  # the library looks its addresses up by this name
urlpatterns = [
    path("oauth/authorize", consent, name="authorize"),
    path("oauth/token", encrypted(TokenView.as_view()), name="token"),
    path("oauth/revoke", encrypted(RevokeTokenView.as_view()), name="revoke-token"),
    path("oauth/introspect", encrypted(IntrospectView.as_view()), name="introspect"),
    path(
        ".well-known/oauth-authorization-server",
        OAuthServerMetadataView.as_view(),
        name="oauth-server-metadata",
    ),
]
