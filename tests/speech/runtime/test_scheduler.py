"""Engines on an event loop: who is due first is stepped first, and waking up costs what is ready."""

import asyncio
import contextlib

import numpy as np

from loquent.speech.runtime.engine import Engine
from loquent.speech.runtime.pipeline import Pipeline
from loquent.speech.runtime.scheduler import Scheduler


def noise(samples, seed=0):
    return np.random.default_rng(seed).integers(-20_000, 20_000, samples, np.int16)


def test_engines_take_turns_in_the_order_of_their_deadlines(band_energy, tones):
    now, order = [0.0], []
    engines = {name: Engine(task, 2, clock=lambda: now[0]) for name, task in tasks(band_energy, tones).items()}
    names = {engine: name for name, engine in engines.items()}
    scheduler = Scheduler(engines.values(), on_step=lambda engine, count, seconds: order.append((names[engine], count)))
    hears, says = engines["hear"].open(), engines["say"].open()

    async def main():
        now[0] = 1.0
        says.feed("abc d ")
        now[0] = 2.0
        hears.feed(noise(1600 * 3))
        for stream in (hears, says):
            scheduler.attach(stream, lambda: advance(now))
        running = asyncio.create_task(scheduler.run())
        while any(engine.waiting or any(s.busy for s in (hears, says)) for engine in engines.values()):
            await asyncio.sleep(0.01)
        running.cancel()

    asyncio.run(main())
    scheduler.shut_down()
    # The words were first; then neither waits longer than one step of the other.
    assert order[:6] == [("say", 1), ("hear", 1)] * 3
    assert [name for name, _ in order].count("hear") == 3


def advance(now):
    now[0] += 1.0


def tasks(band_energy, tones):
    return {"hear": band_energy.BandEnergy(), "say": tones.Tones()}


def test_a_pipeline_is_stepped_through_all_its_stages(band_energy, swapped, tones):
    stages = {"swap": Engine(swapped.Swapped()), "say": Engine(tones.Tones())}
    alone = Pipeline.open({"swap": Engine(swapped.Swapped()), "say": Engine(tones.Tones())}, stream="p")
    expected = alone.push("some words to be said ") + alone.finish()
    scheduler, events = Scheduler(stages.values()), []

    async def main():
        stream = Pipeline.open(stages, stream="p")
        over = asyncio.Event()

        def listen():
            events.extend(stream.drain())
            if stream.done:
                over.set()

        scheduler.attach(stream, listen)
        running = asyncio.create_task(scheduler.run())
        for letter in "some words to be said ":
            stream.feed(letter)
            scheduler.wake()
            await asyncio.sleep(0)
        stream.end()
        scheduler.wake()
        await over.wait()
        running.cancel()
        scheduler.detach(stream)

    asyncio.run(main())
    scheduler.shut_down()
    for stage in stages:
        assert [e for e in events if e.stage == stage] == [e for e in expected if e.stage == stage]
    assert all(engine.active == 0 for engine in stages.values())


def test_waking_up_costs_what_is_ready_and_not_what_is_open(band_energy):
    class Counted(band_energy.BandEnergy):
        asked = 0

        def wants(self, memo):
            self.asked += 1
            return super().wants(memo)

    def cost(idle):
        task = Counted()
        engine = Engine(task, idle + 1)
        for _ in range(idle):
            engine.open()
        session = engine.open()
        task.asked = 0
        session.feed(noise(1600))
        engine.next_deadline()
        assert engine.step() == 1
        return task.asked

    assert cost(500) == cost(0)


def test_a_packet_costs_the_same_however_much_waits(band_energy):
    """Tiny packets behind a long backlog: each is copied once, whatever waits before it."""
    session = Engine(band_energy.BandEnergy(), 1).open(sample_rate=192_000)
    session.feed(noise(192_000 * 9))
    inbox = session.inbox
    moved = []
    for _ in range(10_000):
        before = inbox._raw._buffer
        session.feed(b"\0\0")
        moved.append(inbox._raw._buffer is not before)
    assert sum(moved) <= 1
    assert inbox.received == 192_000 * 9 + 10_000


def test_engines_come_and_go(band_energy):
    """One that is removed is stepped until its streams are over, and no other notices."""

    async def main():
        first, second = (Engine(band_energy.BandEnergy(), 2) for _ in range(2))
        scheduler = Scheduler([first], max_load=1e9)
        running = asyncio.create_task(scheduler.run())
        scheduler.add(second)
        assert scheduler.engines == (first, second)
        sessions = [engine.open() for engine in (first, second)]
        events = [[], []]
        for session, taken in zip(sessions, events, strict=True):
            scheduler.attach(session, lambda session=session, taken=taken: taken.extend(session.drain()))
        removal = asyncio.create_task(scheduler.remove(second))
        for session in sessions:
            session.feed(noise(16_000))
        scheduler.wake()
        while min(map(len, events)) < 20:
            await asyncio.sleep(0)
        assert not removal.done()
        assert second in scheduler.engines
        scheduler.detach(sessions[1])
        await removal
        assert scheduler.engines == (first,)
        with contextlib.suppress(asyncio.CancelledError):
            running.cancel()
            await running
        scheduler.shut_down()
        return events

    first, second = asyncio.run(main())
    assert [event.to_dict() | {"stream": ""} for event in first] == [
        event.to_dict() | {"stream": ""} for event in second
    ]


def test_a_stage_that_cannot_step_takes_the_one_before_it_along(swapped):
    """Both are on one engine, and the first one was to be stepped, too."""

    class Broken(swapped.Swapped):
        def wants(self, memo):
            if memo.capitals:
                raise RuntimeError("no idea")
            return super().wants(memo)

    engine = Engine(Broken(), 3)
    stream = Pipeline({"first": engine.open(), "second": engine.open()})
    other = engine.open()
    first, second = stream.sessions
    for session in (first, second, other):
        session.feed("one two ")
    second.memo.capitals = True
    assert engine.step() == 1
    assert [event.text for event in other.drain()] == [" two one#2"]
    assert [event.type for event in stream.drain()] == ["failure"]
    assert engine.active == 1
