"""The one guarded client for everything the web and the worker send out.

A server that fetches addresses it was told about can be made to talk to its own neighbours: the
cloud's metadata service, a database, a router. So the check is made where the connection is opened,
on the addresses a name really has, and the connection goes to a checked address: a name that
changes its answer between check and use (DNS rebinding), a redirect, and an upload link sent by
the other side meet the same gate. What an admin has listed (`OUTGOING_ALLOW`, `HF_ENDPOINT`)
passes.

httpx2 is imported with this module, so the web imports this module only where it sends something.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable
from typing import Any
from urllib.parse import urlsplit

import httpcore2
import httpx2
from django.conf import settings

#: Seconds for opening a connection.
CONNECT_S = 10.0
DEFAULT_PORTS = {"http": 80, "https": 443}
#: IPv6 addresses whose last 32 bits are an IPv4 address (NAT64, RFC 6052).
TRANSLATED = ipaddress.IPv6Network("64:ff9b::/96")


class OutgoingRefused(Exception):
    """Raised when a connection would leave for an address that is not public and not listed."""


def host_and_port(url: str) -> str:
    """`host:port` of an address, as OUTGOING_ALLOW lists it; empty where there is no host."""
    parts = urlsplit(url)
    if not parts.hostname:
        return ""
    return f"{parts.hostname}:{parts.port or DEFAULT_PORTS.get(parts.scheme, 0)}"


def listed() -> set[str]:
    """The host:port pairs an admin has allowed; naming another HF_ENDPOINT is such an act."""
    allowed = {entry.lower() for entry in settings.OUTGOING_ALLOW}
    if settings.HF_ENDPOINT != settings.PUBLIC_HUB:
        allowed.add(host_and_port(settings.HF_ENDPOINT))
    return allowed


def is_public(address: str) -> bool:
    """Whether an IP address is one of the public internet, looking into the IPv6 disguises."""
    parsed = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(parsed, ipaddress.IPv6Address):
        inside = parsed.ipv4_mapped or parsed.sixtofour
        if parsed in TRANSLATED:
            inside = ipaddress.IPv4Address(int(parsed) & 0xFFFFFFFF)
        if inside is not None:
            return is_public(str(inside))
        if parsed.teredo is not None:
            return False
    return parsed.is_global and not parsed.is_multicast


def checked_addresses(host: str, port: int) -> list[str]:
    """The addresses of a host, all of them public, or the host listed.

    Raises OutgoingRefused naming the one that is not, httpcore2.ConnectError for an unknown name.
    """
    addresses = resolve(host, port)
    if f"{host.lower()}:{port}" not in listed():
        # One private answer among public ones is an attempt, not an accident: refuse them all.
        for address in addresses:
            if not is_public(address):
                raise OutgoingRefused(
                    f"{host}:{port} is at {address}, which is not on the public internet; an "
                    f"admin can allow it with OUTGOING_ALLOW={host}:{port}"
                )
    return addresses


class GuardedBackend(httpcore2.SyncBackend):
    """Opens TCP connections to public or listed addresses, and to nothing else."""

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.NetworkStream:
        addresses = checked_addresses(host, port)
        trouble: Exception | None = None
        for address in addresses:
            try:
                return super().connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
                trouble = error
        raise trouble or httpcore2.ConnectError(f"{host} has no address")

    def connect_unix_socket(self, path: str, *args: Any, **kwargs: Any) -> httpcore2.NetworkStream:
        raise OutgoingRefused(f"{path}: unix sockets are not the internet")


def resolve(host: str, port: int) -> list[str]:
    """The addresses of a name, each once, in the order in which to try them."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise httpcore2.ConnectError(f"{host} cannot be resolved: {error}") from error
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class GuardedTransport(httpx2.HTTPTransport):
    """httpx2's transport over guarded connections; proxies of the environment are not used."""

    def __init__(self) -> None:
        super().__init__()
        self._pool.close()
        # httpx2 2.16 has no argument for the backend. A test asserts that a private address gets
        # no connection, so a release that stops reading `_pool` cannot pass unseen.
        self._pool = httpcore2.ConnectionPool(
            ssl_context=httpx2.create_ssl_context(),
            max_connections=20,
            keepalive_expiry=5.0,
            network_backend=GuardedBackend(),
        )


def guarded_client(transport: httpx2.BaseTransport | None = None, **options: Any) -> httpx2.Client:
    """A client whose every connection, redirects included, passes the gate; timeouts are on."""
    chosen: dict[str, Any] = {
        "timeout": httpx2.Timeout(
            settings.OUTGOING_TIMEOUT_S, connect=min(CONNECT_S, settings.OUTGOING_TIMEOUT_S)
        ),
        "follow_redirects": True,
        "max_redirects": 5,
    }
    chosen |= options
    return httpx2.Client(transport=transport or GuardedTransport(), **chosen)
