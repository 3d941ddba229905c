"""What the pages of tokens share: a person's own, and those of a service account."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

from django import forms
from django.conf import settings
from django.contrib import messages
from django.http import Http404, HttpRequest

from apps.accounts import services
from apps.accounts.models import Token, User
from apps.accounts.scopes import CHOICES
from apps.accounts.selectors import may_have_tokens, may_manage_tokens, tokens_of
from apps.connectors.errors import LockstepError
from apps.core.admin import explain
from apps.core.reauthentication import require_recent_sign_in
from apps.core.selectors import by_id

MOST_SHOWN = 200
DAYS = 90
OVERLAPS = ((0, "at once"), (1, "in 1 hour"), (24, "in 1 day"), (168, "in 7 days"))


class TokenForm(forms.Form):
    """What a new token is to be."""

    name = forms.CharField(
        max_length=100,
        help_text="What it is for, such as “nightly export”.",
        widget=forms.TextInput(attrs={"class": "ls-input", "autocomplete": "off"}),
    )
    scopes = forms.MultipleChoiceField(
        choices=CHOICES,
        label="May",
        help_text="Never more than the account itself may do at that moment.",
        widget=forms.CheckboxSelectMultiple(),
    )
    days = forms.IntegerField(
        min_value=1,
        label="Ends after (days)",
        widget=forms.NumberInput(attrs={"class": "ls-input"}),
    )
    networks = forms.CharField(
        required=False,
        label="Only from",
        help_text="Addresses or networks, one a line, such as 192.0.2.0/24. Empty: everywhere.",
        widget=forms.Textarea(attrs={"class": "ls-input", "rows": 2}),
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        longest = settings.LOCKSTEP["TOKEN_DAYS"]
        super().__init__(*args, initial={"days": min(DAYS, longest)}, **kwargs)
        self.fields["days"].help_text = f"At most {longest}."

    def asked(self) -> dict[str, Any]:
        """As `services.create_token` takes it."""
        given = self.cleaned_data
        return {**given, "networks": given["networks"].split()}


@dataclass(frozen=True, slots=True)
class TokenDesk:
    """The tokens of one account, as one person looks after them; addresses by what they do."""

    owner: User
    page: str
    replace: str
    revoke: str

    def context(self, request: HttpRequest, form: TokenForm | None = None) -> dict[str, Any]:
        """What the page shows."""
        actor = cast("User", request.user)
        manages = may_manage_tokens(actor, self.owner)
        return {
            "desk": self,
            "tokens": tokens_of(self.owner)[:MOST_SHOWN],
            "form": form or TokenForm(),
            "makes": manages and may_have_tokens(self.owner),
            "manages": manages,
            "overlaps": OVERLAPS,
        }

    def make(self, request: HttpRequest, form: TokenForm) -> tuple[Token, str] | None:
        """A new token and its text; None where the form says why not."""
        require_recent_sign_in(request, form=True)
        if not form.is_valid():
            return None
        actor = cast("User", request.user)
        try:
            return services.create_token(self.owner, **form.asked(), actor=actor)
        except LockstepError as error:
            form.add_error(None, explain(error))
            return None

    def replaced(self, request: HttpRequest) -> tuple[Token, str] | None:
        """A token in the place of another one, and its text."""
        require_recent_sign_in(request)
        hours = request.POST.get("hours", "")
        try:
            return services.rotate_token(
                self._token(request),
                overlap_hours=int(hours) if hours.isdecimal() else -1,
                actor=cast("User", request.user),
            )
        except LockstepError as error:
            messages.error(request, explain(error))
            return None

    def revoked(self, request: HttpRequest) -> None:
        """End a token."""
        token = self._token(request)
        services.revoke_token(token, actor=cast("User", request.user))
        messages.success(request, f"{token} is revoked.")

    def _token(self, request: HttpRequest) -> Token:
        token = by_id(tokens_of(self.owner), request.POST.get("token"))
        if token is None:
            raise Http404("no such token of this account")
        return token
