"""Connections that a client leaves unfinished end, there are never too many of them, and others are served."""

import contextlib
import re
import socket
import time

import httpx
import pytest

from loquent.speech.net.limits import Limits

HALF = b"GET /health HTTP/1.1\r\nHost: localhost\r\n"


def url(server, path="/health"):
    return f"http://127.0.0.1:{server.port}{path}"


def half_open(server, data):
    client = socket.create_connection(("127.0.0.1", server.port))
    client.sendall(data)
    return client


def wait_until(condition):
    """Poll a condition that has to come true."""
    limit = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < limit, "it did not happen within 30 s"
        time.sleep(0.01)


def refusals(server, reason):
    text = httpx.get(url(server, "/metrics")).text
    return sum(map(float, re.findall(rf'^loquent_refusals_total{{.*reason="{reason}".*}} (.*)$', text, re.MULTILINE)))


@pytest.mark.parametrize(
    "data",
    [b"", HALF, HALF + b"Upgrade: websocket\r\nConnection: Upgrade\r\n", b"GET /v1/stream HTTP/1.1\r\nUpgr"],
    ids=["nothing", "half a head", "half a handshake", "less of it"],
)
def test_a_request_that_does_not_end_is_hung_up_on(start_server, data):
    server = start_server(limits=Limits(head_timeout_s=0.3))
    with contextlib.ExitStack() as clients:
        waiting = [clients.enter_context(half_open(server, data)) for _ in range(30)]
        assert httpx.get(url(server)).status_code == 200  # others are served meanwhile
        for client in waiting:
            client.settimeout(20)
            answer = b"".join(iter(lambda client=client: client.recv(4096), b""))
            assert answer.startswith(b"HTTP/1.1 408 ")
            assert b"did not end within 0.3 s" in answer
        wait_until(lambda: len(server.service.sockets) == 0)
    assert refusals(server, "head_timeout") == 30


def test_dribbling_does_not_help(start_server):
    server = start_server(limits=Limits(head_timeout_s=0.4))
    with half_open(server, b"GET / HTTP/1.1\r\n") as client, contextlib.suppress(OSError):
        client.settimeout(0.05)
        limit = time.monotonic() + 20
        while time.monotonic() < limit:
            client.sendall(b"X-More: x\r\n")
            with contextlib.suppress(TimeoutError):
                assert client.recv(100).startswith((b"HTTP/1.1 408", b""))
                break
        assert time.monotonic() < limit
    wait_until(lambda: len(server.service.sockets) == 0)


def test_an_idle_connection_is_closed_after_an_answer(start_server):
    server = start_server(limits=Limits(keep_alive_timeout_s=0.2))
    with half_open(server, HALF + b"\r\n") as client:
        client.settimeout(20)
        answer = b"".join(iter(lambda: client.recv(4096), b""))  # to the end: the server hangs up
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert answer.count(b"HTTP/1.1") == 1


def test_a_body_that_is_never_sent_after_its_answer_keeps_nothing_open(start_server):
    server = start_server(limits=Limits(head_timeout_s=0.3, keep_alive_timeout_s=0.3))
    with half_open(server, HALF + b"Content-Length: 100000\r\n\r\n") as client, contextlib.suppress(OSError):
        limit = time.monotonic() + 20
        while time.monotonic() < limit and len(server.service.sockets):
            client.sendall(b"x")
            time.sleep(0.05)
    assert len(server.service.sockets) == 0


def test_an_answer_that_is_not_read_keeps_nothing_open(start_server):
    server = start_server(limits=Limits(send_timeout_s=0.3))
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.connect(("127.0.0.1", server.port))
    with client, contextlib.suppress(OSError):
        client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" * 1000)
        wait_until(lambda: len(server.service.sockets) == 0)


@pytest.mark.parametrize(
    ("limits", "words", "reason"),
    [
        (Limits(max_connections_per_client=3), "3 connections from 127.0.0.1 are open", "connections_per_client"),
        (Limits(max_connections=3, max_connections_per_client=None), "3 connections are open", "connections"),
    ],
)
def test_there_are_never_too_many_connections(start_server, limits, words, reason):
    server = start_server(limits=limits)
    with contextlib.ExitStack() as clients:
        for _ in range(3):
            clients.enter_context(half_open(server, HALF))
        wait_until(lambda: len(server.service.sockets) == 3)
        answer = httpx.get(url(server))
        assert answer.status_code == 503
        assert words in answer.text
    wait_until(lambda: len(server.service.sockets) == 0)
    assert httpx.get(url(server)).status_code == 200
    assert refusals(server, reason) == 1


def test_behind_a_proxy_one_address_may_have_any_number(start_server):
    server = start_server(limits=Limits(max_connections_per_client=None))
    with contextlib.ExitStack() as clients:
        for _ in range(200):
            clients.enter_context(half_open(server, HALF))
        assert httpx.get(url(server)).status_code == 200
