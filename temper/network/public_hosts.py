"""Decides which Internet addresses may be requested on behalf of somebody else, such as the author of a table.

A downloaded table must not make this machine send requests into its own network: to a router's page, a database without
a password, a cloud's metadata service with its keys (server-side request forgery, CWE-918). A host name does not reveal
its address, and may resolve to another one the next time (DNS rebinding). So each connection is checked by the very
address to which a socket is about to be connected: `public_socket` is the `socket_factory` of an
`aiohttp.TCPConnector`. Redirects open connections like any other request, so they are checked too.

A proxy decides by itself where it connects to; there only `is_named_privately` can help.
"""

import ipaddress
import socket
from typing import Any

# The IANA registries of special-purpose addresses (RFC 6890), without the entries on which Python's versions disagree.
_NOT_PUBLIC_4 = [
    ipaddress.IPv4Network(network)
    for network in (
        "0.0.0.0/8",  # this host
        "10.0.0.0/8",  # private
        "100.64.0.0/10",  # behind a provider's NAT (CGNAT)
        "127.0.0.0/8",  # loopback
        "168.63.129.16/32",  # the host of a virtual machine in Azure, which only the machine itself can reach
        "169.254.0.0/16",  # link-local: metadata services of clouds
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # protocols
        "192.0.2.0/24",  # documentation
        "192.88.99.0/24",  # relays of 6to4
        "192.168.0.0/16",  # private
        "198.18.0.0/15",  # measurements
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, and broadcast
    )
]
_UNICAST_6 = ipaddress.IPv6Network("2000::/3")  # all others are loopback, link-local, unique-local, IPv4-mapped, ...
_NOT_PUBLIC_6 = [
    ipaddress.IPv6Network(network)
    for network in (
        "2001::/23",  # protocols, among them Teredo, which holds an IPv4 address
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4, which holds an IPv4 address
        "3fff::/20",  # documentation
    )
]
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")  # RFC 6052: how networks without IPv4 reach IPv4 addresses
_LOCAL_NAMES = (".localhost", ".local", ".internal", ".home.arpa")


class NotPublicError(OSError):
    """Raised instead of connecting a socket to an address that is not public."""

    def __init__(self) -> None:
        super().__init__("not a public address")  # the same text for all addresses of a name, which aiohttp compares


def is_public(address: str) -> bool:
    """Whether an IPv4 or IPv6 address belongs to a host that everybody on the Internet can reach.

    Not public are private, loopback, link-local, unique-local, multicast, unspecified, reserved and documentation
    addresses, those behind a provider's NAT, and IPv6 addresses that stand for an IPv4 address (mapped, compatible,
    6to4, Teredo). For a NAT64 address, the IPv4 address inside decides.

    Raises:
        ValueError: the text is not an IP address.
    """
    ip = ipaddress.ip_address(address.partition("%")[0])  # without the zone of a link-local address
    if isinstance(ip, ipaddress.IPv6Address):
        if ip in _NAT64:
            return is_public(str(ipaddress.IPv4Address(ip.packed[-4:])))
        return ip in _UNICAST_6 and not any(ip in network for network in _NOT_PUBLIC_6)
    return not any(ip in network for network in _NOT_PUBLIC_4)


def is_named_privately(host: str) -> bool:
    """Whether a host's name alone shows that it is not public: it is a non-public address, or like `localhost`."""
    host = host.rstrip(".").lower()
    if host == "localhost" or host.endswith(_LOCAL_NAMES):
        return True
    try:
        return not is_public(host)
    except ValueError:
        pass
    try:
        return not is_public(socket.inet_ntoa(socket.inet_aton(host)))  # 127.1, 0x7f000001 and 2130706433 too
    except (OSError, UnicodeError):
        return False  # a name


def public_socket(where: tuple[Any, ...]) -> socket.socket:
    """Creates a socket for an entry that `socket.getaddrinfo` returns: (family, type, protocol, name, address).

    Raises:
        NotPublicError: the address is not public; no packet has been sent to it.
    """
    family, kind, protocol, _, address = where
    if family not in (socket.AF_INET, socket.AF_INET6) or not is_public(str(address[0])):
        raise NotPublicError
    return socket.socket(family, kind, protocol)
