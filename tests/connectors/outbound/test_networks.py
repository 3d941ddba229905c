"""What an address is, and what has to be said to allow it."""

from __future__ import annotations

import pytest

from apps.connectors.outbound.networks import AllowedNetworks, Place, address_of, range_of

NEAR = AllowedNetworks.parse(["loopback", "private", "public"])
ALL_OF_IT = AllowedNetworks.parse(["0.0.0.0/0", "::/0"])

OF_EACH_KIND = [
    ("8.8.8.8", Place.PUBLIC),
    ("2606:4700::1111", Place.PUBLIC),
    ("127.0.0.1", Place.LOOPBACK),
    ("127.255.255.254", Place.LOOPBACK),
    ("::1", Place.LOOPBACK),
    ("10.0.0.1", Place.PRIVATE),
    ("172.16.0.1", Place.PRIVATE),
    ("172.31.255.255", Place.PRIVATE),
    ("172.32.0.1", Place.PUBLIC),
    ("192.168.1.1", Place.PRIVATE),
    ("100.64.0.1", Place.PRIVATE),
    ("fd12::1", Place.PRIVATE),
    ("169.254.169.254", Place.METADATA),
    ("169.254.170.2", Place.METADATA),
    ("fd00:ec2::254", Place.METADATA),
    ("100.100.100.200", Place.METADATA),
    ("168.63.129.16", Place.METADATA),
    ("169.254.1.1", Place.LINK_LOCAL),
    ("fe80::1", Place.LINK_LOCAL),
    ("224.0.0.1", Place.MULTICAST),
    ("ff02::1", Place.MULTICAST),
    ("0.0.0.0", Place.RESERVED),
    ("0.1.2.3", Place.RESERVED),
    ("::", Place.RESERVED),
    ("255.255.255.255", Place.RESERVED),
    ("198.18.0.1", Place.RESERVED),
    ("192.0.2.1", Place.RESERVED),
    ("2001:db8::1", Place.RESERVED),
    ("2001:10::1", Place.RESERVED),
    ("4000::1", Place.RESERVED),
    ("64:ff9b::7f00:1", Place.TRANSLATED),
    ("64:ff9b:1::7f00:1", Place.TRANSLATED),
    ("2002:7f00:1::", Place.TRANSLATED),
    ("2001:0:7f00:1::", Place.TRANSLATED),
    ("::ffff:0:7f00:1", Place.TRANSLATED),
    ("::7f00:1", Place.TRANSLATED),
]
BY_WORD = {Place.PUBLIC, Place.PRIVATE, Place.LOOPBACK}


@pytest.mark.parametrize(("address", "place"), OF_EACH_KIND)
def test_each_address_is_of_one_kind(address: str, place: Place) -> None:
    assert range_of(address_of(address))[0] is place
    assert NEAR.permits(address_of(address)) == (place in BY_WORD)


@pytest.mark.parametrize(("address", "place"), OF_EACH_KIND)
def test_the_whole_internet_is_not_what_is_special(address: str, place: Place) -> None:
    assert ALL_OF_IT.permits(address_of(address)) == (place in BY_WORD)


def test_an_address_of_ipv4_in_the_form_of_ipv6_is_one_of_ipv4() -> None:
    inside = address_of("::ffff:169.254.169.254")
    assert range_of(inside)[0] is Place.METADATA
    assert not NEAR.permits(inside)
    assert range_of(address_of("::ffff:7f00:1"))[0] is Place.LOOPBACK


@pytest.mark.parametrize(
    ("entry", "allowed", "refused"),
    [
        ("10.1.0.0/16", "10.1.2.3", "10.2.0.1"),
        ("fd12::/64", "fd12::9", "fd13::9"),
        ("203.0.114.7", "203.0.114.7", "203.0.114.8"),
        ("169.254.0.0/16", "169.254.9.9", "169.254.169.254"),
        ("169.254.169.254", "169.254.169.254", "169.254.9.9"),
        ("fd00:ec2::254", "fd00:ec2::254", "fd00:ec2::253"),
        ("fd00:ec2::/32", "fd00:ec2::253", "fd00:ec2::254"),
        ("100.100.100.0/24", "100.100.100.199", "100.100.100.200"),
        ("198.18.0.0/16", "198.18.4.4", "198.19.4.4"),
        ("private", "10.1.2.3", "127.0.0.1"),
        ("loopback", "127.0.0.1", "8.8.8.8"),
        ("public", "8.8.8.8", "192.168.1.1"),
        ("private", "100.64.1.1", "100.100.100.200"),
    ],
)
def test_what_is_named_is_allowed_and_nothing_beside(
    entry: str, allowed: str, refused: str
) -> None:
    networks = AllowedNetworks.parse([entry])
    assert networks.permits(address_of(allowed))
    assert not networks.permits(address_of(refused))


@pytest.mark.parametrize(
    ("translator", "good", "bad"),
    [
        ("64:ff9b::/96", "64:ff9b::808:808", "64:ff9b::a9fe:a9fe"),
        ("2002::/16", "2002:808:808::1", "2002:a9fe:a9fe::1"),
        ("::ffff:0:0:0/96", "::ffff:0:8.8.8.8", "::ffff:0:169.254.169.254"),
        ("2001::/32", "2001:0:808:808::f7f7:f7f7", "2001:0:808:808::5601:5601"),
    ],
)
def test_behind_a_translator_the_address_inside_counts(
    translator: str, good: str, bad: str
) -> None:
    networks = AllowedNetworks.parse(["public", translator])
    assert networks.permits(address_of(good))
    assert not networks.permits(address_of(bad))
    assert not AllowedNetworks.parse(["public"]).permits(address_of(good))


@pytest.mark.parametrize("entry", ["10.0.0.1/8", "intern", "10.0.0.0/33", "", "LOOPBACK"])
def test_what_is_no_network_is_named(entry: str) -> None:
    with pytest.raises(ValueError, match="neither a network nor one of") as error:
        AllowedNetworks.parse(["private", entry])
    assert f"'{entry}'" in str(error.value)
