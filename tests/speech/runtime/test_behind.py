"""Streams that come with a backlog are worked off beside those under way, which hardly notice."""

import numpy as np
import pytest

from loquent.speech.runtime.engine import Engine
from loquent.speech.text.words import Text

CHUNK_S, RATE = 0.3, 16_000


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def engine_of(band_energy, clock, per_step_s, per_stream_s, max_batch=None):
    """A model whose steps take a known time on a clock of ours."""

    class Timed(band_energy.BandEnergy):
        def launch(self, inputs, state, rows, memos):
            clock.now += per_step_s + per_stream_s * len(memos)
            return super().launch(inputs, state, rows, memos)

    return Engine(Timed(), 64, max_batch, clock=clock)


def opened(engine, count):
    return [engine.open(chunk_ms=round(CHUNK_S * 1000)) for _ in range(count)]


def silence(seconds):
    return np.zeros(round(seconds * RATE), np.int16)


def play(engine, clock, sessions, seconds, stall_s=0.0):
    """Feed streams at the pace of their sources, each out of step with the others, and make steps as they come due.

    Args:
        stall_s: for which the machine does something else, after a second.

    Returns:
        How long each chunk waited for its results, in seconds, of all streams.
    """
    start, lags, due = clock.now, [], []
    for i, session in enumerate(sessions):
        first = start + CHUNK_S * (i + 1) / len(sessions)
        due += [(first + CHUNK_S * k, session) for k in range(round(seconds / CHUNK_S))]
    due.sort(key=lambda entry: entry[0])
    came = {session: [] for session in sessions}
    while due or engine.waiting:
        if not engine.waiting:
            clock.now = max(clock.now, due[0][0])
        if stall_s and clock.now > start + 1.0:
            clock.now, stall_s = clock.now + stall_s, 0.0
        while due and due[0][0] <= clock.now:
            time, session = due.pop(0)
            session.feed(silence(CHUNK_S))
            came[session].append(time)
        batch = engine.collect()
        if batch is None:
            continue
        engine.deliver(batch, engine.compute(batch))
        lags += [clock.now - came[session].pop(0) for session in batch.sessions if session in came]
    return lags


@pytest.mark.parametrize(("per_step_s", "per_stream_s"), [(0.0, 0.03), (0.1, 0.005), (0.04, 0.02)])
def test_the_lag_of_running_streams_is_bounded_while_newcomers_catch_up(band_energy, per_step_s, per_stream_s):
    clock = Clock()
    engine = engine_of(band_energy, clock, per_step_s, per_stream_s)
    running = opened(engine, 4)
    play(engine, clock, running, 6.0)
    newcomers = opened(engine, 12)
    for session in newcomers:
        session.feed(silence(6.0))
    lags = play(engine, clock, running, 18.0)
    # The step under way and its own, of half a chunk each; where one size of step was seen, a larger one is a guess.
    assert max(lags) <= 1.2 * CHUNK_S
    assert all(session.inbox.pending < CHUNK_S for session in newcomers)  # none is left behind


def test_nobody_waits_where_all_are_behind(band_energy):
    clock = Clock()
    engine = engine_of(band_energy, clock, 0.0, 0.1)
    running = opened(engine, 1)
    play(engine, clock, running, 2.0)
    running[0].close()
    for session in opened(engine, 10):
        session.feed(silence(5.0))
    assert len(engine.collect().sessions) == 10


def test_a_machine_that_fell_behind_with_running_streams_takes_them_all_together(band_energy):
    clock = Clock()
    engine = engine_of(band_energy, clock, 0.03, 0.01)
    running = opened(engine, 25)  # all in a step: 0.28 s; half of them in a step of half a chunk would never catch up
    play(engine, clock, running, 6.0)
    lags = play(engine, clock, running, 60.0, stall_s=3.0)
    assert max(lags) > 3.0
    assert max(lags[-250:]) < 2 * CHUNK_S


@pytest.mark.parametrize("max_batch", [1, 2, 3])
def test_one_that_is_behind_always_comes_along(band_energy, max_batch):
    clock = Clock()
    engine = engine_of(band_energy, clock, 0.0, 0.2, max_batch)
    behind, *live = opened(engine, 5)
    behind.feed(silence(10.0))
    taken = 0
    for _ in range(20):
        for session in live:
            if not session.ready:
                session.feed(silence(CHUNK_S))
        batch = engine.collect()
        taken += behind in batch.sessions
        assert len(batch.sessions) <= max_batch
        engine.deliver(batch, engine.compute(batch))
    assert taken >= (4 if max_batch == 1 else 20)


def test_streams_of_text_that_are_behind_share_steps(swapped):
    clock = Clock()

    class Timed(swapped.Swapped):
        def launch(self, inputs, state, rows, memos):
            clock.now += 0.02 + 0.001 * len(memos)
            return super().launch(inputs, state, rows, memos)

    engine = Engine(Timed(), 16, clock=clock)
    idle, *behind = [engine.open() for _ in range(9)]
    for number in range(1, 41):
        for session in behind:
            session.feed(Text(f"word{number} ", 0.25 * number))
    batches = []
    while batch := engine.collect():
        batches.append(len(batch.sessions))
        engine.deliver(batch, engine.compute(batch))
        idle.feed(Text("word ", 0.25 * len(batches)))
    assert engine.active == 9
    assert sum(batches) > 8 * 20
    assert len(batches) < 3 * 20  # once the first few are a measure, all of them share a step
