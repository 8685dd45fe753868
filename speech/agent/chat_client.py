"""A chat model behind an OpenAI-compatible endpoint: one request for every reply, read as it is written.

The address and the key come from whoever runs the agent, never from somebody who talks to it. Redirects are not
followed. Everything that the server sends is bounded, in size and in time.
"""

from __future__ import annotations

import http.client
import json
import logging
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from loquent.speech.agent.conversation import Message
from loquent.speech.agent.reply import ChatError, Reply

log = logging.getLogger(__name__)

MOST_LINE = 1 << 16  # bytes of an event of the server
MOST_BYTES = 1 << 22  # of a whole answer
PATH = "/chat/completions"


@dataclass(frozen=True)
class ChatServer:
    """An endpoint, and what it may take; see `loquent.speech.agent.reply.Chat`.

    url:        such as "http://localhost:8080/v1"; "/chat/completions" is added where it is missing.
    model:      as the server names it.
    key:        sent as ``Authorization: Bearer …``; None for none.
    max_tokens: of a reply.
    connect_s, first_s, gap_s, total_s: seconds to connect, to the first text, between pieces, and in all.

    Raises:
        ValueError: the URL or the key cannot be used.
    """

    url: str
    model: str
    key: str | None = field(default=None, repr=False)
    max_tokens: int = 300
    connect_s: float = 5.0
    first_s: float = 20.0
    gap_s: float = 10.0
    total_s: float = 60.0

    def __post_init__(self) -> None:
        try:
            parts = urlsplit(self.url)
            port = parts.port
        except ValueError as error:
            raise ValueError(f"the URL of a chat server cannot be read: {error}") from error
        if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
            raise ValueError(
                "the URL of a chat server is http://HOST/… or https://HOST/…, such as http://localhost:8080/v1"
            )
        if parts.username is not None or parts.query or parts.fragment:
            raise ValueError("the URL of a chat server has no user, query or fragment; give its key by itself")
        if any(character.isspace() or not character.isprintable() for character in self.url) or not self.url.isascii():
            raise ValueError("the URL of a chat server is printable ASCII without spaces")
        if self.key is not None and not (self.key.isascii() and self.key.isprintable() and self.key.strip()):
            raise ValueError("the key of a chat server has to be printable ASCII, as HTTP headers are")
        if self.max_tokens < 1 or min(self.connect_s, self.first_s, self.gap_s, self.total_s) <= 0:
            raise ValueError("the limits of a chat server have to be positive")

    def ask(self, messages: Sequence[Message], notify: Callable[[], None]) -> Reply:
        """Begin a reply."""
        told = {"model": self.model, "messages": list(messages), "stream": True, "max_tokens": self.max_tokens}
        return Reply(_Request(self, json.dumps(told).encode()), notify)


class _Request:
    """One request; called in the thread of its reply."""

    def __init__(self, server: ChatServer, body: bytes) -> None:
        self.server, self.body = server, body
        self._socket: socket.socket | None = None
        self._late = False

    def __call__(self, reply: Reply) -> None:
        server, parts = self.server, urlsplit(self.server.url)
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        connection = kind(parts.hostname or "", parts.port, timeout=server.connect_s)
        # A socket's own time-out begins again with every byte; this one does not.
        timer = threading.Timer(server.total_s, self._give_up)
        timer.daemon = True
        timer.start()
        try:
            connection.connect()
            self._socket = connection.sock  # which the connection forgets when the server says that it will close
            reply.on_close(self._hang_up)
            self._exchange(connection, parts.path.rstrip("/"), reply)
        except (OSError, http.client.HTTPException, ValueError, ChatError) as error:
            if not reply.closed:
                raise self._explained(error) from error
        finally:
            timer.cancel()
            connection.close()

    def _exchange(self, connection: http.client.HTTPConnection, path: str, reply: Reply) -> None:
        headers = {"Content-Type": "application/json", "Accept": "text/event-stream"}
        if self.server.key is not None:
            headers["Authorization"] = f"Bearer {self.server.key}"
        self._patience(self.server.first_s)
        connection.request("POST", path if path.endswith(PATH) else path + PATH, self.body, headers)
        with connection.getresponse() as response:
            if response.status != 200:
                self._log_refusal(response)
                raise ChatError("chat_refused", f"the chat server answered with status {response.status}")
            for piece in pieces_of(_lines(response)):
                self._patience(self.server.gap_s)
                if not reply.put(piece):
                    return

    def _log_refusal(self, response: http.client.HTTPResponse) -> None:
        body = b""
        with suppress(OSError, http.client.HTTPException):
            body = response.read(500)
        text = body.decode("utf-8", "replace")
        if self.server.key is not None:
            text = text.replace(self.server.key, "(the key)")
        log.warning("the chat server refused a request with status %d: %r", response.status, text)

    def _patience(self, seconds: float) -> None:
        if self._socket is not None:
            self._socket.settimeout(seconds)

    def _give_up(self) -> None:
        self._late = True
        self._hang_up()

    def _hang_up(self) -> None:
        """Wake the thread that reads, from another one."""
        if self._socket is not None:
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)

    def _explained(self, error: Exception) -> ChatError:
        server = self.server
        if self._late:
            return ChatError("chat_timeout", f"the chat server took more than {server.total_s:g} s for a reply")
        if isinstance(error, ChatError):
            return error
        if isinstance(error, TimeoutError):
            what = "sent nothing for too long" if self._socket else f"could not be reached in {server.connect_s:g} s"
            return ChatError("chat_timeout", f"the chat server {what}")
        log.warning("no reply from the chat server: %s: %s", type(error).__name__, error)
        if self._socket is None:
            return ChatError("chat_unreachable", "the chat server cannot be reached; is it running?")
        return ChatError("chat_broken", "the chat server broke off, or sent what is no answer")


def pieces_of(lines: Iterator[bytes]) -> Iterator[str]:
    """The text of a reply out of the server-sent events that it comes in.

    Raises:
        ChatError: they are not those of a chat completion, or say that it failed, or end before it does.
    """
    for line in lines:
        name, _, value = line.partition(b":")
        if name in (b"", b"event", b"id", b"retry"):  # the first are comments and empty lines
            continue
        if name != b"data":
            raise ChatError("chat_broken", "the chat server sent no event stream; is the URL that of its API?")
        if value.strip() == b"[DONE]":
            return
        piece, finished = _chunk(value)
        if piece:
            yield piece
        if finished:
            return
    raise ChatError("chat_broken", "the chat server broke off in the middle of a reply")


def _chunk(data: bytes) -> tuple[str, bool]:
    """The text of an event, and whether it is the last."""
    try:
        chunk: Any = json.loads(data)
        if isinstance(chunk, dict) and chunk.get("error"):
            log.warning("the chat server failed: %.300r", chunk["error"])
            raise ChatError("chat_failed", "the chat server says that it failed; the log has its words")
        choices = chunk["choices"]
        if not choices:  # of one that tells what was used
            return "", False
        content = choices[0].get("delta", {}).get("content")
        if content is not None and not isinstance(content, str):
            raise TypeError
        return content or "", choices[0].get("finish_reason") is not None
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        raise ChatError("chat_broken", "the chat server sent an event that is no chat completion") from error


def _lines(response: http.client.HTTPResponse) -> Iterator[bytes]:
    rest, read = b"", 0
    while data := response.read1(MOST_LINE):
        read += len(data)
        *lines, rest = (rest + data).split(b"\n")
        yield from (line.rstrip(b"\r") for line in lines)
        if len(rest) > MOST_LINE or read > MOST_BYTES:
            raise ChatError("chat_broken", "the chat server sent more than a reply can have")
    if rest:
        yield rest
