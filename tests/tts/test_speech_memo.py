"""Saved streams of speech come from anywhere: whatever is in one, it is refused, or it goes on to its end."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import safetensors.torch

from loquent.speech.runtime.engine import Engine
from loquent.speech.runtime.snapshot import pack, unpack
from loquent.tts.memo import SpeechMemo

WRONG = [-1, 0, 1, 50, 300, 2**40, 2**44, 2**63, 10**4000, 0.5, 1e300, True, None, "", "x", "\x00", "y" * 5000, [], {}]


@pytest.fixture
def saved(toy_task) -> dict[str, Any]:
    """A stream in the middle of its second utterance."""
    session = Engine(toy_task).open(ssml=True)
    session.push('First part is said. <prosody rate="fast">And <break time="2s"/> then</prosody> it all went on and')
    values: dict[str, Any] = json.loads(json.dumps(session.memo.to_dict()))
    assert json.loads(json.dumps(SpeechMemo.from_dict(values).to_dict())) == values
    return values


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths to everything in a JSON-able value."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from places(inner, (*path, key))


def changed(values: dict[str, Any], path: tuple[Any, ...], new: Any) -> dict[str, Any]:
    """A copy with one place changed."""
    copy = json.loads(json.dumps(values))
    inner = copy
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = new
    return copy


@pytest.mark.parametrize(
    ("path", "bad"),
    [
        (("words", -1, "begin"), 300),
        (("words", -1, "begin"), -1),
        (("words", -1, "end"), 2**60),
        (("words", -1, "rate"), 1e300),
        (("words", -1, "text"), "y" * 5000),
        (("words", -1, "phonemes"), "y" * 5000),
        (("said", 0, "first"), -1),
        (("said", 1, "first"), 0),
        (("said", 1, "begin"), 0),
        (("said", -1, "last"), 2**40),
        (("told",), 0),
        (("frame",), 0),
        (("samples",), 2**40),
        (("silence",), 2**40),
        (("pause",), 2**40),
        (("queued",), 10**7),
        (("offset",), -(2**40)),
        (("at",), 99),
        (("untold",), 99),
    ],
)
def test_a_memo_that_contradicts_itself_is_refused(toy_task, saved, path, bad):
    toy_task.restore(saved)
    with pytest.raises(ValueError, match=r"saved|expected"):
        toy_task.restore(changed(saved, path, bad))


def test_what_is_not_refused_goes_on_to_its_end(toy_task, saved):
    engine = Engine(toy_task)
    session = engine.open(ssml=True)
    session.push("Hello there my good ")
    header, _ = unpack(session.snapshot())
    tensors = {f"state.{name}": tensor for name, tensor, _ in engine.state.gather([0]).leaves()}
    session.close()
    accepted = 0
    for number, path in enumerate(list(places(saved))[1:]):
        for bad in WRONG[number % 4 :: 4]:
            values = {**header, "memo": changed(saved, path, bad)}
            data = pack(safetensors.torch.save(tensors, {"session": json.dumps(values)}))
            try:
                session = engine.restore(data)
            except ValueError:
                assert engine.active == 0
                continue
            accepted += 1
            events = session.finish()
            assert session.done
            assert [event for event in events if event.type == "failure"] == []
            assert all(0 <= event.start <= event.end for event in events if event.type in ("word", "final", "speech"))
            assert all(0 <= event.span[0] <= event.span[1] for event in events if event.type == "speech")
    assert accepted > 20
