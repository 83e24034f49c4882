"""Which addresses may be asked on behalf of others."""

import socket

import pytest

from temper.network.public_hosts import NotPublicError, is_named_privately, is_public, public_socket

PUBLIC = [
    "1.1.1.1",
    "8.8.8.8",
    "100.63.255.255",  # just below CGNAT
    "100.128.0.0",  # just above
    "172.15.255.255",
    "172.32.0.0",
    "223.255.255.255",
    "2606:4700:4700::1111",
    "2001:4860:4860::8888",
    "64:ff9b::808:808",  # 8.8.8.8 by NAT64
]
NOT_PUBLIC = [
    "0.0.0.0",
    "10.0.0.1",
    "100.64.0.1",  # CGNAT
    "127.0.0.1",
    "127.255.255.254",
    "168.63.129.16",  # Azure's host
    "169.254.169.254",  # metadata of clouds
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.192",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.1.1",
    "198.18.0.1",
    "203.0.113.7",
    "224.0.0.1",  # multicast
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::7f00:1",  # IPv4-compatible
    "::ffff:127.0.0.1",  # IPv4-mapped
    "::ffff:8.8.8.8",
    "64:ff9b::7f00:1",  # 127.0.0.1 by NAT64
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::808:808",  # NAT64 for local use
    "100::1",  # discard
    "2001::1",  # Teredo
    "2001:db8::1",
    "2002:7f00:1::",  # 127.0.0.1 by 6to4
    "2002:808:808::",
    "3fff::1",
    "fc00::1",
    "fd00:ec2::254",  # metadata of a cloud
    "fe80::1",
    "fe80::1%eth0",
    "fec0::1",
    "ff02::1",  # multicast
    "5f00::1",
]


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses(address: str) -> None:
    assert is_public(address) and not is_named_privately(address)
    public_socket((_family(address), socket.SOCK_STREAM, 6, "", (address, 80))).close()


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_addresses_that_are_not_public(address: str) -> None:
    assert not is_public(address) and is_named_privately(address)
    with pytest.raises(NotPublicError):
        public_socket((_family(address), socket.SOCK_STREAM, 6, "", (address, 80)))


def _family(address: str) -> int:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


@pytest.mark.parametrize(
    ("host", "private"),
    [
        ("localhost", True),
        ("LocalHost.", True),
        ("a.localhost", True),
        ("printer.local", True),
        ("metadata.google.internal", True),
        ("127.1", True),
        ("0x7f000001", True),
        ("017700000001", True),
        ("2130706433", True),
        ("134744072", False),  # 8.8.8.8
        ("example.org", False),
        ("localhost.example.org", False),
        ("münchen.example", False),
    ],
)
def test_what_a_name_says_of_itself(host: str, private: bool) -> None:
    assert is_named_privately(host) == private


def test_a_socket_of_another_family_is_refused() -> None:
    with pytest.raises(NotPublicError):
        public_socket((socket.AF_UNIX, socket.SOCK_STREAM, 0, "", "/run/docker.sock"))
