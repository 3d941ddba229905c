"""What the how-to shows a developer works as it stands there."""

from __future__ import annotations

import io
import re
import time
import urllib.request
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest

from apps.rules.models import Rule
from apps.runs.models import Run
from apps.runs.services import work_until_finished
from config.environment import BASE_DIR

GUIDE = Path(BASE_DIR) / "docs" / "how-to" / "use-the-api.md"


@pytest.mark.django_db
def test_the_python_of_the_guide_starts_a_run_and_follows_it(root, pair, monkeypatch):
    Rule.objects.update(name="Demo customers")
    script = re.findall(r"```python\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)[0]

    def opened(request: Any) -> Any:
        answer = root.client.generic(
            request.get_method(),
            request.full_url.removeprefix("https://lockstep.example"),
            request.data or b"",
            content_type=request.headers.get("Content-type", ""),
            headers=dict(request.header_items()),
        )
        assert answer.status_code < 300, answer.json()
        stream: Any = io.BytesIO(answer.content)
        stream.headers = answer.headers
        return stream

    monkeypatch.setenv("LOCKSTEP", "https://lockstep.example/api/v1")
    monkeypatch.setenv("TOKEN", root.bearer)
    monkeypatch.setattr(urllib.request, "urlopen", opened)
    monkeypatch.setattr(time, "sleep", lambda _: work_until_finished(Run.objects.get()))
    written = io.StringIO()
    with redirect_stdout(written):
        exec(compile(script, str(GUIDE), "exec"), {})  # noqa: S102

    assert written.getvalue().splitlines()[-1] == "succeeded 3 inserted "
