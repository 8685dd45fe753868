"""A voice that keeps to the clock of its text: never early, late for a bounded time, and whole."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import pytest

from loquent.speech.runtime.engine import Engine
from loquent.speech.runtime.events import Event, Speech, Word
from loquent.speech.text.words import Text
from loquent.tts.following import pace
from loquent.tts.synthesizer import collected

SENTENCE = "the quick brown fox jumps over the lazy dog, "


def talk(task, pieces: Iterable[Text], **options) -> list[Event]:
    session = Engine(task).open(follow=True, **options)
    return [event for piece in pieces for event in session.push(piece)] + session.finish()


def timed(text: str, seconds_per_word: float, start: float = 0.0) -> list[Text]:
    """Words at a steady rate."""
    return [Text(f" {word}", start + at * seconds_per_word) for at, word in enumerate(text.split())]


def spoken(events: list[Event]) -> list[Speech]:
    return [event for event in events if isinstance(event, Speech)]


@pytest.mark.parametrize("context", ["words", "sentence"])
def test_laws(task_laws, toy_task, context):
    texts = [
        [Text("One two", 1.0), Text(" three four five six.", 1.5), Text(" Seven eight", 4.0), task_laws.FLUSH],
        [Text("a b c d e f g h ", 0.5), Text("i j k l, m n", 0.6), Text(" 25 miles. Then none.", 9.0)],
    ]

    opener = task_laws.on_engine(toy_task, follow=True, context=context, most_lag_s=0.5)
    task_laws.check_task(opener, texts, examples=3, atol=1e-5)


@pytest.mark.parametrize("context", ["words", "sentence"])
def test_nothing_is_said_before_its_time(toy_task, context):
    events = talk(toy_task, timed(SENTENCE * 3 + "and it rested.", 0.9), context=context)
    for event in spoken(events):
        assert event.start >= event.emission_time - 1e-3
    for before, after in itertools.pairwise(spoken(events)):
        assert after.start >= before.end - 1e-9


def test_what_is_said_is_that_of_a_voice_that_does_not_follow(toy_task):
    pieces = timed(SENTENCE * 2 + "and it rested.", 0.9)
    session = Engine(toy_task).open()
    plain = [event for piece in pieces for event in session.push(piece)] + session.finish()
    events = talk(toy_task, pieces)
    samples, expected = (np.concatenate([event.samples for event in spoken(one)]) for one in (events, plain))
    np.testing.assert_allclose(samples, expected, atol=1e-5)
    words = [[event.text for event in one if isinstance(event, Word)] for one in (events, plain)]
    assert words[0] == words[1]


def test_a_voice_waits_at_the_ends_of_words(toy_task):
    events = talk(toy_task, timed(SENTENCE * 2 + "and it rested.", 0.9))
    words = [event for event in events if isinstance(event, Word)]
    waits = 0
    for before, after in itertools.pairwise(spoken(events)):
        if after.start > before.end + 1e-9:
            waits += 1
            assert not [word for word in words if word.start < before.end - 1e-9 and after.start < word.end - 1e-9]
    assert waits > 5


def test_a_word_is_where_its_samples_are(toy_task):
    events = talk(toy_task, timed("One two. Three four five. Six.", 2.0))
    placed = collected(events, 800)
    for word in placed.segments:
        first, last = round(word.start * 800), round(word.end * 800)
        assert np.abs(placed.samples[first:last]).max() > 0
    gaps = [(a.end, b.start) for a, b in itertools.pairwise(spoken(events)) if b.start > a.end + 1e-9]
    assert gaps
    assert all(not placed.samples[round(a * 800) : round(b * 800)].any() for a, b in gaps)


def test_a_voice_hurries_when_it_is_late_and_only_then(toy_task):
    session = Engine(toy_task).open(follow=True, most_lag_s=1.0, speed=0.5)
    sentence = Text(SENTENCE.replace(",", "."), 0.0)
    lengths, paces = list[float](), list[float]()
    for time_s in [0.0, 1.0, 2.0, 3.0, 4.0, 60.0, 120.0]:
        events = spoken(session.push(replace(sentence, time_s=time_s)))
        lengths.append(events[-1].end - events[0].start)
        paces.append(pace(session.memo))
    assert paces[0] == paces[-2] == paces[-1] == 1.0
    assert max(paces) == 1.5
    assert lengths[4] < 0.8 * lengths[0]
    assert lengths[-1] == pytest.approx(lengths[-2])


def test_a_sentence_that_is_not_complete_is_held(toy_task):
    events = talk(toy_task, timed("one two three four five six seven eight.", 0.4, 2.0), hold_s=1.2)
    assert spoken(events)[0].start == pytest.approx(2.0 + 3 * 0.4, abs=1e-3)  # the first word that is late enough
    whole = Engine(toy_task).open(follow=True, hold_s=5.0).push(Text("One two three four five. ", 2.0))
    assert "".join(event.text for event in spoken(whole)) == "One two three four five."


def test_a_burst_does_not_hurry(toy_task):
    session = Engine(toy_task).open(follow=True, most_lag_s=1.0)
    session.push(Text(SENTENCE.replace(",", ".") * 5, 3.0))
    assert pace(session.memo) == 1.0


@pytest.mark.parametrize("options", [{"most_lag_s": 0.0}, {"fastest": 0.9}, {"fastest": 5.0}, {"hold_s": -1.0}])
def test_wrong_options_are_refused(toy_task, options):
    with pytest.raises(ValueError, match=next(iter(options))):
        Engine(toy_task).open(follow=True, **options)


def test_an_interrupted_voice_goes_on_at_its_time(toy_task):
    session = Engine(toy_task).open(follow=True)
    session.push(Text("One two three. ", 1.0))
    session.interrupt(played_s=1.05)
    events = session.push(Text("Four five six. ", 9.0))
    assert spoken(events)[0].start == pytest.approx(9.0, abs=1e-3)
