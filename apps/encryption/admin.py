"""The page of the keys: which there are, how far a rotation is, what was found in the bytes."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import URLPattern, path
from django.views.decorators.http import require_POST
from kombu.exceptions import OperationalError

from apps.connectors.errors import LockstepError
from apps.core.admin import ReadOnlyAdmin, explain
from apps.core.models import DataKey
from apps.core.reauthentication import require_recent_sign_in
from apps.core.selectors import permits
from apps.encryption import services, tasks
from apps.encryption.selectors import data_keys, last_proof, last_rotation, progress_of

SILENT = (
    "No worker can be told: the broker does not answer. On the command line, "
    "`manage.py lockstep encryption {verb}` does the same."
)


@admin.register(DataKey)
class DataKeyAdmin(ReadOnlyAdmin):
    """Data keys, their rotation, and the proof."""

    fields = (
        "purpose",
        "state",
        "wrapped_by",
        "created_at",
        "retired_at",
        "destroyed_at",
    )

    def own_urls(self) -> list[URLPattern]:
        def own(route: str, view: Any, name: str) -> URLPattern:
            wrapped = self.admin_site.admin_view(require_POST(view))
            return path(route, wrapped, name=self.url_name(name))

        return [
            own("rotate/", self.rotate_view, "rotate"),
            own("prove/", self.prove_view, "prove"),
        ]

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        if not self.has_view_permission(request):
            raise PermissionDenied
        rotation, proof = last_rotation(), last_proof()
        counts = proof.content["keys"] if proof else {}
        return self.render_page(
            request,
            "lockstep/encryption/keys.html",
            title="Encryption",
            crumbs=[("Encryption", None)],
            keys=[(key, counts.get(key.name, 0)) for key in data_keys(request.user)],  # type: ignore[arg-type]
            rotation=rotation,
            progress=progress_of(rotation) if rotation else None,
            proof=proof,
            may_rotate=permits(request.user, DataKey, "rotate"),
            may_prove=permits(request.user, DataKey, "prove"),
        )

    def rotate_view(self, request: HttpRequest) -> HttpResponse:
        """Make a new key; workers encrypt everything anew."""
        if not permits(request.user, DataKey, "rotate"):
            raise PermissionDenied
        require_recent_sign_in(request)
        try:
            rotation = services.start_rotation(actor=request.user)  # type: ignore[arg-type]
        except LockstepError as error:
            messages.error(request, explain(error))
            return redirect(self.url("changelist"))
        if self._told(request, tasks.rotate, "rotate"):
            messages.info(request, f"Workers encrypt everything anew with {rotation.key.name}.")
        return redirect(self.url("changelist"))

    def prove_view(self, request: HttpRequest) -> HttpResponse:
        """Let a worker look at all stored bytes; what it finds appears on the page."""
        if not permits(request.user, DataKey, "prove"):
            raise PermissionDenied
        if self._told(request, tasks.prove, "audit", request.user.pk):
            messages.info(request, "A worker looks at all stored bytes; the page will show it.")
        return redirect(self.url("changelist"))

    @staticmethod
    def _told(request: HttpRequest, task: Any, verb: str, *arguments: Any) -> bool:
        try:
            task.delay(*arguments)
        except (OperationalError, OSError):
            messages.error(request, SILENT.format(verb=verb))
            return False
        return True
