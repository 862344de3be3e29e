"""Addresses of clients, as the rate limits count them, and names of hosts, as the Host header spells them."""

from __future__ import annotations

import ipaddress

# Both hold an IPv4 address in their last 32 bits: a dual-stack listener sees IPv4 clients in the first, and behind a
# translator of RFC 6052 they come from the second. Either is a single /64 for all of IPv4.
IPV4_MAPPED = ipaddress.IPv6Network("::ffff:0:0/96")
IPV4_TRANSLATED = ipaddress.IPv6Network("64:ff9b::/96")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def client_network(address: str, peer: str = "") -> str:
    """Return the network that a client's requests are counted for: an IPv4 address, or the /64 of an IPv6 address.

    One machine may use any address of its /64. address: as the server or X-Forwarded-For gives it, with or without a
    port, brackets or a zone. peer: the other end of the connection, which counts where `address` is not an address.
    """
    client = _address(address) or _address(peer)
    if client is None:
        return "unknown"
    if isinstance(client, ipaddress.IPv6Address):
        if client not in IPV4_MAPPED and client not in IPV4_TRANSLATED:
            return str(ipaddress.IPv6Network((int(client), 64), strict=False))
        client = ipaddress.IPv4Address(int(client) & 0xFFFFFFFF)
    return str(ipaddress.IPv4Network((int(client), 32)))


def host_name(host: str) -> str:
    """Return the name in a Host header without its port; an address in its canonical spelling, without brackets."""
    address = _address(host)
    if address is not None:
        return str(address)
    name = host.rpartition(":")[0] if ":" in host else host
    try:
        return name.encode("idna").decode("ascii").lower()
    except UnicodeError:  # a label that is empty or too long
        return name.lower()


def _address(text: str) -> Address | None:
    """Return the address in 1.2.3.4, 1.2.3.4:80, 1::2, 1::2%eth0, [1::2] or [1::2]:80, or None."""
    text = text.strip()
    if text.startswith("["):
        text, bracket, port = text[1:].partition("]")
        if not bracket or (port and not _is_port(port)):
            return None
    elif text.count(":") == 1:
        text, _, port = text.partition(":")
        if not _is_port(f":{port}"):
            return None
    try:
        return ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None


def _is_port(text: str) -> bool:
    return text.startswith(":") and text[1:].isascii() and text[1:].isdigit() and int(text[1:][:6]) < 65_536
