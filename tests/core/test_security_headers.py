"""Every answer tells browsers what they may not do; scripts come from our files, on every page."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from django.conf import settings
from django.contrib.staticfiles import finders
from django.test import Client, override_settings

from apps.core.middleware import PERMISSIONS, content_policy
from tests.people import administrator, signed_in

INLINE = re.compile(
    r"<script(?![^>]*\bsrc=)(?![^>]*application/json)|\son\w+\s*=|javascript:", re.I
)
STYLED = re.compile(r"<style|\sstyle\s*=", re.I)
TEMPLATES = sorted((Path(settings.BASE_DIR) / "templates").rglob("*.html"))


def directives(policy: str) -> dict[str, str]:
    return dict(part.split(" ", 1) for part in policy.split("; "))


@pytest.mark.django_db
@pytest.mark.parametrize(
    "path",
    [
        "/admin/",
        "/admin/login/",
        "/livez",
        "/readyz",
        "/nowhere",
        "/",
        "/static/lockstep/theme.css",
    ],
)
def test_every_answer_carries_the_headers(path: str) -> None:
    client = signed_in(administrator()) if path == "/admin/" else Client()
    headers = client.get(path).headers

    policy = directives(headers["Content-Security-Policy"])
    assert policy["default-src"] == "'none'"
    assert policy["frame-ancestors"] == policy["base-uri"] == policy["script-src-attr"] == "'none'"
    assert headers["Permissions-Policy"] == PERMISSIONS
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "same-origin"
    assert headers["Cross-Origin-Opener-Policy"] == "same-origin"
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
    if not path.startswith("/static/"):
        assert headers["X-Frame-Options"] == "DENY"


def test_only_the_admin_may_make_functions_of_texts_and_nobody_runs_inline_scripts() -> None:
    admin, others = (directives(content_policy(is_admin=yes)) for yes in (True, False))

    assert admin["script-src"] == "'self' 'unsafe-eval'"
    assert others["script-src"] == "'self'"
    assert others["style-src-attr"] == "'none'"
    for name, sources in {**others, **admin}.items():
        assert "'unsafe-inline'" not in sources or name == "style-src-attr"
        assert "*" not in sources
        assert "http" not in sources


@pytest.mark.django_db
def test_a_page_of_an_error_keeps_its_style() -> None:
    """Its hash is in the policy, so a change of the page changes the policy."""
    import base64
    import hashlib

    with override_settings(DEBUG=False):
        answer = Client().get("/nowhere")
    style = re.search(r"<style>(.*?)</style>", answer.content.decode(), re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    assert answer.status_code == 404
    assert f"'sha256-{digest}'" in answer.headers["Content-Security-Policy"]


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: path.name)
def test_no_template_of_ours_has_scripts_or_styles_inside(template: Path) -> None:
    text = template.read_text(encoding="utf-8")
    assert INLINE.findall(text) == []
    assert STYLED.findall(text) == ([] if template.name != "error_page.html" else ["<style"])


def test_passkeys_are_all_that_browsers_may_offer_our_pages() -> None:
    granted = [part for part in PERMISSIONS.split(", ") if not part.endswith("=()")]
    assert granted == ["publickey-credentials-create=(self)", "publickey-credentials-get=(self)"]


def test_the_palette_of_the_theme_is_a_file() -> None:
    text = Path(finders.find("lockstep/theme.css")).read_text(encoding="ascii")
    assert "--color-primary-600" in text
    assert "--color-base-600" in text
