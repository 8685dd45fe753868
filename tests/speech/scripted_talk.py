"""A talk with a script: a chat server that streams given replies, a recogniser that hears given texts, and an agent."""

from __future__ import annotations

import dataclasses
import functools
import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import torch

from loquent.asr import Recognizer
from loquent.speech.agent.activity import ActivityTask
from loquent.speech.agent.agent import Agent
from loquent.speech.audio.endpoint import DEFAULT_RULES
from loquent.speech.audio.vad import SileroVad
from loquent.speech.nn.state import State
from loquent.speech.runtime.engine import Engine
from loquent.speech.runtime.events import Final
from loquent.speech.runtime.task import Port, Turn
from loquent.tts import Synthesizer

RATE = 16_000


def sent(text: str, **more: Any) -> bytes:
    """An event of a chat completion."""
    chunk = {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}], **more}
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


DONE = b"data: [DONE]\n\n"


class ScriptedChat:
    """A server on a real socket.

    Attributes:
        script: what each request gets, in order, the last one again and again: a text, streamed in words; or a function
            of the handler.
        asked: the bodies of the requests, and ``headers`` their headers.
        hung_up: set when a client closes a connection that `hold` keeps open.
    """

    def __init__(self) -> None:
        self.script: list[str | Callable[[BaseHTTPRequestHandler], None]] = ["Fine."]
        self.asked: list[Mapping[str, Any]] = []
        self.headers: list[Mapping[str, str]] = []
        self.paths: list[str] = []
        self.hung_up = threading.Event()
        self._lock = threading.Lock()
        scripted = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with scripted._lock:
                    act = scripted.script[min(len(scripted.asked), len(scripted.script) - 1)]
                    scripted.asked.append(body)
                    scripted.headers.append(dict(self.headers))
                    scripted.paths.append(self.path)
                self.close_connection = True
                try:
                    scripted.answer(self, act) if isinstance(act, str) else act(self)
                except OSError:
                    scripted.hung_up.set()

            def log_message(self, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"
        self._thread = threading.Thread(target=self._server.serve_forever, args=[0.01])
        self._thread.start()

    def begin(self, handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "text/event-stream")
        handler.end_headers()

    def answer(self, handler: BaseHTTPRequestHandler, text: str) -> None:
        self.begin(handler)
        for word in text.split(" "):
            handler.wfile.write(sent(word + " "))
        handler.wfile.write(DONE)

    def hold(self, *pieces: str) -> Callable[[BaseHTTPRequestHandler], None]:
        """An act that sends pieces and then waits for the client to go."""

        def act(handler: BaseHTTPRequestHandler) -> None:
            self.begin(handler)
            for piece in pieces:
                handler.wfile.write(sent(piece))
            if handler.connection.recv(1) == b"":
                self.hung_up.set()

        return act

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@dataclass
class Nothing(State):
    slot: torch.Tensor


@dataclass
class Heard:
    samples: int = 0

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class NoOptions:
    """There are none."""


class ScriptedEar:
    """A recogniser that hears given texts at given seconds, whatever is said."""

    takes, gives = Port("audio", RATE), Port("text")
    fingerprint, Options = "scripted ear", NoOptions

    def __init__(self, *script: tuple[float, str]) -> None:
        self.script = script

    def initial_state(self, slots: int) -> Nothing:
        return Nothing(torch.zeros(slots, 1))

    def start(self, options: Any) -> Heard:
        return Heard()

    def restore(self, values: dict[str, Any]) -> Heard:
        return Heard(**values)

    def wants(self, memo: Heard) -> int:
        return 4800

    def launch(self, inputs: Any, state: Any, rows: Any, memos: list[Heard]) -> Any:
        return inputs, memos

    def read(self, pending: Any) -> list[Turn]:
        inputs, memos = pending
        turns = []
        for memo, count, last in zip(memos, inputs.length.tolist(), inputs.last.tolist(), strict=True):
            before, memo.samples = memo.samples, memo.samples + count
            new = [(s, text) for s, text in self.script if before < s * RATE <= memo.samples]
            turns.append(Turn([Final(text=text, start=s - 1.5, end=s - 0.5) for s, text in new], last))
        return turns

    def end(self, memo: Heard) -> None:
        pass


@functools.cache
def _tasks() -> tuple[Any, Any, Any]:
    rules = tuple(dataclasses.replace(rule, silence_s=0.5) if rule.name == "pause" else rule for rule in DEFAULT_RULES)
    hear = Recognizer.from_pretrained("tiny.en").streaming_task(rules=rules)
    return (
        hear,
        ActivityTask(SileroVad.from_pretrained()),
        Synthesizer.from_pretrained("loquent/voice").streaming_task(),
    )


def agent_with(chat: Any, capacity: int = 1, ear: Any = None) -> Agent:
    """An agent around a chat model, with a real voice, and a real recogniser if it is given none."""
    hear, notice, speak = _tasks()
    engines = Engine(ear or hear, capacity), Engine(notice, capacity), Engine(speak, capacity, ahead_s=0.5)
    return Agent(*engines, chat, instructions="Be brief.")
