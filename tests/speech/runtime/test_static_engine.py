"""Static mode on the CPU: batches of few shapes, launches ahead of reads, graphs that are made once for each shape."""

import asyncio
import gc
import weakref

import numpy as np
import pytest
import torch

from loquent.speech.nn.streaming import Chunk
from loquent.speech.runtime.engine import Engine
from loquent.speech.runtime.events import Failure
from loquent.speech.runtime.replay import Replay
from loquent.speech.runtime.scheduler import Scheduler


def noise(samples, seed=0):
    return np.random.default_rng(seed).integers(-20_000, 20_000, samples, np.int16)


def recording(band_energy, log):
    """A task that notes what it is asked to do."""

    class Recording(band_energy.BandEnergy):
        widths = (1600, 4800)

        def launch(self, inputs, state, rows, memos):
            log.append(("launch", tuple(inputs.data.shape), rows.tolist(), inputs.length.tolist()))
            return log[-1][2][: len(memos)], super().launch(inputs, state, rows, memos)

        def read(self, pending):
            rows, pending = pending
            log.append(("read", rows))
            return super().read(pending)

    return Recording()


def test_batches_have_the_next_power_of_two_of_rows_and_one_of_the_widths(band_energy):
    log = []
    engine = Engine(recording(band_energy, log), 5, static=True)
    assert engine.state.slots == 6
    sessions = [engine.open(chunk_ms=100 if i < 3 else 250) for i in range(5)]
    for session in sessions:
        session.feed(noise(4000))
        session.end()
    assert engine.step() == 3  # those of one width
    assert engine.step() == 2
    (_, shape, rows, lengths), _, (_, wide_shape, wide_rows, wide_lengths), _ = log
    assert (shape, lengths) == ((4, 1600), [1600, 1600, 1600, 0])
    assert (wide_shape, wide_lengths) == ((2, 4800), [4000, 4000])
    assert rows == [*(session.slot for session in sessions[:3]), 5]
    assert wide_rows == [session.slot for session in sessions[3:]]


def test_the_last_slot_is_no_streams(band_energy):
    engine = Engine(band_energy.BandEnergy(), 3, static=True)
    assert sorted(engine.open().slot for _ in range(3)) == [0, 1, 2]
    assert engine.bytes_per_slot == Engine(band_energy.BandEnergy(), 1).bytes_per_slot


@pytest.mark.parametrize("static", [True, False])
def test_the_next_batch_is_launched_before_the_last_one_is_read(band_energy, static):
    log = []
    engine = Engine(recording(band_energy, log), 3, max_batch=1, static=static)
    scheduler = Scheduler([engine])
    sessions = [engine.open() for _ in range(3)]

    async def main():
        for i, session in enumerate(sessions):
            session.feed(noise(3200, i))
            session.end()
            scheduler.attach(session, lambda: None)
        running = asyncio.create_task(scheduler.run())
        while not all(session.done for session in sessions):
            await asyncio.sleep(0.001)
        running.cancel()

    asyncio.run(main())
    scheduler.shut_down()
    kinds = [entry[0] for entry in log]
    assert kinds.count("launch") == kinds.count("read") == 9  # two chunks of each, and the end
    if static:
        assert kinds[:3] == ["launch", "launch", "read"]
        assert max(kinds[:n].count("launch") - kinds[:n].count("read") for n in range(len(kinds))) == 2
    else:
        assert kinds == ["launch", "read"] * 9
    reads = [entry[1] for entry in log if entry[0] == "read"]
    assert reads == [entry[2][: len(entry[2])] for entry in log if entry[0] == "launch"]  # in the order of launching
    for i, session in enumerate(sessions):
        alone = Engine(band_energy.BandEnergy()).open(stream=session.stream)
        assert session.drain() == alone.push(noise(3200, i)) + alone.finish()


def test_a_launch_that_fails_ends_its_streams_while_another_is_under_way(band_energy):
    class Broken(band_energy.BandEnergy):
        def launch(self, inputs, state, rows, memos):
            if memos[0].padding:
                raise RuntimeError("broke down")
            return super().launch(inputs, state, rows, memos)

    engine = Engine(Broken(), 2, max_batch=1, static=True)
    scheduler = Scheduler([engine])
    good, bad = engine.open(), engine.open(padding=1)

    async def main():
        for session in (good, bad):
            session.feed(noise(1600))
            session.end()
            scheduler.attach(session, lambda: None)
        running = asyncio.create_task(scheduler.run())
        while not (good.done and bad.done):
            await asyncio.sleep(0.001)
        running.cancel()

    asyncio.run(main())
    scheduler.shut_down()
    assert isinstance(bad.drain()[-1], Failure)
    assert not any(isinstance(event, Failure) for event in good.drain())


class Graphs:
    """What makes graphs of calls as CUDA does: a capture runs nothing, a replay writes into the capture's results."""

    def __init__(self):
        self.captured = self.replayed = 0

    def __call__(self, run):
        self.captured += 1
        outputs = run()  # of empty rows, which change nothing

        def replay():
            self.replayed += 1
            for mine, new in zip(outputs, run(), strict=True):
                mine.copy_(new)

        return replay, outputs


def test_a_graph_is_made_once_for_each_shape_and_pool(band_energy):
    graphs = Graphs()
    states = [band_energy.BandEnergy().initial_state(3) for _ in range(2)]

    def count(chunk, state, rows, weight):
        state.frames[rows] += chunk.length * weight
        return state.frames[rows], chunk.data.sum(1)

    replay = Replay(count, graphs)

    def call(state, rows, steps, weight):
        data = torch.full((len(rows), steps), 2.0)
        chunk = Chunk(data, torch.full((len(rows),), steps), torch.zeros(len(rows), dtype=torch.bool), static=True)
        return replay(chunk, state, torch.tensor(rows), torch.full((len(rows),), weight))

    first = call(states[0], [0, 1], 4, 1)
    second = call(states[0], [1, 0], 4, 10)
    assert (graphs.captured, graphs.replayed) == (1, 2)
    assert [first[0].tolist(), second[0].tolist()] == [[4, 4], [44, 44]]  # the first results are kept
    assert second[1].tolist() == [8.0, 8.0]
    call(states[0], [0], 4, 1)
    call(states[0], [0, 1], 5, 1)
    call(states[1], [0, 1], 4, 1)
    assert graphs.captured == 4
    assert states[0].frames.tolist() == [53, 49, 0]
    assert states[1].frames.tolist() == [4, 4, 0]


def test_the_graphs_of_a_pool_go_with_it(band_energy):
    """As where one task serves an engine for each stream: its pools would never be given back."""
    captured = []

    def capture(run):
        captured.append(weakref.ref(run))
        return (lambda: None), run()

    replay = Replay(lambda chunk, state, rows: (state.frames[rows],), capture)
    chunk = Chunk(torch.zeros(1, 2), torch.tensor([2]), torch.tensor([False]), static=True)
    for count in (1, 2):
        state = band_energy.BandEnergy().initial_state(2)
        replay(chunk, state, torch.tensor([0]))
        replay(chunk, state, torch.tensor([0]))
        assert len(captured) == count
        pool = weakref.ref(state)
        del state
        gc.collect()
        assert pool() is captured[-1]() is None
        assert not replay._graphs


def test_without_graphs_the_function_is_called(band_energy):
    calls = []
    replay = Replay(lambda chunk, state, rows: calls.append(chunk.static) or (chunk.data,))
    for static in (True, False):
        chunk = Chunk(torch.zeros(1, 2), torch.tensor([2]), torch.tensor([False]), static)
        (data,) = replay(chunk, band_energy.BandEnergy().initial_state(1), torch.tensor([0]))
        assert data is chunk.data
    assert calls == [True, False]
