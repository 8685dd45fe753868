"""The client of chat servers: what it sends, and servers that are down, slow, or no chat servers."""

from __future__ import annotations

import logging
import socket
from typing import Any

import pytest

from loquent.speech.agent.chat_client import MOST_LINE, ChatServer
from loquent.speech.agent.reply import MOST_REPLY, ChatError, Reply

HELLO: list[Any] = [{"role": "user", "content": "Hello."}]


def whole(reply: Reply) -> str:
    reply.wait()
    if reply.error is not None:
        raise reply.error
    return reply.take()


def answers(body: bytes, status: int = 200, kind: str = "text/event-stream", **headers: str) -> Any:
    """An act of the scripted server."""

    def act(handler: Any) -> None:
        handler.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(body)), **headers}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body)

    return act


def test_a_reply_is_streamed(chat_server) -> None:
    chat_server.script = ["It is noon. Ça va?"]
    news: list[None] = []
    server = ChatServer(chat_server.url + "/", "small", key="sesame", max_tokens=50)
    reply = server.ask(HELLO, lambda: news.append(None))
    assert whole(reply) == "It is noon. Ça va? "
    assert len(news) >= 6  # a piece each, and the end
    assert chat_server.asked == [{"model": "small", "messages": HELLO, "stream": True, "max_tokens": 50}]
    assert chat_server.paths == ["/v1/chat/completions"]
    assert chat_server.headers[0]["Authorization"] == "Bearer sesame"
    assert "sesame" not in repr(server)


def test_events_as_other_servers_write_them(chat_server) -> None:
    body = (
        b': comment\r\n\r\nevent: message\r\ndata: {"choices": [{"delta": {"role": "assistant"}}]}\r\n\r\n'
        b'data:{"choices": [{"delta": {"content": "Hi \\ud83d"}, "finish_reason": null}]}\n\n'
        b'data: {"choices": [], "usage": {"total_tokens": 3}}\n\n'
        b'data: {"choices": [{"delta": {"content": "you"}, "finish_reason": "stop"}]}\n\n'
    )
    chat_server.script = [answers(body)]
    assert whole(ChatServer(chat_server.url + "/chat/completions", "m").ask(HELLO, lambda: None)) == "Hi \ufffdyou"
    assert chat_server.paths == ["/v1/chat/completions"]


@pytest.mark.parametrize(
    ("act", "code", "message"),
    [
        (answers(b"<html>hello</html>", kind="text/html"), "chat_broken", "no event stream"),
        (answers(b"data: {not json\n\n"), "chat_broken", "no chat completion"),
        (answers(b"data: []\n\n"), "chat_broken", "no chat completion"),
        (answers(b'data: {"choices": [{"delta": {"content": 5}}]}\n\n'), "chat_broken", "no chat completion"),
        (answers(b'data: {"choices": ' + b"[" * 20_000 + b"\n\n"), "chat_broken", "no chat completion"),
        (answers(b'data: {"error": {"message": "overloaded"}}\n\n'), "chat_failed", "says that it failed"),
        (answers(b"data: " + b"x" * 3 * MOST_LINE), "chat_broken", "more than a reply can have"),
        (answers(b'data: {"choices": [{"delta": {"content": "We"}}]}\n\n'), "chat_broken", "broke off in the middle"),
        (answers(b"", 401), "chat_refused", "status 401"),
        (answers(b"", 302, Location="http://169.254.169.254/"), "chat_refused", "status 302"),
        (lambda handler: handler.wfile.write(b"SSH-2.0-OpenSSH_9.6\r\n"), "chat_broken", "what is no answer"),
    ],
)
def test_what_is_no_reply_is_told(chat_server, act, code: str, message: str) -> None:
    chat_server.script = [act]
    with pytest.raises(ChatError, match=message) as failed:
        whole(ChatServer(chat_server.url, "m").ask(HELLO, lambda: None))
    assert failed.value.code == code
    assert len(chat_server.asked) == 1  # no redirect is followed, nothing is tried again


def test_a_server_that_is_down() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        with pytest.raises(ChatError, match=r"cannot be reached; is it running\?") as failed:
            whole(ChatServer(url, "m").ask(HELLO, lambda: None))
    assert failed.value.code == "chat_unreachable"


@pytest.mark.parametrize("pieces", [(), ("Well, ",)])
def test_a_server_that_says_nothing(chat_server, pieces: tuple[str, ...]) -> None:
    chat_server.script = [chat_server.hold(*pieces)]
    reply = ChatServer(chat_server.url, "m", first_s=0.1, gap_s=0.1).ask(HELLO, lambda: None)
    reply.wait()
    assert reply.take() == "".join(pieces)
    assert reply.error is not None
    assert reply.error.code == "chat_timeout"
    assert chat_server.hung_up.wait(10)


def test_a_server_that_sends_a_byte_now_and_then(chat_server) -> None:
    def drip(handler: Any) -> None:
        chat_server.begin(handler)
        while True:
            handler.wfile.write(b":")
            handler.connection.settimeout(0.02)
            try:
                if handler.connection.recv(1) == b"":
                    raise ConnectionResetError
            except TimeoutError:
                pass

    chat_server.script = [drip]
    with pytest.raises(ChatError, match=r"took more than 0\.2 s") as failed:
        whole(ChatServer(chat_server.url, "m", gap_s=5, total_s=0.2).ask(HELLO, lambda: None))
    assert failed.value.code == "chat_timeout"
    assert chat_server.hung_up.wait(10)


def test_a_reply_without_an_end_is_cut(chat_server) -> None:
    def endless(handler: Any) -> None:
        chat_server.begin(handler)
        while True:
            handler.wfile.write(b'data: {"choices": [{"delta": {"content": "and so on "}}]}\n\n')

    chat_server.script = [endless]
    assert len(whole(ChatServer(chat_server.url, "m").ask(HELLO, lambda: None))) == MOST_REPLY
    assert chat_server.hung_up.wait(10)


def test_a_reply_that_is_dropped_hangs_up(chat_server) -> None:
    chat_server.script = [chat_server.hold("Well")]
    reply = ChatServer(chat_server.url, "m").ask(HELLO, lambda: None)
    reply.close()
    reply.wait()
    assert (reply.take(), reply.error) == ("", None)


def test_the_key_is_in_no_log(chat_server, caplog: pytest.LogCaptureFixture) -> None:
    chat_server.script = [answers(b"no such key: sesame", 401)]
    with caplog.at_level(logging.DEBUG), pytest.raises(ChatError) as failed:
        whole(ChatServer(chat_server.url, "m", key="sesame").ask(HELLO, lambda: None))
    assert "(the key)" in caplog.text
    assert "sesame" not in caplog.text + str(failed.value)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("localhost:8080/v1", "http://HOST"),
        ("file:///etc/passwd", "http://HOST"),
        ("http://", "http://HOST"),
        ("http://a:b/v1", "cannot be read"),
        ("http://user:secret@host/v1", "no user, query or fragment"),
        ("http://host/v1?key=1", "no user, query or fragment"),
        ("http://host/v1 x", "printable ASCII"),
        ("http://hóst/", "printable ASCII"),
    ],
)
def test_urls_that_are_none(url: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as failed:
        ChatServer(url, "m")
    assert "secret" not in str(failed.value)


@pytest.mark.parametrize("key", ["", " ", "a\nb", "ключ"])
def test_keys_that_are_none(key: str) -> None:
    with pytest.raises(ValueError, match="has to be printable ASCII"):
        ChatServer("http://host", "m", key)
