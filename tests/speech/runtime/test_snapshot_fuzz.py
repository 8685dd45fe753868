"""Snapshots come from anywhere: whatever is in one, it is continued or refused, and nobody else notices."""

import contextlib
import itertools
import json

import numpy as np
import pytest
import safetensors.torch
import torch

from loquent.speech.nn.attention import RingState
from loquent.speech.nn.state import check_range
from loquent.speech.runtime.engine import Engine
from loquent.speech.runtime.pipeline import Pipeline
from loquent.speech.runtime.snapshot import pack, unpack
from loquent.speech.text.words import Text

WRONG = [
    -1, -(2**63), 2**63, 2**200, 10**4000, 0.5, -0.5, 1e300, float("nan"), float("inf"), True, False, None, "", "x",
    "\ud800", "y" * 100_000, [], [[]], [1, 2, 3], [[0, 1]], [[-5, "m"]], [[10**9, "m"]], {}, {"a": 1}, {"": None},
]  # fmt: skip


def noise(samples, seed=0):
    return np.random.default_rng(seed).integers(-20_000, 20_000, samples, np.int16)


class Counting:
    """A task that counts the memos that were begun and not ended."""

    def counting(self, kind):
        class Counted(kind):
            alive = 0

            def start(self, options):
                memo = super().start(options)
                self.alive += 1
                return memo

            def restore(self, values):
                memo = super().restore(values)
                self.alive += 1
                return memo

            def end(self, memo):
                self.alive -= 1
                super().end(memo)

        return Counted()


@pytest.fixture
def streams(band_energy, tones, swapped):
    """Engines with one stream beside the one to be saved, and that one with its continuation."""

    def audio(session):
        session.push(noise(7000))
        session.marker("m")
        return lambda other: other.push(noise(5000, 1)) + other.finish()

    def text(session):
        session.push(Text("a b c", 1.5))
        session.feed("d e ")
        session.marker("m")
        return lambda other: other.push(Text("six", 9.0)) + other.finish()

    counting = Counting().counting
    return [
        (Engine(counting(band_energy.BandEnergy), 2), {"sample_rate": 44_100, "chunk_ms": 70}, audio, noise),
        (Engine(counting(band_energy.BandEnergy), 2), {}, audio, noise),
        (Engine(counting(tones.Tones), 2), {}, text, lambda n: "abc " * (n // 400)),
        (Engine(counting(swapped.Swapped), 2), {"capitals": True}, text, lambda n: "abc " * (n // 400)),
    ]


def places(value, path=()):
    """Paths to everything in a JSON-able value."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from places(inner, (*path, key))


def changed(value, path, new):
    """A copy with one place changed; `KeyError` as the new value leaves it out."""
    if not path:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    if len(path) == 1 and new is KeyError:
        del copy[path[0]]
    else:
        copy[path[0]] = changed(copy[path[0]], path[1:], new)
    return copy


def packed(header, tensors):
    tensors = {name: tensor.clone().contiguous() for name, tensor in tensors.items()}
    return pack(safetensors.torch.save(tensors, {"session": json.dumps(header)}))


def tried(engine, data, other):
    """Restore and go on, or be refused; the neighbour and the slots are as before either way."""
    alive = engine.task.alive
    before = engine.state.gather([other.slot])
    try:
        session = engine.restore(data)
    except ValueError:
        assert engine.active == 1
    else:
        if not session.inbox.ended:
            session.end()
        with contextlib.suppress(RuntimeError):  # as the option ``break_at`` wishes
            session.run()
        assert engine.active == 1
    assert engine.task.alive == alive
    for (_, mine, _), (_, theirs, _) in zip(before.leaves(), engine.state.gather([other.slot]).leaves(), strict=True):
        assert torch.equal(mine, theirs)
    assert engine.next_deadline() is None


def test_a_header_may_say_anything(streams):
    for engine, options, begin, more in streams:
        other = engine.open()
        other.push(more(1600))
        session = engine.open(**options)
        begin(session)
        header, tensors = unpack(session.snapshot())
        session.close()
        tried(engine, packed(header, tensors), other)
        cases = list(itertools.product(list(places(dict(header)))[1:], [*WRONG, KeyError]))
        for path, new in cases[::5]:  # the values are in another order at every place
            tried(engine, packed(changed(dict(header), path, new), tensors), other)
        for path in places(dict(header)):
            tried(engine, packed(changed(dict(header), path, {"extra": 1}), tensors), other)
        for broken in ([], "x", None, 5, {}):
            tried(engine, packed(broken, tensors), other)


def test_tensors_may_hold_anything(streams):
    for engine, options, begin, more in streams:
        other = engine.open()
        other.push(more(1600))
        session = engine.open(**options)
        begin(session)
        header, tensors = unpack(session.snapshot())
        session.close()
        for name, tensor in tensors.items():
            others = {key: value for key, value in tensors.items() if key != name}
            wrong = [tensor[:-1], torch.cat([tensor, tensor]), tensor[None], tensor.flatten(), tensor.new_zeros(0)]
            wrong += [tensor.double(), tensor.long(), tensor.bool(), tensor.to(torch.uint8)]
            values = (
                (float("nan"), float("inf"), -1e30) if tensor.is_floating_point() else (-1, -(2**63), 2**63 - 1, 2**45)
            )
            wrong += [torch.full_like(tensor, value) for value in values]
            for bad in wrong:
                tried(engine, packed(header, others | {name: bad}), other)
            tried(engine, packed(header, others), other)
            tried(engine, packed(header, others | {name: tensor, "state.extra": tensor}), other)


@pytest.mark.parametrize("value", [-1, -(2**63), 2**44 + 1, 2**63 - 1])
def test_a_position_out_of_range_reaches_no_step(streams, value):
    engine, options, begin, _ = streams[0]
    session = engine.open(**options)
    begin(session)
    header, tensors = unpack(session.snapshot())
    for name in ("state.frames", "inbox.resampler.received"):
        bad = torch.full_like(tensors[name], value)
        with pytest.raises(ValueError, match=r"has values outside 0 … 17592186044416"):
            engine.restore(packed(header, tensors | {name: bad}))


def test_states_say_what_their_indices_may_be():
    class Bounded(RingState):
        def check(self):
            super().check()
            check_range("position", self.position, 0, self.k.shape[2])

    state = Bounded(torch.zeros(1, 1, 4, 2), torch.zeros(1, 1, 4, 2), torch.zeros(1, dtype=torch.long))
    good = {name: tensor.clone() for name, tensor, _ in state.leaves()}
    state.load(good | {"position": torch.tensor([4])})
    with pytest.raises(ValueError, match="'position' has values outside 0 … 4"):
        state.load(good | {"position": torch.tensor([5])})
    with pytest.raises(ValueError, match="'k' has values that are not finite"):
        state.load(good | {"k": torch.full((1, 1, 4, 2), torch.nan)})
    assert int(state.position[0]) == 4
    assert torch.equal(state.k, torch.zeros(1, 1, 4, 2))


def test_a_pipeline_is_checked_whole(band_energy, swapped, tones):
    counting = Counting().counting
    tasks = {"hear": band_energy.BandEnergy, "swap": swapped.Swapped, "say": tones.Tones}
    engines = {name: Engine(counting(task), 2) for name, task in tasks.items()}
    others = [engine.open() for engine in engines.values()]
    stream = Pipeline.open(engines)
    stream.push(noise(7000))
    header, tensors = unpack(stream.snapshot())
    stream.close()
    cases = [packed(changed(dict(header), path, new), tensors) for path in (("stream",), ("stages",)) for new in WRONG]
    for name, tensor in tensors.items():
        rest = {key: value for key, value in tensors.items() if key != name}
        other = next(value for key, value in tensors.items() if key != name)
        wrong = [tensor[:-1], tensor.long(), tensor[None], tensor.new_zeros(0), other, tensor ^ 1]
        cases += [packed(header, rest), *(packed(header, rest | {name: bad}) for bad in wrong)]
    for data in cases:
        with contextlib.suppress(ValueError):
            Pipeline.restore(data, engines).close()
        assert [engine.active for engine in engines.values()] == [1, 1, 1]
        assert [engine.task.alive for engine in engines.values()] == [1, 1, 1]
    assert not any(other.done for other in others)
    restored = Pipeline.restore(packed(header, tensors), engines)
    assert restored.finish()


def test_a_task_that_cannot_go_on_with_what_it_restored_keeps_no_slot(band_energy):
    class Trusting(Counting().counting(band_energy.BandEnergy).__class__):
        def restore(self, values):
            memo = super().restore(values)
            memo.chunk_ms = None
            return memo

    engine = Engine(Trusting(), 1)
    session = engine.open()
    saved = session.snapshot()
    session.close()
    with pytest.raises(ValueError, match="not a snapshot of a stream of this model: TypeError"):
        engine.restore(saved)
    assert (engine.active, engine.task.alive) == (0, 0)
    engine.open()


def test_one_stream_that_breaks_its_memo_is_ended_alone(band_energy):
    engine = Engine(band_energy.BandEnergy(), 2)
    bad, good = engine.open(), engine.open()
    bad.feed(noise(1600))
    good.feed(noise(1600))
    bad.memo.chunk_ms = None
    batch = engine.collect()
    assert batch.sessions == [good]
    assert batch.failed == [bad]
    engine.deliver(batch, engine.compute(batch))
    assert [event.type for event in bad.drain()] == ["failure"]
    assert [event.type for event in good.drain()] == ["partial", "word"]
    assert engine.active == 1
