from __future__ import annotations

import os
from pathlib import Path

import pytest
from pydantic import ValidationError

from apps.connectors import reach
from apps.connectors.base import StepStatus
from apps.connectors.errors import DatasetMissing, PermissionRefused
from apps.connectors.files import FilesConnector, FilesSettings
from tests.connectors.files.conftest import Connect
from tests.connectors.files.support import schema_of


@pytest.fixture
def inside(tmp_path: Path) -> Path:
    folder = tmp_path / "inside"
    folder.mkdir()
    (tmp_path / "secret.csv").write_text("id\n1\n")
    return folder


def connector(folder: Path) -> FilesConnector:
    return FilesConnector(FilesSettings(folder=str(folder)))


@pytest.mark.parametrize(
    "name", ["../secret.csv", "/etc/passwd.csv", "a/../../secret.csv", "a\0.csv", "passwd", ""]
)
def test_names_that_lead_out_are_refused(inside: Path, name: str) -> None:
    with pytest.raises(DatasetMissing):
        connector(inside).describe(name)
    with pytest.raises(DatasetMissing):
        connector(inside).create_dataset(schema_of(name, id="integer"))


def test_links_that_lead_out_are_refused_and_not_listed(inside: Path, tmp_path: Path) -> None:
    (inside / "link.csv").symlink_to(tmp_path / "secret.csv")
    (inside / "up").symlink_to(tmp_path)
    assert connector(inside).discover() == []
    for name in ("link.csv", "up/secret.csv"):
        with pytest.raises(PermissionRefused, match="link"):
            connector(inside).describe(name)
    with pytest.raises(PermissionRefused, match="link"):
        connector(inside).create_dataset(schema_of("up/new.csv", id="integer"))


def test_links_that_stay_inside_are_followed(inside: Path) -> None:
    (inside / "a.csv").write_text("id\n1\n")
    (inside / "b.csv").symlink_to(inside / "a.csv")
    assert connector(inside).describe("b.csv").row_count == 1


def test_what_is_no_regular_file_is_not_opened(inside: Path) -> None:
    os.mkfifo(inside / "pipe.csv")
    with pytest.raises(DatasetMissing, match="regular"):
        connector(inside).describe("pipe.csv")


def test_a_folder_outside_the_allowed_roots_is_refused(
    inside: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reach, "_roots", None)
    reach.allow_files([Path("/nowhere"), inside])
    assert [s.status for s in connector(inside).check()] == [StepStatus.OK] * 3
    (step,) = connector(tmp_path).check()
    assert step.status is StepStatus.FAILED
    assert reach.ROOTS_VARIABLE in step.remedy


def test_a_check_stops_at_the_first_step_that_fails(tmp_path: Path) -> None:
    steps = list(connector(tmp_path / "none").check())
    assert [(s.name, s.status) for s in steps] == [("resolve", StepStatus.FAILED)]
    assert steps[0].remedy


def test_a_check_leaves_nothing_behind(connect: Connect, tmp_path: Path) -> None:
    assert [s.name for s in connect().check()] == ["resolve", "read", "write"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "settings",
    [{"delimiter": '"'}, {"delimiter": "\n"}, {"delimiter": "é"}, {"encoding": "utf-7"},
     {"encoding": "klingon"}, {"encoding": "cp037"}, {"encoding": "shift_jis"}, {"folder": ""}],
)  # fmt: skip
def test_settings_that_cannot_work_are_refused(settings: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        FilesSettings.model_validate({"folder": "/data"} | settings)


def test_a_tab_may_be_chosen_as_delimiter() -> None:
    assert FilesSettings.model_validate({"folder": "/data", "delimiter": "\\t"}).delimiter == "\t"
