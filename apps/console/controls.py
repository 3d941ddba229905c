"""Switches on the overview that concern the whole platform. Each one is a POST."""

from __future__ import annotations

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.views.decorators.http import require_POST

from apps.console import services
from apps.core.reauthentication import require_recent_sign_in


@require_POST
def pause(request: HttpRequest) -> HttpResponse:
    """Nothing starts any more until somebody resumes everything."""
    reason = request.POST.get("reason", "").strip()
    services.pause_everything(actor=request.user, reason=reason)  # type: ignore[arg-type]
    messages.warning(request, "Everything is paused: no run starts, work going on is held.")
    return redirect("admin:index")


@require_POST
def resume(request: HttpRequest) -> HttpResponse:
    services.resume_everything(actor=request.user)  # type: ignore[arg-type]
    messages.success(request, "Everything goes on.")
    return redirect("admin:index")


@require_POST
def remove_demo(request: HttpRequest) -> HttpResponse:
    """Remove the demo's sources, mappings, rules, runs and files."""
    if not services.may_remove_demo(request.user):
        raise PermissionDenied
    require_recent_sign_in(request)
    if services.demo_is_loaded():
        services.remove_demo(actor=request.user)  # type: ignore[arg-type]
        messages.success(request, "The demo is gone. Connect a source of your own next.")
    return redirect("admin:index")
