"""No source is made of the platform's own files, nor of what the installation does not allow."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import pytest
from django.conf import settings

from apps.connectors import reach
from apps.connectors.base import StepStatus
from apps.connectors.errors import PermissionRefused
from apps.connectors.files.connector import FilesConnector
from apps.connectors.files.settings import FilesSettings
from apps.connectors.sqlite import SqliteConnector, SqliteSettings


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of the platform with its database and a file of keys."""
    folder = tmp_path / "platform"
    (folder / "secrets").mkdir(parents=True)
    (folder / "secrets" / "keys.csv").write_text("id,key\nk1,abc\n", encoding="ascii")
    with sqlite3.connect(folder / "own.db") as database:
        database.execute("CREATE TABLE session (key TEXT)")
    monkeypatch.setattr(reach, "_own", set())
    reach.keep_from_sources(folder / "own.db", folder / "secrets")
    return folder


def sqlite(path: Path) -> SqliteConnector:
    return SqliteConnector(SqliteSettings(path=str(path)))


def files(folder: Path) -> FilesConnector:
    return FilesConnector(FilesSettings(folder=str(folder)))


def test_the_own_database_is_no_source(own: Path, tmp_path: Path) -> None:
    link, hard, around = tmp_path / "link.db", tmp_path / "hard.db", own / "secrets/../own.db"
    link.symlink_to(own / "own.db")
    os.link(own / "own.db", hard)
    for path in (own / "own.db", link, hard, around):
        step = next(iter(sqlite(path).check()))
        assert step.status is StepStatus.FAILED
        assert "bytes" not in step.message
        with pytest.raises(PermissionRefused, match="Lockstep's own"):
            sqlite(path).discover()


def test_own_files_are_not_read_from_a_folder_above_them(own: Path) -> None:
    (own / "shop.csv").write_text("a\n1\n", encoding="ascii")
    (own / "link.csv").symlink_to(own / "secrets" / "keys.csv")
    assert [found.name for found in files(own).discover()] == ["shop.csv"]
    for name in ("secrets/keys.csv", "link.csv"):
        with pytest.raises(PermissionRefused, match="Lockstep's own"):
            files(own).describe(name)
    with pytest.raises(PermissionRefused, match="Lockstep's own"):
        files(own / "secrets").discover()


def test_a_database_outside_the_allowed_roots_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "some.db"
    sqlite3.connect(path).close()
    path.touch()
    monkeypatch.setattr(reach, "_roots", None)
    reach.allow_files([tmp_path / "allowed"])
    for name in (path, tmp_path / "none.db"):
        step = next(iter(sqlite(name).check()))
        assert reach.ROOTS_VARIABLE in step.remedy
        assert str(tmp_path / "allowed") in step.remedy
    reach.allow_files([tmp_path])
    assert all(step.status is StepStatus.OK for step in sqlite(path).check())
    reach.allow_files([])
    with pytest.raises(PermissionRefused, match="outside the folders"):
        sqlite(path).discover()


def test_neither_dots_nor_links_lead_out_of_the_allowed_roots(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside, outside = tmp_path / "inside", tmp_path / "inside-not"
    for folder in (inside, outside):
        folder.mkdir()
        sqlite3.connect(folder / "some.db").close()
        (folder / "some.db").touch()
        (folder / "some.csv").write_text("a\n1\n", encoding="ascii")
    (inside / "link").symlink_to(outside)
    (inside / "link.db").symlink_to(outside / "some.db")
    monkeypatch.setattr(reach, "_roots", None)
    reach.allow_files([inside])
    assert sqlite(inside / "some.db").discover() == []
    for path in (
        outside / "some.db",
        inside / "link.db",
        inside / "link" / "some.db",
        inside / ".." / "inside-not" / "some.db",
    ):
        with pytest.raises(PermissionRefused, match="outside the folders"):
            sqlite(path).discover()
    assert [found.name for found in files(inside).discover()] == ["some.csv"]
    for folder in (outside, inside / "link", inside / ".." / "inside-not", tmp_path):
        with pytest.raises(PermissionRefused, match="outside the folders"):
            files(folder).discover()


def test_the_platform_keeps_its_database_and_its_keys() -> None:
    for path in settings.OWN_FILES:
        assert reach.is_own(path)
    assert settings.DATA_DIR / "secrets" in settings.OWN_FILES
    assert settings.DATA_DIR / "lockstep.sqlite3" in settings.OWN_FILES
    assert not reach.is_own(settings.DATA_DIR / "demo" / "crm.sqlite3")
