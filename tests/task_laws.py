"""The laws of whole streams, tried on a task of any kind: packets, neighbours, snapshots."""

from __future__ import annotations

import contextlib
import copy
import functools
import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from unittest import mock

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from loquent.speech.nn.streaming import Chunk
from loquent.speech.runtime.engine import Engine
from loquent.speech.runtime.events import Event, Speech
from loquent.speech.runtime.pipeline import Pipeline
from loquent.speech.runtime.stream import Stream
from loquent.speech.runtime.task import Shaped
from loquent.speech.text.words import Draft, Text

FLUSH = object()  # in a text, where it is flushed

waiting_refused: Callable[[], Any] = contextlib.nullcontext  # the fixture that loads this sets that of `conftest`

# A way to open a stream on engines of some capacity: `opener(capacity, max_batch)(name)`.
Opener = Callable[[int, int], Callable[[str], Stream]]


def on_engine(task: Any, **options: Any) -> Opener:
    """Streams of one task."""

    def opener(capacity: int, max_batch: int) -> Callable[[str], Stream]:
        engine = Engine(task, capacity, max_batch)
        return lambda name: engine.open(stream=name, **options)

    return opener


def in_a_row(tasks: dict[str, Any], **options: Any) -> Opener:
    """Pipelines of tasks by the names of their stages."""

    def opener(capacity: int, max_batch: int) -> Callable[[str], Stream]:
        engines = {name: Engine(task, capacity, max_batch) for name, task in tasks.items()}
        return lambda name: Pipeline.open(engines, stream=name, **options)

    return opener


def check_task(opener: Opener, inputs: Sequence[Any], *, examples: int = 15, atol: float = 0.0) -> None:
    """Fail unless streams obey the laws on ``inputs``.

    - Any packets: pushed in any pieces, or fed whole before anything is stepped, an input gives the same events.
    - Any neighbours: streams that share engines, in any order of feeding, stepping and draining, give what each gives
      alone.
    - Static mode: in batches of few shapes, whose launches wait for nothing, streams give the same.
    - A stream is a value: saved at any point and restored, it goes on alike, and so does one rolled back.

    Args:
        opener: opens streams (`on_engine`, `in_a_row`).
        inputs: a few inputs: audio (N,) or (N, channels); or a text, a list of str, `Text`, `Draft` and `FLUSH`.
        examples: cuts that are tried.
        atol: by how much samples may differ; 0 is bit for bit.
    """
    expected = [whole(opener(1, 1)("s"), one) for one in inputs]
    assert all(expected), "an input gives no events: give more of it"

    @settings(
        max_examples=examples, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck)
    )
    @given(seed=st.integers(0, 2**32 - 1))
    def any_packets(seed: int) -> None:
        rng = random.Random(seed)
        at = rng.randrange(len(inputs))
        stream, events = opener(1, 1)("s"), list[Event]()
        for packet in cut(inputs[at], rng):
            give(stream, packet)
            if rng.random() < 0.7:
                events += stream.run()
        same(events + stream.finish(), expected[at])

    @settings(
        max_examples=examples, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck)
    )
    @given(seed=st.integers(0, 2**32 - 1))
    def any_neighbours(seed: int) -> None:
        side_by_side(random.Random(seed))

    @settings(
        max_examples=examples // 2 + 1,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(seed=st.integers(0, 2**32 - 1))
    def any_static_batch(seed: int) -> None:
        with static_engines():
            side_by_side(random.Random(seed))

    def side_by_side(rng: random.Random) -> None:
        room = rng.randint(2, 4)
        open_stream = opener(room, rng.randint(1, room))
        waiting = [rng.randrange(len(inputs)) for _ in range(5)]
        live: list[tuple[int, Stream, list[Any], list[Event]]] = []
        while waiting or live:
            if waiting and len(live) < room and rng.random() < 0.4:
                at = waiting.pop()
                live.append((at, open_stream("s"), cut(inputs[at], rng), []))
            if not live:
                continue
            at, stream, packets, events = entry = rng.choice(live)
            move = rng.choice(["feed", "feed", "step", "drain", "vanish"])
            if move == "feed" and packets:
                give(stream, packets.pop(0))
                if not packets:
                    stream.end()
            elif move == "step":
                session = rng.choice(stream.sessions)
                session.engine.step()
            elif move == "drain":
                events += stream.drain()
                if stream.done:
                    same(events + stream.drain(), expected[at])
                    live.remove(entry)
            elif move == "vanish" and rng.random() < 0.1:
                stream.close()
                live.remove(entry)

    @settings(
        max_examples=examples, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck)
    )
    @given(seed=st.integers(0, 2**32 - 1))
    def any_interruption(seed: int) -> None:
        rng = random.Random(seed)
        at = rng.randrange(len(inputs))
        packets = cut(inputs[at], rng)
        position = rng.randint(0, len(packets))
        open_stream = opener(3, 3)
        open_stream("other")
        stream = open_stream("s")
        events = [event for packet in packets[:position] for event in pushed(stream, packet)]
        saved, size = stream.snapshot(), stream.nbytes
        rest = [event for packet in packets[position:] for event in pushed(stream, packet)] + stream.finish()
        same(events + rest, expected[at])
        for _ in range(2):  # the first continuation leaves no trace
            again = _restored(stream, saved)
            assert again.nbytes == size
            more = [event for packet in packets[position:] for event in pushed(again, packet)] + again.finish()
            same(more, rest)

    def same(got: list[Event], wanted: list[Event]) -> None:
        assert by_stage(got, atol) == by_stage(wanted, atol)
        for one, other in zip(samples_of(got), samples_of(wanted), strict=True):
            np.testing.assert_allclose(one, other, rtol=0, atol=atol)

    any_packets()
    any_neighbours()
    any_static_batch()
    any_interruption()


@contextlib.contextmanager
def static_engines() -> Iterator[None]:
    """Engines that are made meanwhile run in static mode, and the launches of their tasks must wait for nothing."""
    make = Engine.__init__

    def make_static(self: Engine, task: Any, *args: Any, **kwargs: Any) -> None:
        guarded = copy.copy(task)
        guarded.launch = functools.partial(_unwaiting, task)
        make(self, guarded, *args, **kwargs, static=True)

    with mock.patch.object(Engine, "__init__", make_static):
        yield


def _unwaiting(task: Any, inputs: Any, state: Any, rows: Any, memos: list[Any]) -> Any:
    """`Task.launch` of a task in static mode."""
    if isinstance(inputs, Chunk):
        assert inputs.static
        assert len(inputs.data) == len(rows) == 1 << (len(memos) - 1).bit_length()
        if isinstance(task, Shaped):
            assert inputs.data.shape[1] in task.widths
    with waiting_refused():
        return task.launch(inputs, state, rows, memos)


def whole(stream: Stream, one: Any) -> list[Event]:
    """The events of an input that comes whole."""
    if isinstance(one, list):
        return [event for piece in one for event in pushed(stream, piece)] + stream.finish()
    return stream.push(one) + stream.finish()


def give(stream: Stream, packet: Any) -> None:
    """Feed a packet, or flush."""
    if packet is FLUSH:
        stream.feed_flush()
    else:
        stream.feed(packet)


def pushed(stream: Stream, packet: Any) -> list[Event]:
    """Feed a packet, or flush, and step."""
    give(stream, packet)
    return stream.run()


def cut(one: Any, rng: random.Random) -> list[Any]:
    """An input in pieces."""
    if not isinstance(one, list):
        edges = sorted({0, len(one), *(rng.randint(0, len(one)) for _ in range(rng.randint(0, 8)))})
        return [one[a:b] for a, b in itertools.pairwise(edges)] or [one]
    pieces: list[Any] = []
    for piece in one:
        if piece is FLUSH or isinstance(piece, Draft):
            pieces.append(piece)
            continue
        text = piece.text if isinstance(piece, Text) else piece
        edges = sorted({0, len(text), *(rng.randint(0, len(text)) for _ in range(rng.randint(0, 5)))})
        spans = list(itertools.pairwise(edges))
        if isinstance(piece, Text):
            pieces += [Text(text[a:b], piece.time_s, piece.whole and b == len(text)) for a, b in spans]
        else:
            pieces += [text[a:b] for a, b in spans]
    return pieces


def by_stage(events: list[Event], atol: float = 0.0) -> dict[str, list[Any]]:
    """Events of each stage, in order; the order between stages is that in which they were stepped.

    Confidences are left out: their last digit may depend on the size of a batch. So are samples if they may differ.
    """
    stages: dict[str, list[Any]] = {}
    for event in events:
        values = {name: value for name, value in event.to_dict().items() if name != "confidence"}
        samples = None
        if isinstance(event, Speech):
            samples = event.samples.shape if atol else event.samples.tobytes()
        stages.setdefault(event.stage, []).append((values, samples))
    return stages


def samples_of(events: list[Event]) -> list[np.ndarray]:
    """The samples of the events that have some."""
    return [event.samples for event in events if isinstance(event, Speech)]


def _restored(stream: Stream, saved: bytes) -> Stream:
    if isinstance(stream, Pipeline):
        return Pipeline.restore(saved, {session.stage: session.engine for session in stream.sessions})
    return stream.sessions[0].engine.restore(saved)
