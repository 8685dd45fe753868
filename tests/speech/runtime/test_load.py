"""What a machine can keep up with is measured on its steps, and streams beyond it are not let in."""

import dataclasses

import numpy as np
import pytest

from loquent.speech.runtime.engine import Engine, EngineFull
from loquent.speech.runtime.load import Pace, machine_load
from loquent.speech.runtime.scheduler import Scheduler
from loquent.speech.text.words import Text

CHUNK_S = 0.1


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def slow(band_energy, clock, per_stream_s, per_step_s=0.0):
    """A model whose steps take a known time on a clock of ours."""

    class Slow(band_energy.BandEnergy):
        def launch(self, inputs, state, rows, memos):
            clock.now += per_step_s + per_stream_s * len(memos)
            return super().launch(inputs, state, rows, memos)

    return Engine(Slow(), 64, clock=clock)


def opened(scheduler, engine):
    with scheduler.place([engine]):
        return engine.open()


def played(engine, sessions, chunks=3):
    """Streams that all get a chunk, several times."""
    for _ in range(chunks):
        for session in sessions:
            session.feed(np.zeros(1600, np.int16))
        engine.step()


@pytest.mark.parametrize(
    ("per_stream_s", "per_step_s", "fitting"), [(0.0099, 0.0, 9), (0.00099, 0.05, 40), (0.2, 0.0, 1)]
)
def test_as_many_streams_are_let_in_as_the_machine_keeps_up_with(band_energy, per_stream_s, per_step_s, fitting):
    engine = slow(band_energy, Clock(), per_stream_s, per_step_s)
    scheduler = Scheduler([engine], max_load=0.9)
    sessions, refusal = [], None
    while refusal is None:
        try:
            sessions.append(opened(scheduler, engine))
            played(engine, sessions)
        except EngineFull as full:
            refusal = full
    assert refusal.reason == "load"
    assert "one stream more would need" in str(refusal)
    assert len(sessions) == fitting
    if fitting > 1:
        assert scheduler.load == pytest.approx((per_step_s + fitting * per_stream_s) / CHUNK_S)
        assert scheduler.load <= 0.9
    assert scheduler.capacity([engine]) == (fitting if fitting > 1 else 0)
    scheduler.shut_down()


def test_before_anything_is_measured_everybody_is_let_in(band_energy):
    engine = slow(band_energy, Clock(), 1.0)
    scheduler = Scheduler([engine])
    assert [opened(scheduler, engine) for _ in range(10)]
    assert scheduler.load == 0
    scheduler.shut_down()


def test_an_old_measure_keeps_no_first_stream_out(band_energy):
    clock = Clock()
    engine = slow(band_energy, clock, 1.0)
    scheduler = Scheduler([engine])
    session = opened(scheduler, engine)
    played(engine, [session])
    with pytest.raises(EngineFull, match="1000% of this machine"):
        opened(scheduler, engine)
    session.close()
    assert opened(scheduler, engine)
    scheduler.shut_down()


def test_an_old_measure_of_an_idle_engine_keeps_nobody_out_for_ever(band_energy):
    clock = Clock()
    hears, says = slow(band_energy, clock, 0.01), slow(band_energy, clock, 0.2)
    scheduler = Scheduler([hears, says])
    first, second = opened(scheduler, hears), opened(scheduler, says)
    played(hears, [first])
    played(says, [second])
    second.close()
    with pytest.raises(EngineFull, match="one stream more would need"):
        opened(scheduler, says)
    clock.now += 11.0
    assert opened(scheduler, says)
    with pytest.raises(EngineFull, match="one stream more would need"):
        opened(scheduler, says)  # until the first has been measured
    scheduler.shut_down()


def test_all_engines_share_the_machine(band_energy):
    clock = Clock()
    first, second = slow(band_energy, clock, 0.03), slow(band_energy, clock, 0.03)
    scheduler = Scheduler([first, second], max_load=0.95)
    sessions = {first: [], second: []}
    for streams in (1, 2) * 3:
        second.pace.observe(streams, 0.03 * streams, 0.1 * streams)
    for engine in (first, second, first):
        sessions[engine].append(opened(scheduler, engine))
        for one, some in sessions.items():
            played(one, some)
    with pytest.raises(EngineFull):
        opened(scheduler, second)
    assert scheduler.capacity([first]) == 2
    assert scheduler.capacity([second]) == 1
    scheduler.shut_down()


def test_a_place_is_kept_while_a_stream_is_opened(band_energy):
    engine = Engine(band_energy.BandEnergy(), 1)
    scheduler = Scheduler([engine])
    with scheduler.place([engine]), pytest.raises(EngineFull, match="all 1 streams are in use"):
        opened(scheduler, engine)
    assert opened(scheduler, engine)
    scheduler.shut_down()


def test_one_slow_step_is_no_measure():
    pace = Pace()
    for seconds in (0.01, 0.01, 5.0, 0.01):
        pace.observe(2, seconds, 0.2)
    assert pace.load(2) == pytest.approx(0.1)
    pace.observe(7, 9.0, 0.7)  # once: not believed
    assert pace.load(3) == pytest.approx(0.1)  # one more may cost nothing
    assert pace.load(6) == pytest.approx(0.2)  # many more do not
    assert pace.load(0) == 0
    for _ in range(3):
        pace.observe(1, 0.006, 0.1)
    assert pace.load(3) == pytest.approx(0.14)
    assert pace.load(8) == pytest.approx(0.36)


def test_speech_that_is_made_counts_as_what_is_played(tones):
    clock = Clock()
    engine = Engine(tones.Tones(), 4, clock=clock)
    session = engine.open()
    session.feed("abcdefgh ")
    session.end()
    while not session.done:
        batch = engine.collect()
        turns = engine.compute(batch)
        clock.now += 0.01
        engine.deliver(batch, turns)
        session.drain()
    assert engine.pace.load(1) == pytest.approx(0.01 / (0.04 * 8 / 9), rel=0.15)


def test_text_counts_as_the_time_that_it_stands_for(swapped):
    clock = Clock()

    class Slow(swapped.Swapped):
        def launch(self, inputs, state, rows, memos):
            clock.now += 0.03
            return super().launch(inputs, state, rows, memos)

    engine = Engine(Slow(), 4, clock=clock)
    sessions = [engine.open() for _ in range(3)]
    for number in range(1, 9):
        for session in sessions:
            session.feed(Text(f"word{number} ", 0.25 * number))
        engine.step()
    assert engine.pace.stream_seconds == pytest.approx(0.5)  # two words
    assert engine.pace.load(3) == pytest.approx(0.03 / 0.5)


def test_engines_that_take_turns_make_as_many_steps_as_each_other():
    often, seldom = Pace(), Pace()
    for streams in (1, 2) * 3:
        often.observe(streams, 0.02 + 0.01 * streams, 0.2 * streams)
        seldom.observe(streams, 0.04 + 0.01 * streams, 0.4 * streams)
    paces = {"often": often, "seldom": seldom}
    assert machine_load(paces, {"seldom": 4, "often": 0}) == pytest.approx((0.04 + 0.01 * 4) / 0.4)
    # Where the other one makes a step every 0.2 s, half of the four have input by then.
    assert machine_load(paces, {"seldom": 4, "often": 3}) == pytest.approx((0.04 + 0.01 * 2 + 0.02 + 0.01 * 3) / 0.2)


def relaxing(band_energy):
    class Relaxing(band_energy.BandEnergy):
        def relaxed(self, options):
            larger = [ms for ms in (200, 400, 800) if ms > options.chunk_ms]
            return [dataclasses.replace(options, chunk_ms=ms) for ms in larger]

    return Relaxing()


def test_the_fuller_the_machine_the_larger_the_look_ahead_of_new_streams_until_they_are_refused(band_energy):
    engine = Engine(relaxing(band_energy), 64, clock=Clock())
    scheduler = Scheduler([engine], max_load=0.9)
    for streams in (1, 2) * 3:
        engine.pace.observe(streams, 0.01 * streams, 0.1 * streams)  # a tenth of the machine's time for each
    sessions, refusal = [], None
    while refusal is None:
        try:
            with scheduler.place([engine]) as pressure:
                sessions.append(engine.open(pressure=pressure))
        except EngineFull as full:
            refusal = full
    assert refusal.reason == "load"
    given = [session.options.chunk_ms for session in sessions]
    assert given == [100] * 6 + [200, 400, 800]
    assert [session.memo.chunk_ms for session in sessions] == given
    assert [session.relaxed for session in sessions] == [{}] * 6 + [{"chunk_ms": ms} for ms in (200, 400, 800)]
    scheduler.shut_down()


def test_a_stream_that_asked_for_the_largest_look_ahead_gets_it(band_energy):
    session = Engine(relaxing(band_energy)).open(chunk_ms=800, pressure=1.0)
    assert session.options.chunk_ms == 800
    assert session.relaxed == {}


def test_tasks_of_one_latency_are_never_relaxed(band_energy):
    session = Engine(band_energy.BandEnergy()).open(pressure=1.0)
    assert (session.options.chunk_ms, session.relaxed) == (100, {})
