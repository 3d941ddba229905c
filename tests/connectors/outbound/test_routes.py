"""A host leads to addresses that are allowed, however it is spelt, or nowhere."""

from __future__ import annotations

import socket

import pytest

from apps.connectors.outbound import POSTGRESQL, WEB, OutboundRefused, find_route, open_socket
from tests.connectors.outbound.conftest import NameServer, Only

METADATA = [
    "169.254.169.254",
    "2852039166",  # decimal
    "0251.0376.0251.0376",  # octal
    "0xa9.0xfe.0xa9.0xfe",
    "0xa9fea9fe",
    "169.254.43518",  # the last two bytes in one
    "169.16689662",
    "0251.254.0xa9fe",  # mixed
    "::ffff:169.254.169.254",
    "::ffff:a9fe:a9fe",
    "0:0:0:0:0:ffff:a9fe:a9fe",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b::169.254.169.254",
    "2002:a9fe:a9fe::",
    "::169.254.169.254",
    "fd00:ec2::254",
    "\uff11\uff16\uff19.254.169.254",  # digits of full width
    "169。254。169。254",
]


@pytest.mark.parametrize("spelling", METADATA)
def test_no_spelling_leads_to_the_metadata_service(spelling: str, only: Only) -> None:
    only("loopback", "private", "public", "169.254.0.0/16", "0.0.0.0/0", "::/0")
    with pytest.raises((OutboundRefused, socket.gaierror)):
        find_route(POSTGRESQL, spelling, 5432)


@pytest.mark.parametrize(
    "spelling",
    [
        "127.1",
        "0",
        "0x7f000001",
        "017700000001",
        "2130706433",
        "localhost",
        "::1",
        "::ffff:127.1.1.1",
    ],
)
def test_no_spelling_leads_to_this_machine_where_that_is_not_allowed(
    spelling: str, only: Only
) -> None:
    only("private", "public")
    with pytest.raises(OutboundRefused):
        find_route(POSTGRESQL, spelling, 5432)


def test_the_names_of_this_machine_with_a_dot_behind_are_the_same(
    only: Only, names: NameServer
) -> None:
    only("public")
    names.knows("localhost.", ["127.0.0.1"])
    with pytest.raises(OutboundRefused, match=r"localhost\. is 127\.0\.0\.1"):
        find_route(POSTGRESQL, "localhost.", 5432)


@pytest.mark.parametrize(
    "host",
    [
        "good.example@169.254.169.254",
        "good.example/169.254.169.254",
        "good.example\\@169.254.169.254",
        "good.example#@169.254.169.254",
        "good.example,169.254.169.254",  # libpq takes lists
        "good.example 169.254.169.254",
        "good.example\t",
        "a\nhostaddr=169.254.169.254",
        "x' hostaddr='169.254.169.254",
        "",
        "a" * 256,
    ],
)
def test_what_is_not_a_host_is_not_looked_up(host: str, names: NameServer) -> None:
    names.knows(host, ["127.0.0.1"])
    with pytest.raises(OutboundRefused, match="not the name or address of a host"):
        find_route(POSTGRESQL, host, 5432)
    assert names.asked == []


def test_the_refusal_says_what_was_refused_and_how_to_allow_it(
    only: Only, names: NameServer
) -> None:
    only("public")
    names.knows("db.intern", ["10.20.0.7"])
    with pytest.raises(OutboundRefused) as error:
        find_route(POSTGRESQL, "db.intern", 5432)
    assert "db.intern is 10.20.0.7" in error.value.message
    assert "private" in error.value.message
    assert "10.20.0.7/32" in error.value.remedy
    assert "LOCKSTEP_ALLOWED_NETWORKS" in error.value.remedy

    only("public", "10.20.0.7/32")
    assert find_route(POSTGRESQL, "db.intern", 5432).addresses == ("10.20.0.7",)


def test_one_bad_address_of_several_refuses_the_host(only: Only, names: NameServer) -> None:
    only("public")
    names.knows("two.example", ["8.8.8.8", "10.0.0.1"])
    with pytest.raises(OutboundRefused, match=r"10\.0\.0\.1"):
        find_route(POSTGRESQL, "two.example", 5432)


def test_a_host_is_looked_up_once_and_connected_to_what_was_checked(
    only: Only, names: NameServer
) -> None:
    only("loopback")
    names.knows("rebinding.example", ["127.0.0.1"], ["169.254.169.254"])
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        route = find_route(POSTGRESQL, "rebinding.example", port)
        with open_socket(route, 5) as connection:
            assert connection.getpeername() == ("127.0.0.1", port)
    assert names.asked == ["rebinding.example"]


def test_an_address_that_does_not_answer_gives_way_to_the_next(
    only: Only, names: NameServer
) -> None:
    only("loopback")
    names.knows("both.example", ["127.0.0.2", "127.0.0.1"])
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with open_socket(find_route(POSTGRESQL, "both.example", port), 5) as connection:
            assert connection.getpeername()[0] == "127.0.0.1"


@pytest.mark.parametrize("port", [22, 25, 53, 443, 1023])
def test_the_ports_of_other_services_are_refused(port: int, only: Only) -> None:
    with pytest.raises(OutboundRefused) as error:
        find_route(POSTGRESQL, "127.0.0.1", port)
    assert "LOCKSTEP_ALLOWED_PORTS" in error.value.remedy

    only("loopback", ports=(port,))
    assert find_route(POSTGRESQL, "127.0.0.1", port).port == port


def test_each_purpose_has_ports_of_its_own() -> None:
    assert find_route(WEB, "127.0.0.1", 443).port == 443
    with pytest.raises(OutboundRefused, match="port 25"):
        find_route(WEB, "127.0.0.1", 25)
