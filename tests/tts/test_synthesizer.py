"""Voices on the runtime, with their own weights: equal however it is driven, intelligible, flat in cost."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from loquent.asr import Recognizer
from loquent.speech.runtime.engine import Engine
from loquent.speech.runtime.events import Event, Speech
from loquent.tts.synthesizer import Synthesizer, collected

TEXT = "A small boat crossed the quiet harbour at dawn. Nobody was awake to see it arrive."


def samples(events: list[Event]) -> np.ndarray:
    return np.concatenate([event.samples for event in events if isinstance(event, Speech)])


@pytest.mark.parametrize("context", ["words", "sentence"])
def test_letter_by_letter_is_as_whole(hibari, context):
    whole = hibari.synthesize(TEXT, context=context)
    session = hibari.session(context=context)
    events = [event for letter in TEXT for event in session.push(letter)] + session.finish()
    streamed = collected(events, hibari.sample_rate)
    assert streamed.segments == whole.segments
    np.testing.assert_allclose(streamed.samples, whole.samples, atol=1e-5)


def test_hibari_obeys_the_laws(task_laws, hibari):
    texts = [["Hello there. It", task_laws.FLUSH, " rains"], ["Yes"]]
    task_laws.check_task(task_laws.on_engine(hibari.streaming_task(), speed=2.0), texts, examples=2, atol=1e-4)


def test_sixteen_streams_in_one_batch_are_as_alone(hibari):
    streams = [{"speed": 1 + number / 10, "seed": number} for number in range(16)]
    check_together(hibari, streams, "The boat arrived.")


def test_different_voices_in_one_batch_are_as_alone():
    mixtures = ("alto", "baritone", "alto+baritone", "alto:0.2+baritone:0.8")
    streams = [{"voice": one} for one in mixtures]
    check_together(Synthesizer.from_pretrained("loquent/voice"), streams, "A small boat crossed.")


def check_together(synthesizer: Synthesizer, streams: list[dict[str, Any]], text: str) -> None:
    """Streams that join one after the other give what each gives alone."""
    engine = Engine(synthesizer.streaming_task(), capacity=len(streams))
    sessions = [engine.open(**options) for options in streams]
    events: list[list[Event]] = [[] for _ in sessions]
    for session in sessions:
        session.feed(text)
        session.end()
        engine.step()
    while engine.step():
        for session, heard in zip(sessions, events, strict=True):
            heard += session.drain()
    for session, heard, options in zip(sessions, events, streams, strict=True):
        alone = synthesizer.synthesize(text, **options)
        np.testing.assert_allclose(samples(heard + session.drain()), alone.samples, atol=1e-4)


def test_what_is_spoken_can_be_recognised(hibari):
    speech = hibari.synthesize("Streaming speech begins while the text is still being written.")
    heard = Recognizer.from_pretrained("tiny.en").transcribe(speech).text
    assert heard.strip().lower().rstrip(".") == "streaming speech begins while the text is still being written"


def test_the_first_three_words_are_enough_for_sound(hibari):
    session = hibari.session()
    assert not [event for event in session.push("The quick ") if isinstance(event, Speech)]
    events = session.push("brown ")
    assert np.abs(samples(events)).max() > 0.02


def test_the_sentence_ends_in_silence(hibari):
    speech = hibari.synthesize("There is nothing after the last word.")
    last = speech.segments[-1].words[-1].end
    tail = speech.samples[round((last + 0.1) * speech.sample_rate) :]
    assert len(tail)
    assert np.abs(tail).max() < 0.01 * np.abs(speech.samples).max()


def test_speed_shortens_the_speech(hibari):
    slow, fast = (hibari.synthesize(TEXT, speed=speed) for speed in (0.8, 1.6))
    assert fast.duration_s == pytest.approx(slow.duration_s / 2, rel=0.15)


def test_a_pronunciation_of_ones_own_is_used(hibari):
    plain, own = (
        hibari.synthesize("Say Loquent now.", **options) for options in ({}, {"lexicon": {"Loquent": "kˈæt"}})
    )
    assert own.duration_s < plain.duration_s


@pytest.mark.parametrize("sign", ["&", "-", "$"])
def test_a_sign_may_have_a_pronunciation(hibari, sign):
    speech = hibari.synthesize(f"you {sign} me.", lexicon={sign: "ænd"})
    assert [word.text.strip() for word in speech.segments[0].words][1:-1] in ([sign], [])


def test_work_per_second_of_speech_stays_flat(hibari, monkeypatch):
    """Counted in phones that the acoustic model sees and frames that the renderer does."""
    counts: list[int] = []
    voice = hibari.streaming_task().voice
    acoustics = voice.acoustics

    def counted(windows):
        counts.extend(len(window.phones) for window in windows)
        return acoustics(windows)

    monkeypatch.setattr(voice, "acoustics", counted)
    session = hibari.session(speed=4.0)
    sizes, phones = [], []
    for _ in range(6):
        counts.clear()
        session.push("and then it went on and on along the river bank until it came to the old stone bridge over it ")
        phones.append(sum(counts))
        sizes.append(session.nbytes)
    assert max(phones[2:]) <= 1.2 * min(phones[2:])  # utterances of 60 words end in different places
    assert len(set(sizes)) == 1
