"""Many streams in one batch: none of them can tell."""

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loquent.speech.audio.resamplers import Resamplers
from loquent.speech.runtime.engine import Engine, EngineFull
from loquent.speech.runtime.events import Failure


def noise(samples, seed=0):
    return np.random.default_rng(seed).integers(-20_000, 20_000, samples, np.int16)


def alone(band_energy, audio, **options):
    session = Engine(band_energy.BandEnergy(), 1).open(**options)
    return session.push(audio) + session.finish()


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_a_stream_cannot_tell_its_company(band_energy, seed):
    """Streams of several rates join, get packets, are stepped, end or vanish in any order, in any slots and batches."""
    rng = random.Random(seed)
    engine = Engine(band_energy.BandEnergy(), capacity=3, max_batch=rng.randint(1, 3))
    plans = [
        (
            {
                "stream": f"s{index}",
                "sample_rate": rng.choice([16_000, 8_000, 44_100]),
                "chunk_ms": rng.choice([50, 70]),
            },
            noise(rng.randint(0, 20_000), index),
        )
        for index in range(6)
    ]
    waiting, live = plans[::-1], []
    while waiting or live:
        move = rng.choice(["step", "join", "push", "push", "end", "vanish"])
        if move == "step":
            engine.step()
        elif move == "join" and waiting and engine.active < engine.capacity:
            options, audio = waiting.pop()
            live.append((engine.open(**options), options, audio, [0]))
        elif live:
            session, options, audio, position = rng.choice(live)
            if move == "push":
                end = position[0] + rng.randint(0, 9_000)
                session.feed(audio[position[0] : end])
                position[0] = end
                continue
            live = [entry for entry in live if entry[0] is not session]
            if move == "vanish":
                session.close()
            else:
                session.feed(audio[position[0] :])
                assert session.finish() == alone(band_energy, audio, **options)
    assert engine.active == 0


def test_the_pool_is_bounded_and_slots_come_back(band_energy):
    engine = Engine(band_energy.BandEnergy(), 2)
    first, _ = engine.open(), engine.open()
    with pytest.raises(EngineFull, match="all 2 streams are in use"):
        engine.open()
    first.finish()
    third = engine.open(stream="third")
    assert third.push(noise(5000)) + third.finish() == alone(band_energy, noise(5000), stream="third")
    size = engine.nbytes
    assert size == 2 * engine.bytes_per_slot == 2 * 4 * 8


def test_a_wrong_option_takes_no_slot(band_energy):
    engine = Engine(band_energy.BandEnergy(), 1)
    with pytest.raises(ValueError, match="chunk_ms"):
        engine.open(chunk_ms=5)
    with pytest.raises(ValueError, match="outside 4000"):
        engine.open(sample_rate=100)
    with pytest.raises(ValueError, match="unknown: unknown; expected one of chunk_ms, padding, fail_at"):
        engine.open(unknown=1)
    assert engine.active == 0
    session = engine.open()
    with pytest.raises(ValueError, match="padding is fixed"):
        session.configure(padding=1)
    with pytest.raises(ValueError, match="memo: unknown"):
        session.configure(memo=2)


def test_the_longest_waiting_go_first(band_energy):
    now = [0.0]
    engine = Engine(band_energy.BandEnergy(), 3, max_batch=1, clock=lambda: now[0])
    sessions = [engine.open() for _ in range(3)]
    order = []
    for time, index in enumerate([2, 0, 1]):
        now[0] = float(time)
        sessions[index].feed(noise(1600 * 2))
        engine.next_deadline()
    for _ in range(6):
        now[0] += 1
        batch = engine.collect()
        order += [sessions.index(session) for session in batch.sessions]
        engine.deliver(batch, engine.compute(batch))
    assert order == [2, 0, 1, 2, 0, 1]


def test_a_batch_waits_for_company_no_longer_than_asked(band_energy):
    now = [10.0]
    engine = Engine(band_energy.BandEnergy(), 2, max_wait_s=0.5, clock=lambda: now[0])
    first, second = engine.open(), engine.open()
    assert engine.next_deadline() is None
    first.feed(noise(1600))
    assert engine.next_deadline() == 10.5
    now[0] = 10.2
    assert engine.next_deadline() == 10.5
    second.feed(noise(1600))
    assert engine.next_deadline() <= now[0]  # full: at once


def test_a_failing_row_ends_its_stream_alone(band_energy):
    engine = Engine(band_energy.BandEnergy(), 2)
    bad, good = engine.open(stream="bad", fail_at=25), engine.open(stream="good")
    bad.feed(noise(8000))
    events = good.push(noise(8000))
    *committed, failure = bad.drain()
    assert isinstance(failure, Failure)
    assert failure.code == "internal"
    assert "failed at frame 30" in failure.message
    assert len(committed) == 4
    assert engine.active == 1
    events += good.push(noise(8000, 1)) + good.finish()
    assert events == alone(band_energy, np.concatenate([noise(8000), noise(8000, 1)]), stream="good")


def test_a_failing_batch_ends_its_streams_and_no_others(band_energy):
    engine = Engine(band_energy.BandEnergy(), 2)
    bad, good = engine.open(stream="bad", break_at=25), engine.open(stream="good")
    events = good.push(noise(8000))
    bad.feed(noise(8000))
    with pytest.raises(RuntimeError, match="broke down at frame 30"):
        engine.run(bad)
    *committed, failure = bad.drain()
    assert isinstance(failure, Failure)
    assert len(committed) == 4
    assert engine.active == 1
    events += good.push(noise(8000, 1)) + good.finish()
    assert events == alone(band_energy, np.concatenate([noise(8000), noise(8000, 1)]), stream="good")
    reused = engine.open(stream="reused")
    assert reused.push(noise(3000)) + reused.finish() == alone(band_energy, noise(3000), stream="reused")


def test_a_stream_closed_in_the_middle_of_a_step_frees_its_slot_afterwards(band_energy):
    engine = Engine(band_energy.BandEnergy(), 1)
    session = engine.open()
    session.feed(noise(1600))
    batch = engine.collect()
    session.close()
    with pytest.raises(EngineFull):
        engine.open()
    engine.deliver(batch, engine.compute(batch))
    engine.open()


def test_clients_cannot_fill_the_memory_with_resamplers(band_energy):
    engine = Engine(band_energy.BandEnergy(), 1)
    engine.resamplers = Resamplers(most_bytes=2**20)
    for rate in range(8000, 8000 + 25 * 80, 80):
        engine.open(sample_rate=rate).close()
        assert 0 < engine.resamplers.nbytes <= 2**20
    assert engine.resamplers.made == 25
