"""What the events of a voice say about places in the text and in time, also where the text or the user is odd."""

from __future__ import annotations

import itertools

import pytest

from loquent.speech.runtime.engine import Engine
from loquent.speech.runtime.events import Final, Interrupted, Skipped, Speech, Word
from loquent.tts.task import SpeechTask


def of(kind, events):
    return [event for event in events if isinstance(event, kind)]


def test_a_word_without_sounds_of_the_voice_is_told_as_skipped(toy_task):
    session = Engine(toy_task).open(lexicon={"fox": ",", "the": " "})
    events = session.push("Here is the fox. ") + session.finish()
    assert [(one.text, one.span) for one in of(Skipped, events)] == [("the", (8, 11)), ("fox.", (12, 16))]
    assert [word.text for word in of(Word, events)] == ["Here", " is"]
    assert all(word.start < word.end for word in of(Word, events))
    assert [final.text for final in of(Final, events)] == ["Here is"]


@pytest.mark.parametrize(
    "text", ['<sub alias="one two">W3C</sub>... so they', '<sub alias="One two. Three four">W3C</sub> is it. ']
)
def test_words_that_stand_for_the_same_text_do_not_repeat_it(toy_task, text):
    session = Engine(toy_task).open(ssml=True)
    events = session.push(text) + session.finish()
    spans = [event.span for event in of(Speech, events) if event.text]
    assert all(first[1] <= second[0] for first, second in itertools.pairwise(spans))
    assert "".join(event.text for event in of(Speech, events)).count("W3C") == 1
    assert "".join(event.text for event in of(Word, events)).count("W3C") == 1


def test_what_is_heard_of_nothing_lies_before_the_first_word(toy_task):
    session = Engine(toy_task).open()
    session.push("Hello there my good friend.")
    (first,) = of(Interrupted, session.interrupt(played_s=0.0))
    (again,) = of(Interrupted, session.interrupt(played_s=0.0))
    assert (first.text, first.span, first.heard) == (again.text, again.span, again.heard) == ("", (0, 0), 0.0)


def test_a_second_interruption_tells_nothing_more(toy_task):
    session = Engine(toy_task).open()
    events = session.push("Hello there my good friend. ")
    second = of(Word, events)[1]
    (first,) = of(Interrupted, session.interrupt(played_s=second.end))
    (again,) = of(Interrupted, session.interrupt())
    assert (first.text, first.span) == ("Hello there", (0, 11))
    assert (again.text, again.span, again.heard) == ("", (11, 11), first.heard)


def test_spans_do_not_go_back_after_an_interruption(toy_task):
    """Nor where the speech begins with silence, in which no word begins."""
    session = Engine(SpeechTask(toy_task.voice, toy_task.phonemizer, chunk_ms=50)).open(speed=0.25)
    session.push("Hello there my good friend. ")
    session.interrupt(played_s=0.2)
    spans = [event.span for event in of(Speech, session.push("Stop. "))]
    assert spans[0][0] == spans[0][1]
    assert min(spans)[0] >= len("Hello")
    assert spans == sorted(spans)


def test_what_was_skipped_is_in_no_word(toy_task):
    session = Engine(toy_task).open()
    events = session.push("Hello \U0001f600 there мир too, — yes. ")
    assert {skipped.text for skipped in of(Skipped, events)} == {"\U0001f600", "мир"}
    assert [word.text for word in of(Word, events)] == ["Hello", " there", " too,", " — yes."]
