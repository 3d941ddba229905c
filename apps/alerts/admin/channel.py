"""Channels, and what was sent by them."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.http import HttpRequest, HttpResponse
from unfold.decorators import display

from apps.alerts.models import Channel, Delivery
from apps.alerts.services import renew_secret, save_channel, test_channel
from apps.audit.actions import Act
from apps.audit.services import record
from apps.core.admin import (
    BaseAdmin,
    HistoryAdmin,
    InfinitePaginator,
    NextStep,
    ObjectAction,
    ReadOnlyAdmin,
    RelatedFilter,
    ServiceErrorsMixin,
    ServiceForm,
)
from apps.core.templatetags.lockstep import ago, status


class ChannelForm(ServiceForm):
    error_fields = {"url": "url"}


@admin.register(Channel)
class ChannelAdmin(ServiceErrorsMixin, HistoryAdmin, BaseAdmin):
    """Secrets of webhooks are shown once."""

    audited_as = "channel"
    form = ChannelForm
    fields = ("name", "kind", "url", "enabled")
    list_display = ("name", "kind", "state", "last_message")
    search_fields = ("name",)
    parts = frozenset({"delivery", "escalation step"})
    nothing_yet = NextStep(
        "No channel yet: mail, or a webhook that is signed.",
        "Add a channel",
        "admin:alerts_channel_add",
        "send",
        "alerts.add_channel",
    )
    object_actions = (
        ObjectAction("test", "Send a test message", "send", "test", "do_test"),
        ObjectAction(
            "renew-secret",
            "Renew the secret",
            "autorenew",
            "change",
            "do_renew_secret",
            confirm="Renew the secret of {obj}? The old one signs nothing from now on.",
            shown=lambda channel: channel.kind == Channel.Kind.WEBHOOK,
            dangerous=True,
        ),
    )

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        return ("kind",) if obj is not None else ()

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        secret = save_channel(obj, actor=request.user)
        request.new_secret = secret  # type: ignore[attr-defined]

    def response_add(
        self, request: HttpRequest, obj: Any, post_url_continue: str | None = None
    ) -> HttpResponse:
        secret = request.new_secret  # type: ignore[attr-defined]
        if secret is not None:
            return self._shown_once(request, obj, secret)
        added: HttpResponse = super().response_add(request, obj, post_url_continue)
        return added

    def do_test(self, request: HttpRequest, channel: Channel) -> None:
        delivery = test_channel(channel, actor=request.user)
        to = f" to {delivery.recipient}" if delivery.recipient else ""
        messages.success(
            request, f"A test message is on its way{to}. What becomes of it is under Deliveries."
        )

    def do_renew_secret(self, request: HttpRequest, channel: Channel) -> HttpResponse:
        secret = renew_secret(channel, actor=request.user)
        record(Act.CHANNEL_SECRET_RENEWED, channel, actor=request.user)
        return self._shown_once(request, channel, secret)

    def _shown_once(self, request: HttpRequest, channel: Channel, text: str) -> HttpResponse:
        page = self.render_page(
            request,
            "lockstep/alerts/channel_made.html",
            title=channel.name,
            channel=channel,
            text=text,
        )
        page.headers["Cache-Control"] = "no-store"
        return page

    @display(description="State")
    def state(self, channel: Channel) -> str:
        return status("enabled" if channel.enabled else "disabled")

    @display(description="Last message")
    def last_message(self, channel: Channel) -> str:
        last = channel.deliveries.order_by("-updated_at").first()
        return status(last.state, last.get_state_display()) if last else "none yet"


@admin.register(Delivery)
class DeliveryAdmin(ReadOnlyAdmin):
    """Each message, and what became of it."""

    list_display = ("made", "incident", "what", "channel", "recipient", "state_label", "error")
    list_filter = ("state", ("channel", RelatedFilter))
    list_select_related = ("incident", "channel")
    paginator = InfinitePaginator
    nothing_yet = NextStep("Nobody was told anything yet.", icon="mark_email_read")

    @display(description="Made", ordering="created_at")
    def made(self, delivery: Delivery) -> str:
        return ago(delivery.created_at)

    @display(description="State", ordering="state")
    def state_label(self, delivery: Delivery) -> str:
        return status(delivery.state, delivery.get_state_display())
