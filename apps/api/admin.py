"""The face for people: OAuth clients."""

from __future__ import annotations

from typing import Any, cast

from django import forms
from django.contrib import admin
from django.core.exceptions import PermissionDenied, ValidationError
from django.http import HttpRequest, HttpResponse
from oauth2_provider.models import (
    get_access_token_model,
    get_grant_model,
    get_id_token_model,
    get_refresh_token_model,
)
from unfold.decorators import display
from unfold.widgets import UnfoldAdminSelectWidget, UnfoldAdminTextareaWidget

from apps.accounts.admin.people import ChangedAfterSignIn
from apps.accounts.models import ServiceAccount, User
from apps.accounts.scopes import CHOICES
from apps.accounts.selectors import has_no_more_rights
from apps.accounts.services import TokenInvalid, parse_networks
from apps.accounts.token_text import new_text
from apps.api.models import OAuthClient
from apps.api.oauth.consents import end_tokens
from apps.api.oauth.secret_texts import SECRET
from apps.api.selectors import oauth_clients
from apps.audit.actions import Act
from apps.audit.services import record
from apps.core.admin import BaseAdmin, NextStep, ObjectAction
from apps.core.selectors import reached
from apps.core.templatetags.lockstep import status

for _model in (  # what the library shows of tokens helps nobody
    OAuthClient,
    get_access_token_model(),
    get_grant_model(),
    get_id_token_model(),
    get_refresh_token_model(),
):
    admin.site.unregister(_model)

GRANTS = [
    (OAuthClient.GRANT_AUTHORIZATION_CODE, "People who consent (authorization code with PKCE)"),
    (OAuthClient.GRANT_CLIENT_CREDENTIALS, "A service account (client credentials)"),
]


class OAuthClientForm(forms.ModelForm):  # type: ignore[type-arg]
    """What a client is, whom it acts as, and what it may."""

    authorization_grant_type = forms.ChoiceField(
        choices=GRANTS, label="Acts as", widget=UnfoldAdminSelectWidget
    )
    allowed_scopes = forms.MultipleChoiceField(
        choices=CHOICES, label="May ask for", widget=forms.CheckboxSelectMultiple
    )
    networks = forms.CharField(
        required=False,
        label="Only from",
        help_text="Addresses or networks, one a line. Empty: from everywhere.",
        widget=UnfoldAdminTextareaWidget(attrs={"rows": 2}),
    )

    class Meta:
        model = OAuthClient
        fields = (
            "name",
            "is_active",
            "client_type",
            "authorization_grant_type",
            "redirect_uris",
            "user",
            "allowed_scopes",
            "networks",
        )
        labels = {"user": "Service account", "redirect_uris": "Redirect addresses"}
        help_texts = {
            "client_type": "Confidential: it runs where it can keep a secret.",
            "redirect_uris": "https only, one a line; each is compared as a whole.",
        }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if "networks" in self.fields and self.instance.pk:
            self.initial["networks"] = "\n".join(self.instance.networks)

    def clean_name(self) -> str:
        name: str = self.cleaned_data["name"].strip()
        if not name:
            raise ValidationError("Give it the name by which people know it.")
        return name

    def clean_networks(self) -> list[str]:
        try:
            return parse_networks(self.cleaned_data["networks"].split())
        except TokenInvalid as error:
            raise ValidationError(f"{error.message}. {error.remedy}") from None

    def clean(self) -> dict[str, Any]:
        given: dict[str, Any] = super().clean() or self.cleaned_data
        by_itself = given.get("authorization_grant_type") == OAuthClient.GRANT_CLIENT_CREDENTIALS
        if by_itself and not given.get("user"):
            self.add_error("user", "Choose the service account that it acts as.")
        if by_itself and given.get("client_type") != OAuthClient.CLIENT_CONFIDENTIAL:
            self.add_error("client_type", "A client that acts by itself keeps a secret.")
        if not by_itself and given.get("user"):
            self.add_error("user", "It acts as the people who consent: leave this empty.")
        return given


@admin.register(OAuthClient)
class OAuthClientAdmin(ChangedAfterSignIn, BaseAdmin):
    """Programs of others: secrets are shown once."""

    audited_as = "client"
    form = OAuthClientForm
    list_display = ("name", "state", "acts_as", "client_id")
    search_fields = ("name", "client_id")
    nothing_yet = NextStep(
        "No OAuth clients yet. A program of somebody else gets in by one.",
        "Add an OAuth client",
        "admin:api_oauthclient_add",
        "apps",
        "api.add_oauthclient",
    )
    object_actions = (
        ObjectAction(
            "renew-secret",
            "Renew the secret",
            "autorenew",
            "change",
            "do_renew_secret",
            confirm="Renew the secret of {obj}? The old one, and all tokens, stop working at once.",
            shown=lambda client: client.client_type == OAuthClient.CLIENT_CONFIDENTIAL,
            dangerous=True,
        ),
        ObjectAction(
            "end-tokens",
            "End all tokens",
            "key_off",
            "change",
            "do_end_tokens",
            confirm="End all tokens of {obj}? Whoever let it in has to consent anew.",
            dangerous=True,
        ),
    )

    def get_queryset(self, request: HttpRequest) -> Any:
        return oauth_clients(request.user)

    def formfield_for_foreignkey(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        if db_field.name == "user":
            rows = reached(ServiceAccount.objects.all(), request.user)
            within = [a.pk for a in rows if has_no_more_rights(a, cast("User", request.user))]
            kwargs["queryset"] = ServiceAccount.objects.filter(pk__in=within)
        return super().formfield_for_foreignkey(db_field, request, **kwargs)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return super().has_change_permission(request, obj) and self._is_within(request, obj)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return super().has_delete_permission(request, obj) and self._is_within(request, obj)

    @staticmethod
    def _is_within(request: HttpRequest, obj: Any) -> bool:
        """Whoever knows a client's secret can do what its service account may."""
        account = obj.user if obj is not None else None
        return account is None or has_no_more_rights(account, cast("User", request.user))

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        if not change:
            obj.client_secret = request.new_secret = new_text(SECRET)  # type: ignore[attr-defined]
        super().save_model(request, obj, form, change)

    def response_add(
        self, request: HttpRequest, obj: Any, post_url_continue: str | None = None
    ) -> HttpResponse:
        return self._shown_once(request, obj, request.new_secret)  # type: ignore[attr-defined]

    def do_renew_secret(self, request: HttpRequest, client: OAuthClient) -> HttpResponse:
        self._require(request, client)
        client.client_secret = text = new_text(SECRET)
        client.save(update_fields=["client_secret", "updated"])
        end_tokens(client)
        record(Act.CLIENT_SECRET_RENEWED, client, actor=request.user)
        return self._shown_once(request, client, text)

    def do_end_tokens(self, request: HttpRequest, client: OAuthClient) -> None:
        self._require(request, client)
        end_tokens(client)
        record(Act.CLIENT_WITHDRAWN, client, actor=request.user)

    def _require(self, request: HttpRequest, client: OAuthClient) -> None:
        if not self.has_change_permission(request, client):
            raise PermissionDenied

    def _shown_once(self, request: HttpRequest, client: OAuthClient, text: str) -> HttpResponse:
        page = self.render_page(
            request, "lockstep/oauth/client_made.html", title=client.name, client=client, text=text
        )
        page.headers["Cache-Control"] = "no-store"
        return page

    @display(description="State")
    def state(self, client: OAuthClient) -> str:
        return status("ok", "Active") if client.is_active else status("disabled", "Inactive")

    @display(description="Acts as")
    def acts_as(self, client: OAuthClient) -> str:
        return str(client.user) if client.user_id else "people who consent"
