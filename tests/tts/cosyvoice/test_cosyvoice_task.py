"""CosyVoice on the runtime: the laws, utterances, what is told of the text, interruption, abuse, the public face."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from loquent.speech.runtime.engine import Engine
from loquent.speech.runtime.events import Event, Final, Speech
from loquent.tts.cosyvoice.model import CosyVoice
from loquent.tts.cosyvoice.task import CosyVoiceTask

TEXT = "the quick fox says so, and lazy dogs jump!"
SENTENCE = "so the dog and the fox and the quick dogs jump over it!"


@pytest.fixture(scope="module")
def task(cosyvoice: CosyVoice) -> CosyVoiceTask:
    return CosyVoiceTask(cosyvoice)


def speech(events: Sequence[Event]) -> np.ndarray:
    parts = [event.samples for event in events if isinstance(event, Speech)]
    return np.concatenate([np.zeros(0, np.float32), *parts])


def said(events: Sequence[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, Speech))


def finals(events: Sequence[Event]) -> list[Final]:
    return [event for event in events if isinstance(event, Final)]


@pytest.mark.parametrize("context", ["words", "sentence"])
def test_speech_obeys_the_laws(task_laws, task, context):
    texts = [["the dog", task_laws.FLUSH, " so"], ["quick, fox"]]
    options = {"context": context, "voice": "Ben", "seed": 5}
    task_laws.check_task(task_laws.on_engine(task, **options), texts, examples=2, atol=1e-4)


@pytest.mark.parametrize("context", ["words", "sentence"])
@pytest.mark.parametrize("voice", ["Anna", "Ben"])
def test_an_utterance_is_the_whole_speech(cosyvoice, task, voice, context):
    whole = cosyvoice.synthesize(TEXT, voice, in_turns=context == "words", seed=3)
    session = Engine(task).open(voice=voice, context=context, seed=3)
    events = session.push(TEXT) + session.finish()
    assert len(speech(events)) == len(whole.samples) > 10_000
    np.testing.assert_allclose(speech(events), whole.samples, rtol=0, atol=1e-4)
    assert [event.text for event in finals(events)] == [TEXT]
