"""Which language is spoken: of all, or of those that may be; told with its probability, in recordings and live."""

from __future__ import annotations

import numpy as np
import pytest

from loquent.asr.whisper.model import Whisper
from loquent.asr.whisper.recognizer import WhisperRecognizer
from loquent.asr.whisper.tokenizer import WhisperTokenizer
from loquent.speech.runtime.engine import Engine
from loquent.speech.runtime.events import Language, Word
from loquent.speech.text.languages import language_codes, only_language

RATE = 16_000


def test_recordings_are_in_one_of_the_languages_that_may_be(base: WhisperRecognizer, sample: np.ndarray) -> None:
    speech = sample[: 4 * RATE]
    everything = base.detect_language(speech)
    assert next(iter(everything)) == "en"
    assert len(everything) > 90
    some = base.detect_language(speech, "German, es")
    assert some.keys() == {"de", "es"}
    assert sum(some.values()) == pytest.approx(1)
    assert some["de"] / some["es"] == pytest.approx(everything["de"] / everything["es"], rel=1e-3)
    found = base.transcribe(speech, language="es,en", beam_size=1)
    assert found.language == "en"
    assert list(found.languages) == ["en", "es"]
    assert found.language_probability == found.languages["en"] > everything["en"]
    assert "streaming recognition" in found.text.lower()


def test_live_clients_are_told_before_the_first_word(base: WhisperRecognizer, sample: np.ndarray) -> None:
    speech = sample[: round(2.4 * RATE)]
    engine = Engine(base.streaming_task(policy="alignatt", language="en,fr"), capacity=3)
    sessions = [engine.open(language=language) for language in ("es, de", None)]
    early = engine.open(language="en,es")
    for session in sessions:
        session.feed(speech)
        session.end()
    early.feed(speech[: round(1.2 * RATE)])
    while engine.step():
        pass
    early.end()
    while engine.step():
        pass
    heard = [session.drain() for session in (*sessions, early)]
    told = [[event for event in events if isinstance(event, Language)] for events in heard]
    assert [len(events) for events in told] == [1, 1, 1]
    assert told[0][0].language in ("es", "de")
    assert told[1][0].language == "en"
    assert told[2][0].language == "en"
    assert all(0.5 <= event.probability <= 1 for events in told for event in events)
    for events in heard:
        kinds = [type(event) for event in events if isinstance(event, Language | Word)]
        assert kinds
        assert Language not in kinds[1:]


def test_a_snapshot_knows_which_languages_may_be(base: WhisperRecognizer) -> None:
    engine = Engine(base.streaming_task(policy="alignatt"), capacity=2)
    session = engine.open(language="de,es")
    assert engine.restore(session.snapshot()).memo.languages == ["de", "es"]
    values = session.memo.to_dict()
    with pytest.raises(ValueError, match="languages"):
        engine.task.restore(values | {"languages": ["xx"]})


def test_a_model_of_one_language_detects_nothing(
    tiny_en: Whisper, tokenizer: WhisperTokenizer, sample: np.ndarray
) -> None:
    recognizer = WhisperRecognizer(tiny_en, tokenizer)
    assert recognizer.detect_language(sample[:RATE]) == {"en": 1.0}
    for attempt in (recognizer.transcribe, recognizer.detect_language):
        with pytest.raises(ValueError, match=r"English.only"):
            attempt(sample[:RATE], language="en,es")
    with pytest.raises(ValueError, match=r"English.only"):
        recognizer.session(language="en,es", policy="alignatt")
    with pytest.raises(ValueError, match=r"language: 'xx' is not a language"):
        recognizer.transcribe(sample[:RATE], language="en,xx")


def test_names_of_several_languages() -> None:
    assert language_codes("English, es,en") == ("en", "es")
    assert language_codes(None) == language_codes("") == ()
    assert only_language("Flemish") == "nl"
    assert only_language("en,es") is only_language(None) is None
    with pytest.raises(ValueError, match="''"):
        language_codes("en,")
