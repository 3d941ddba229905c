"""Which connectors there are: ours, and those of installed packages."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from apps.connectors import registry
from apps.connectors.errors import ConfigurationError
from apps.connectors.registry import build, connector_class, connector_names, secret_names

THIRD_PARTY = """
from apps.connectors.sqlite import SqliteConnector


class LedgerBook(SqliteConnector):
    name = "ledgerbook"
    label = "Ledger book"
"""


@pytest.fixture
def installed_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A package on the path that announces a connector, as pip leaves it behind."""
    (tmp_path / "ledgerbook.py").write_text(THIRD_PARTY)
    facts = tmp_path / "ledgerbook-1.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: ledgerbook\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text(
        f"[{registry.ENTRY_POINT_GROUP}]\nledgerbook = ledgerbook:LedgerBook\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    connector_names.cache_clear()
    connector_class.cache_clear()
    yield
    connector_names.cache_clear()
    connector_class.cache_clear()


def test_a_third_party_adds_a_connector_through_an_entry_point(
    installed_package: None, tmp_path: Path
) -> None:
    assert "ledgerbook" in connector_names()
    assert connector_class("ledgerbook").label == "Ledger book"
    made = build("ledgerbook", {"path": str(tmp_path / "book.db")})
    assert type(made).__name__ == "LedgerBook"


def test_an_unknown_connector_is_refused_with_those_there_are() -> None:
    with pytest.raises(ConfigurationError, match="no connector 'oracle'") as caught:
        connector_class("oracle")
    assert "postgresql" in caught.value.remedy


def test_secrets_are_told_from_other_settings() -> None:
    assert secret_names("postgresql") == ("password",)
    assert secret_names("sqlite") == ()
