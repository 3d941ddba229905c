"""The one way out: where Lockstep may connect to, and that it connects to what was checked.

Whoever may add a source names a host, and workers open connections from inside the network. So a
name is looked up once, every address that it has is judged, and the connection goes to one of the
addresses that were judged, never to the name again: a second answer of the name server changes
nothing. TLS goes on to check the name.
"""

from apps.connectors.outbound.networks import AllowedNetworks
from apps.connectors.outbound.routes import (
    MYSQL,
    POSTGRESQL,
    WEB,
    OutboundRefused,
    Purpose,
    Route,
    allow_outbound,
    find_route,
    open_socket,
    require_sockets,
)

__all__ = [
    "MYSQL",
    "POSTGRESQL",
    "WEB",
    "AllowedNetworks",
    "OutboundRefused",
    "Purpose",
    "Route",
    "allow_outbound",
    "find_route",
    "open_socket",
    "require_sockets",
]
