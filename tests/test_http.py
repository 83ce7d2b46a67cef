"""The outgoing gate: what is private and not listed gets no connection, let alone a byte."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from pytest_django.fixtures import Settings

from rlhf_platform.http import OutgoingRefused, guarded_client, is_public


class Listener:
    """Accepts connections on a loopback port and counts them; answers a redirect if told to."""

    def __init__(self, redirect_to: str = "") -> None:
        self._redirect_to = redirect_to
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self.accepted = 0
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            self.accepted += 1
            with connection:
                connection.recv(65536)
                head = "302 Found" if self._redirect_to else "200 OK"
                place = f"Location: {self._redirect_to}\r\n" if self._redirect_to else ""
                reply = f"HTTP/1.1 {head}\r\n{place}Content-Length: 0\r\nConnection: close\r\n\r\n"
                connection.sendall(reply.encode())

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(5)


@pytest.fixture
def neighbour() -> Iterator[Listener]:
    listener = Listener()
    yield listener
    listener.close()


def test_a_loopback_port_nobody_listed_gets_no_connection(neighbour: Listener) -> None:
    with guarded_client() as client, pytest.raises(OutgoingRefused, match="OUTGOING_ALLOW"):
        client.post(f"http://127.0.0.1:{neighbour.port}/", content=b"secret")
    assert neighbour.accepted == 0


def test_a_listed_port_is_reached(neighbour: Listener, settings: Settings) -> None:
    settings.OUTGOING_ALLOW = [f"127.0.0.1:{neighbour.port}"]
    with guarded_client() as client:
        assert client.get(f"http://127.0.0.1:{neighbour.port}/").status_code == 200


def test_a_hub_that_the_admin_named_is_reached(neighbour: Listener, settings: Settings) -> None:
    settings.HF_ENDPOINT = f"http://127.0.0.1:{neighbour.port}"
    with guarded_client() as client:
        assert client.get(f"http://127.0.0.1:{neighbour.port}/").status_code == 200


@pytest.mark.parametrize(
    "address",
    ["169.254.169.254", "10.0.0.1", "192.168.1.1", "172.16.0.1", "100.64.0.1",
     "0.0.0.0",  # noqa: S104 - an address to ask, not to listen on
     "[::1]", "[fd00:ec2::254]", "[fe80::1]", "[::ffff:127.0.0.1]", "[64:ff9b::7f00:1]",
     "[2002:7f00:1::]", "localhost", "2130706433", "0x7f000001", "127.1"],
)  # fmt: skip
def test_private_addresses_in_every_disguise_are_refused(address: str) -> None:
    with guarded_client() as client, pytest.raises(OutgoingRefused):
        client.get(f"http://{address}/latest/meta-data/")


@pytest.mark.parametrize(
    "address", ["93.184.216.34", "8.8.8.8", "2606:4700:4700::1111", "64:ff9b::808:808"]
)
def test_public_addresses_are_public(address: str) -> None:
    assert is_public(address)


def test_a_redirect_to_a_private_address_is_not_followed(
    neighbour: Listener, settings: Settings
) -> None:
    known = Listener(redirect_to=f"http://127.0.0.1:{neighbour.port}/inside")
    settings.OUTGOING_ALLOW = [f"127.0.0.1:{known.port}"]
    with guarded_client() as client, pytest.raises(OutgoingRefused):
        client.get(f"http://127.0.0.1:{known.port}/")
    known.close()
    assert (known.accepted, neighbour.accepted) == (1, 0)


def answering(monkeypatch: pytest.MonkeyPatch, *answers: list[str]) -> list[str]:
    """A resolver that gives these answers for example.test, in turn; returns what was asked."""
    asked: list[str] = []
    real = socket.getaddrinfo

    def getaddrinfo(host: str, port: int, *args: Any, **kwargs: Any) -> Any:
        if host != "example.test":
            return real(host, port, *args, **kwargs)
        asked.append(host)
        found = answers[min(len(asked), len(answers)) - 1]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, port)) for ip in found]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return asked


@pytest.mark.parametrize("answer", [["127.0.0.1"], ["93.184.216.34", "127.0.0.1"]])
def test_a_name_with_a_private_address_is_refused(
    neighbour: Listener, monkeypatch: pytest.MonkeyPatch, answer: list[str]
) -> None:
    answering(monkeypatch, answer)
    with guarded_client() as client, pytest.raises(OutgoingRefused, match=r"127\.0\.0\.1"):
        client.get(f"http://example.test:{neighbour.port}/")
    assert neighbour.accepted == 0


def test_a_name_that_changes_its_answer_is_asked_only_once(
    neighbour: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    # 192.0.2.0/24 would be refused; 198.41.0.4 is public and answers nobody on this port.
    asked = answering(monkeypatch, ["198.41.0.4"], ["127.0.0.1"])
    timeout = httpx2.Timeout(0.3)
    with guarded_client(timeout=timeout) as client, pytest.raises(httpx2.TransportError):
        client.get(f"http://example.test:{neighbour.port}/")
    assert asked == ["example.test"]
    assert neighbour.accepted == 0
