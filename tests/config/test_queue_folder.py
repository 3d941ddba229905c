"""The folder of messages: a worker never finds half of one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from kombu import Connection

from config.celery import app


def test_a_message_is_whole_before_a_worker_can_find_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = {name: str(tmp_path) for name in ("data_folder_in", "data_folder_out")}
    options = {**folders, "control_folder": str(tmp_path / "control")}
    written: list[tuple[str, list[Path]]] = []
    replace = Path.replace

    def watched(path: Path, target: Any) -> Path:
        written.append((path.read_text(), list(tmp_path.glob("*.msg"))))
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", watched)
    assert app.main == "lockstep"
    with Connection("filesystem://", transport_options=options) as connection:
        queue = connection.SimpleQueue("work")
        queue.put({"partition": "7"})
        assert len(written) == 1
        text, there = written[0]
        assert "body" in text
        assert there == []
        message = queue.get(timeout=5)
        assert message.payload == {"partition": "7"}
        message.ack()
        queue.close()
