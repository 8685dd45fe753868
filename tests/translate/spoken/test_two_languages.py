"""Captions in two languages: a recogniser and a translator in a row."""

from __future__ import annotations

from types import ModuleType

import numpy as np

from loquent.speech.audio.files import Audio
from loquent.speech.runtime.events import Final, Partial, Translation, Word
from loquent.translate.spoken.interpreter import Interpreter
from loquent.translate.task import TranslationTask

NOISE = np.random.default_rng(0).standard_normal(24_000).astype(np.float32) / 10


def test_captions_with_drafts_obey_the_laws(toy: ModuleType, task_laws: ModuleType, band_energy: ModuleType) -> None:
    tasks = {"recognize": band_energy.BandEnergy(), "translate": TranslationTask(toy.Mirror())}
    opener = task_laws.in_a_row(tasks, sample_rate=16_000, drafts=True, chunk_ms=500)
    task_laws.check_task(opener, [NOISE, NOISE[:9000]], examples=3)


def test_drafts_change_nothing_that_is_committed(toy: ModuleType, band_energy: ModuleType) -> None:
    tasks = {"recognize": band_energy.BandEnergy(), "translate": TranslationTask(toy.Mirror())}
    interpreter = Interpreter(tasks, source="en", target="es", defaults={"chunk_ms": 250})
    seen = []
    for drafts in (False, True):
        stream = interpreter.session(stream="s", drafts=drafts)
        events = stream.push(NOISE) + stream.finish()
        kept = [event.to_dict() for event in events if isinstance(event, Word | Translation | Final)]
        seen.append([{name: value for name, value in one.items() if name != "sequence"} for one in kept])
        shown = [event for event in events if isinstance(event, Partial) and event.stage == "translate"]
        assert bool(shown) == drafts
    assert seen[0] == seen[1]


def test_each_sentence_has_its_source(toy: ModuleType, band_energy: ModuleType) -> None:
    tasks = {"recognize": band_energy.BandEnergy(), "translate": TranslationTask(toy.Mirror())}
    made = Interpreter(tasks, source="en", target="es").interpret(Audio(NOISE, 16_000))
    assert made.audio is None
    for segment in made.segments:
        assert segment.text.split() == segment.source.split()  # the toy translates a word by itself
        assert segment.start <= segment.end <= segment.committed + 0.01  # the toy rounds to frames
    assert [segment.end for segment in made.segments] == sorted(segment.end for segment in made.segments)
