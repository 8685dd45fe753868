"""Speech to speech: what a voice says keeps up with the speaker, and nothing is left out."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from loquent.speech.audio.files import Audio
from loquent.speech.nn.state import State
from loquent.speech.runtime.engine import Engine
from loquent.speech.runtime.events import Event, Final, Speech, Translation, Word
from loquent.speech.runtime.pipeline import Pipeline
from loquent.speech.runtime.task import Port, Turn
from loquent.speech.text.words import Text, WordChunk
from loquent.translate.spoken.interpreter import Interpreter
from loquent.translate.task import TranslationTask
from loquent.tts.following import pace
from loquent.tts.task import SpeechTask

NOISE = np.random.default_rng(1).standard_normal(24_000).astype(np.float32) / 10
SLOW = 0.25  # the toy voice speaks its phones in 30 ms
SENTENCE = "Extraordinarily uncharacteristic responsibilities."


class Longer:
    """A translator that says something long for every five words."""

    takes = gives = Port("text")
    fingerprint = "longer"

    def __init__(self, swapped: ModuleType) -> None:
        self.Options = swapped.SwapOptions
        self.start = swapped.Swapped().start

    def initial_state(self, slots: int) -> State:
        return State()

    def wants(self, memo: Any) -> int:
        return 5

    def launch(self, inputs: Sequence[WordChunk], state: State, rows: torch.Tensor, memos: list[Any]) -> Any:
        return inputs

    def read(self, pending: Sequence[WordChunk]) -> list[Turn]:
        turns = []
        for chunk in pending:
            end = chunk.begin + sum(len(word.text) for word in chunk.words)
            events: list[Event] = []
            if chunk.words:
                events = [Translation(text=f" {SENTENCE}", span=(chunk.begin, end)), Final(text="", start=0, end=0)]
            turns.append(Turn(events, chunk.last))
        return turns

    def interrupt(self, memo: Any, played_s: float | None = None) -> list[Event]:
        return []

    def end(self, memo: Any) -> None: ...


def spoken(events: list[Event]) -> list[Speech]:
    return [event for event in events if isinstance(event, Speech)]


def test_three_stages_in_a_row_obey_the_laws(
    task_laws: ModuleType, band_energy: ModuleType, swapped: ModuleType, speaking: SpeechTask
) -> None:
    tasks = {"recognize": band_energy.BandEnergy(), "translate": swapped.Swapped(), "speak": speaking}
    opener = task_laws.in_a_row(tasks, sample_rate=16_000, follow=True, most_lag_s=0.5, chunk_ms=500)
    task_laws.check_task(opener, [NOISE, NOISE[:15_000]], examples=2, atol=1e-5)


def test_a_long_talk_is_followed_within_bounds(swapped: ModuleType, speaking: SpeechTask) -> None:
    # For ten minutes the translation takes the voice 1.4 times the time of its source, then half of it.
    speaking = SpeechTask(speaking.voice, speaking.phonemizer, chunk_ms=1000)
    alone = spoken(Engine(speaking).open(speed=SLOW).push(f"{SENTENCE} "))
    length = alone[-1].end
    engines = {"translate": Engine(Longer(swapped)), "speak": Engine(speaking)}
    stream = Pipeline.open(engines, speed=SLOW, follow=True, most_lag_s=4.0)
    time_s, told, lates, paces, ends = 0.0, list[str](), list[float](), list[float](), list[float]()
    while time_s < 660:
        time_s += length / 1.4 if time_s < 600 else 2 * length
        speech = spoken(stream.push(Text(" uno dos tres cuatro cinco", time_s, whole=True)))
        told += [event.text for event in speech]
        lates.append(speech[0].start - time_s)
        ends.append(speech[-1].end - speech[0].start)
        paces.append(pace(stream.sessions[-1].memo))
        assert all(event.start >= event.emission_time - 1e-3 for event in speech)
    told += [event.text for event in spoken(stream.finish())]
    assert "".join(told).split() == SENTENCE.split() * len(lates)  # no text is lost
    busy = round(600 / (length / 1.4))
    assert max(lates) <= 4.0 + length  # late for a bounded time …
    assert max(lates[busy // 2 : busy]) <= 1.05 * max(lates[: busy // 2])  # … that does not add up
    assert 1.2 < max(paces) <= 1.5
    assert min(paces) == paces[0] == paces[-1] == 1.0  # and the tempo returns
    assert ends[-1] == pytest.approx(ends[0], rel=0.02)
    assert lates[-1] == pytest.approx(0.0, abs=1e-2)


def test_speech_is_where_it_is_heard(band_energy: ModuleType, swapped: ModuleType, speaking: SpeechTask) -> None:
    tasks = {"recognize": band_energy.BandEnergy(), "translate": swapped.Swapped()}
    interpreter = Interpreter(tasks, speaking, source="es", target="en", defaults={"chunk_ms": 500})
    made = interpreter.interpret(Audio(NOISE, 16_000))
    assert made.audio is not None
    assert made.audio.sample_rate == speaking.gives.sample_rate
    rate = made.audio.sample_rate
    assert made.segments
    for before, after in itertools.pairwise([None, *made.segments]):
        assert after.spoken is not None
        first, last = after.spoken
        assert np.abs(made.audio.samples[round(first * rate) : round(last * rate)]).max() > 0
        assert first >= after.start
        assert before is None or before.spoken[1] <= first
    quiet = round(min(segment.spoken[0] for segment in made.segments) * rate)
    assert not made.audio.samples[:quiet].any()


def test_a_session_tells_every_stage(band_energy: ModuleType, swapped: ModuleType, speaking: SpeechTask) -> None:
    tasks = {"recognize": band_energy.BandEnergy(), "translate": swapped.Swapped()}
    stream = Interpreter(tasks, speaking, source="es", target="en").session()
    events = stream.push(NOISE[:9600]) + stream.finish()
    kinds = {(event.stage, type(event)) for event in events}
    assert {("recognize", Word), ("translate", Translation), ("speak", Speech)} <= kinds


def test_a_language_that_no_voice_speaks_is_refused(toy: ModuleType, speaking: SpeechTask) -> None:
    tasks = {"translate": TranslationTask(toy.Mirror())}
    with pytest.raises(ValueError, match=r"no voice for Spanish \(es\): this one speaks English \(en\).*captions"):
        Interpreter(tasks, speaking, source="en", target="es")


def test_a_voice_without_a_clock_is_refused(toy: ModuleType, swapped: ModuleType) -> None:
    task = swapped.Swapped()
    task.languages = ("es",)
    with pytest.raises(ValueError, match="clock"):
        Interpreter({"translate": TranslationTask(toy.Mirror())}, task, source="en", target="es")
