"""The public face: models by name, what is refused, and what an interpretation says of each sentence."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest

from loquent.speech.runtime.events import Event, Final, Speech, Translation, Word
from loquent.translate.spoken.interpretation import InterpretedSegment, interpretation_of
from loquent.translate.spoken.interpreter import Interpreter
from loquent.translate.translator import Translator


@pytest.fixture
def mirror(toy: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every translator is the toy, from English to what is said to be Spanish."""
    monkeypatch.setattr(Translator, "from_pretrained", lambda name, **_: Translator(toy.Mirror()))


def test_models_by_name_become_stages(mirror: None) -> None:
    interpreter = Interpreter.from_pretrained("loquent/commands", "en-es")
    assert (interpreter.source, interpreter.target) == ("en", "es")
    assert list(interpreter.tasks) == ["recognize", "translate"]
    assert interpreter.session(sample_rate=48_000, drafts=True).sessions[1].options.drafts


def test_models_that_do_not_fit_are_refused(mirror: None) -> None:
    with pytest.raises(ValueError, match=r"no voice for Spanish \(es\): this one speaks English \(en\)"):
        Interpreter.from_pretrained("loquent/commands", "en-es", "loquent/voice")
    with pytest.raises(ValueError, match="'loquent/commands' does not translate: give a translator"):
        Interpreter.from_pretrained("loquent/commands")
    with pytest.raises(ValueError, match="translates from en, got 'de'"):
        Interpreter.from_pretrained("loquent/commands", "en-es", source="German")


def word(text: str, start: float, stage: str) -> Word:
    return Word(text=text, start=start, end=start + 0.5, confidence=1.0, stage=stage)


def said(text: str, emission_time: float, span: tuple[int, int] = (0, 0)) -> Translation:
    return Translation(text=text, span=span, stage="translate", emission_time=emission_time)


def ended(start: float, end: float) -> Final:
    return Final(text="", start=start, end=end, stage="translate")


def speech(span: tuple[int, int], start: float, text: str) -> Speech:
    samples = np.ones(400, np.float32)
    return Speech(samples=samples, sample_rate=800, text=text, span=span, start=start, end=start + 0.5, stage="speak")


@pytest.mark.parametrize("kind", ["recogniser", "overheard", "speech alone"])
def test_sentences_have_their_source_and_their_speech(kind: str) -> None:
    heard = [(" Uno", 1.0), (" dos.", 2.0), (" Tres", 4.0)]
    events: list[Event] = []
    if kind == "recogniser":
        events += [word(text, start, "recognize") for text, start in heard]
    for words, (text, time_s, span) in [(heard[:2], (" One two.", 3.0, (0, 9))), (heard[2:], (" Three", 5.0, (9, 14)))]:
        if kind == "overheard":
            events += [word(text, start, "translate") for text, start in words]
        events += [said(text, time_s, span if kind == "recogniser" else (0, 0))]
        events += [ended(words[0][1], words[-1][1] + 0.5)]
    events += [speech((1, 4), 3.0, " One"), speech((5, 9), 3.5, " two."), speech((10, 15), 6.0, " Three")]
    made = interpretation_of(events, 800)
    texts = ["Uno dos.", "Tres"] if kind != "speech alone" else ["", ""]
    assert made.segments == (
        InterpretedSegment(texts[0], "One two.", 1.0, 2.5, 3.0, (3.0, 4.0)),
        InterpretedSegment(texts[1], "Three", 4.0, 4.5, 5.0, (6.0, 6.5)),
    )
    assert made.audio is not None
    assert made.audio.samples.nonzero()[0].tolist() == [*range(2400, 3200), *range(4800, 5200)]
