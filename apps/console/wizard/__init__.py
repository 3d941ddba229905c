"""The new-sync wizard: seven steps over a draft that is kept on the server.

Each step is a page of its own: a GET shows what the draft says, a POST keeps what was typed and
goes on. Nothing becomes a mapping or a rule before the dry run, and nothing is enabled without a
dry run of that very version.
"""

from __future__ import annotations

from django.contrib.admin import AdminSite
from django.urls import URLPattern, path

from apps.console.wizard import pages, parts


def urlpatterns(site: AdminSite) -> list[URLPattern]:
    def own(route: str, view: object, name: str) -> URLPattern:
        return path(f"new-sync/{route}", site.admin_view(view), name=name)  # type: ignore[arg-type]

    return [
        own("", pages.start_page, "new_sync"),
        own("start/", pages.start, "new_sync_start"),
        own("<uuid:draft_id>/discard/", pages.discard, "new_sync_discard"),
        own("<uuid:draft_id>/add-source/", parts.add_source, "new_sync_add_source"),
        own("<uuid:draft_id>/discover/", parts.discover, "new_sync_discover"),
        own("<uuid:draft_id>/check-key/", parts.check_key, "new_sync_check_key"),
        own("<uuid:draft_id>/start-dry-run/", parts.dry_run, "new_sync_dry_run"),
        own("<uuid:draft_id>/progress/", parts.progress, "new_sync_progress"),
        own("<uuid:draft_id>/due-times/", parts.due_times, "new_sync_due_times"),
        own("<uuid:draft_id>/<slug:step>/", pages.step_page, "new_sync_step"),
    ]
