"""TLS to the broker checks the certificate and the name, without a word about it in the address."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from kombu import Connection

from config.own_services import broker_tls, without_tls_options
from tests.connectors.outbound.conftest import NameServer, names  # noqa: F401  # a fixture
from tests.connectors.outbound.tls_server import RIGHT, WRONG, TlsServer, tls_server

SCHEMES = ["rediss", "amqps"]


def knock(url: str) -> None:
    """What Celery does first, with the settings that it is given."""
    tls: Any = broker_tls(url)
    with (
        Connection(
            without_tls_options(url),
            ssl=tls,
            connect_timeout=5,
            transport_options={"socket_timeout": 5, "max_retries": 0},
        ) as connection,
        suppress(Exception),  # no broker is behind it: what counts is how far TLS came
    ):
        connection.connect()
        connection.default_channel.client.ping()


def address(scheme: str, host: str, server: TlsServer, *, trusted: bool = True) -> str:
    trust = f"?ssl_ca_certs={server.certificate}" if trusted else ""
    return f"{scheme}://{host}:{server.port}/{trust}"


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_broker_is_spoken_to_only_when_its_certificate_is_for_its_name(
    scheme: str,
    tmp_path: Path,
    names: NameServer,  # noqa: F811
) -> None:
    for host in (RIGHT, WRONG):
        names.knows(host, ["127.0.0.1"])
    with tls_server(tmp_path) as server:
        knock(address(scheme, WRONG, server))
        knock(address(scheme, RIGHT, server, trusted=False))
        assert server.said == []
        knock(address(scheme, RIGHT, server))
        assert server.said
        assert RIGHT in server.names


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_address_may_switch_the_check_off(scheme: str, tmp_path: Path) -> None:
    with tls_server(tmp_path) as server:
        knock(f"{scheme}://127.0.0.1:{server.port}/?ssl_cert_reqs=none")
        assert server.said
