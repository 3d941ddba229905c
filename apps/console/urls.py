"""Own pages under /admin/, beside those of the model admins."""

from __future__ import annotations

from django.contrib.admin import AdminSite
from django.urls import URLPattern, path


def urlpatterns(site: AdminSite) -> list[URLPattern]:
    from apps.console import controls, sign_in, tokens, wizard

    return [
        *sign_in.urlpatterns(site),
        *tokens.urlpatterns(site),
        *wizard.urlpatterns(site),
        path("pause-everything/", site.admin_view(controls.pause), name="pause_everything"),
        path("resume-everything/", site.admin_view(controls.resume), name="resume_everything"),
        path("remove-demo/", site.admin_view(controls.remove_demo), name="remove_demo"),
    ]
