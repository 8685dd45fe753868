"""Wyoming's framing: the same events whatever the pieces, and refusals rather than exceptions."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import socket
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from wyoming.event import Event, async_read_event, write_event

from loquent.speech.net.dialect import MessageRefused, Phase
from loquent.speech.net.messages import Fail
from loquent.speech.net.models import models_of
from loquent.speech.net.wyoming.framing import Framer, WyomingEvent
from loquent.speech.net.wyoming.requests import WyomingRequest
from loquent.speech.runtime.engine import Engine

VALUES = st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=5)
DATA = st.dictionaries(st.text(max_size=5), VALUES | st.lists(VALUES, max_size=3), max_size=4)
NAMES = st.text("abc-", min_size=1, max_size=9)


def taken(framer: Framer, data: bytes, cut: int) -> list[WyomingEvent]:
    events = []
    for at in range(0, len(data), cut):
        framer.feed(data[at : at + cut])
        while (event := framer.take()) is not None:
            events.append(event)
    return events


@given(st.lists(st.tuples(NAMES, DATA, st.binary(max_size=50)), max_size=4), st.integers(1, 60))
@settings(deadline=None, max_examples=50)
def test_what_the_package_writes_is_read_in_pieces_of_any_size(events: list[Any], cut: int) -> None:
    file = io.BytesIO()
    for kind, data, payload in events:
        write_event(Event(kind, data, payload), file)
    assert taken(Framer(1000, 50), file.getvalue(), cut) == [WyomingEvent(*event) for event in events]


@given(NAMES, DATA, st.binary(max_size=50))
@settings(deadline=None, max_examples=50)
def test_the_package_reads_what_is_written(kind: str, data: dict[str, Any], payload: bytes) -> None:
    async def read() -> Event | None:
        reader = asyncio.StreamReader()
        reader.feed_data(WyomingEvent(kind, data, payload).to_bytes())
        return await async_read_event(reader)

    event = asyncio.run(read())
    assert event is not None
    assert (event.type, event.data, event.payload or b"") == (kind, data, payload)


HEADERS = st.fixed_dictionaries(
    {},
    optional={
        "type": VALUES | NAMES,
        "data": VALUES | DATA,
        "data_length": VALUES | st.integers(),
        "payload_length": VALUES | st.integers() | st.floats(),
    },
)


@given(st.lists(HEADERS.map(lambda header: json.dumps(header).encode() + b"\n") | st.binary(max_size=200), max_size=4))
@settings(deadline=None, max_examples=200)
def test_anything_else_is_refused_and_never_kept_beyond_the_limits(pieces: list[bytes]) -> None:
    framer = Framer(300, 300)
    with contextlib.suppress(MessageRefused):
        for piece in pieces:
            framer.feed(piece)
            while framer.take() is not None:
                pass
            assert len(framer._buffer) <= 600


KINDS = (
    "describe ping transcribe audio-start audio-chunk audio-stop synthesize synthesize-start synthesize-chunk".split()
)
FIELDS = "name language voice text text_format transcript_names rate width channels".split()
LIKELY = VALUES | st.sampled_from(["say", "hear", 16_000, 1, 2, {"name": "say"}, {"language": "en"}, ["Ada"]])


@given(
    st.lists(st.tuples(st.sampled_from([*KINDS, "synthesize-stop"]), st.dictionaries(st.sampled_from(FIELDS), LIKELY)))
)
@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_event_makes_a_request_fail_otherwise_than_by_a_refusal(
    band_energy: Any, tones: Any, events: list[Any]
) -> None:
    models = models_of({"hear": Engine(band_energy.BandEnergy(), 1), "say": Engine(tones.Tones(), 1)})
    request = WyomingRequest(1000, 1000, models)
    for kind, data in events:
        for action in request.receive({"event": WyomingEvent(kind, data, b"\0\0")}):
            assert not isinstance(action, Fail) or request.phase is Phase.CLOSED


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"GET / HTTP/1.1\r\n", "a JSON object"),
        (b"\n", "a JSON object"),
        (b"[1]\n", "a JSON object"),
        (b"\xff\n", "UTF-8"),
        (b'{"data": {}}\n', "'type'"),
        (b'{"type": "ping", "data": []}\n', "'data'"),
        (b'{"type": "ping", "data_length": 2}\n[]', "a JSON object"),
        (b'{"type": "ping", "payload_length": -1}\n', "'payload_length'"),
        (b'{"type": "ping", "payload_length": 99999999999}\n', "'payload_length' may be"),
        (b'{"type": "ping", "data_length": 99999999999}\n', "'data_length' may be"),
        (b"x" * 100_000, "the line of an event"),
    ],
)
def test_a_bad_event_ends_its_connection_and_no_other(start_server: Any, data: bytes, why: str) -> None:
    bound = socket.create_server(("127.0.0.1", 0))
    start_server(wyoming=bound)
    good = b'{"type": "ping"}\n'
    with (
        socket.create_connection(bound.getsockname(), timeout=30) as other,
        socket.create_connection(bound.getsockname(), timeout=30) as client,
    ):
        client.sendall(good + data)
        pong, error = taken(Framer(1000, 0), b"".join(iter(lambda: client.recv(4096), b"")), 1000)
        assert pong.type == "pong"
        assert error.type == "error"
        assert why in error.data["text"]
        other.sendall(good)
        assert [event.type for event in taken(Framer(1000, 0), other.recv(4096), 1000)] == ["pong"]
