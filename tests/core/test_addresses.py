"""Whose address counts: the peer's, or what our own proxies have appended."""

from __future__ import annotations

import pytest
from django.test import RequestFactory

from apps.core.addresses import client_address


@pytest.mark.parametrize(
    ("proxies", "peer", "header", "address"),
    [
        (0, "198.51.100.7", None, "198.51.100.7"),
        (0, "198.51.100.7", "203.0.113.9", "198.51.100.7"),
        (1, "10.0.0.1", "203.0.113.9", "203.0.113.9"),
        (1, "10.0.0.1", "1.1.1.1, 203.0.113.9", "203.0.113.9"),
        (2, "10.0.0.1", "1.1.1.1, 203.0.113.9, 10.0.0.2", "203.0.113.9"),
        (2, "10.0.0.1", "203.0.113.9", "10.0.0.1"),
        (1, "10.0.0.1", None, "10.0.0.1"),
        (1, "10.0.0.1", "nonsense", None),
        (0, "::1", None, "::1"),
        (1, "10.0.0.1", "[2001:db8::1]", "2001:db8::1"),
        (0, "", None, None),
    ],
)
def test_the_address_of_a_request(settings, proxies, peer, header, address):
    settings.LOCKSTEP = {**settings.LOCKSTEP, "TRUSTED_PROXIES": proxies}
    headers = {"X-Forwarded-For": header} if header is not None else {}
    request = RequestFactory(REMOTE_ADDR=peer, headers=headers).get("/")

    assert client_address(request) == address
