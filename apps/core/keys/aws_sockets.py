"""The guard of connections for clients of botocore, which opens its sockets through urllib3.

botocore takes no other HTTP session than its own, so its pools of connections are exchanged.
"""

from __future__ import annotations

from typing import Any

from botocore.awsrequest import (
    AWSHTTPConnection,
    AWSHTTPConnectionPool,
    AWSHTTPSConnection,
    AWSHTTPSConnectionPool,
)
from botocore.httpsession import ProxyConfiguration

from apps.connectors.outbound.http import CheckedSockets


class _PlainConnection(CheckedSockets, AWSHTTPConnection):  # type: ignore[misc]
    scheme = "http"


class _TlsConnection(CheckedSockets, AWSHTTPSConnection):  # type: ignore[misc]
    scheme = "https"


class _PlainPool(AWSHTTPConnectionPool):  # type: ignore[misc]
    ConnectionCls = _PlainConnection


class _TlsPool(AWSHTTPSConnectionPool):  # type: ignore[misc]
    ConnectionCls = _TlsConnection


def guard(client: Any) -> None:
    """Let a client of boto3 connect to checked addresses only, without proxies."""
    session = client._endpoint.http_session
    session._manager.pool_classes_by_scheme = {"http": _PlainPool, "https": _TlsPool}
    session._proxy_config = ProxyConfiguration(proxies={})
