"""A voice whose models break their contract ends the stream that it happens to, and leaves no trace in others."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from loquent.speech.runtime.engine import Engine
from loquent.speech.runtime.events import Failure, Speech

GOOD, BAD = "Hello there my friend. We like the fine day. ", "Be a zoo today then, friend. And on with zebras. "
FAULTS = {
    "no numbers": lambda sound: dataclasses.replace(sound, phones=sound.phones * torch.nan),
    "infinite": lambda sound: dataclasses.replace(sound, curves=sound.curves + torch.inf),
    "no frames": lambda sound: dataclasses.replace(sound, durations=sound.durations * 0),
    "fewer than none": lambda sound: dataclasses.replace(sound, durations=-sound.durations),
    "more frames than curves": lambda sound: dataclasses.replace(sound, durations=sound.durations + 5),
    "another size": lambda sound: dataclasses.replace(sound, phones=sound.phones[:, :2]),
}


@pytest.mark.parametrize("context", ["words", "sentence"])
@pytest.mark.parametrize("fault", FAULTS)
def test_the_stream_ends_alone_and_its_slot_is_as_new(toy_task, monkeypatch, fault, context):
    alone = Engine(toy_task).open(stream="s", seed=1).push(GOOD)
    real, z = toy_task.voice.acoustics, toy_task.voice.alphabet["z"]
    monkeypatch.setattr(
        toy_task.voice,
        "acoustics",
        lambda windows: [FAULTS[fault](real([one])[0]) if z in one.phones else real([one])[0] for one in windows],
    )
    engine = Engine(toy_task, capacity=2, max_batch=1)
    good, bad = engine.open(stream="s", seed=1), engine.open(context=context)
    good.feed(GOOD)
    bad.feed(BAD)
    while engine.step():
        pass
    assert isinstance(bad.drain()[-1], Failure)
    for events in (good.drain(), engine.open(stream="s", seed=1).push(GOOD)):
        assert [event.to_dict() for event in events] == [event.to_dict() for event in alone]
        for one, other in zip(events, alone, strict=True):
            if isinstance(one, Speech):
                np.testing.assert_allclose(one.samples, other.samples, atol=1e-5)
