"""What is reported of an utterance."""

import json

import pytest

from loquent.asr.utterance import OpenUtterance
from loquent.speech.runtime.events import Final, Partial, Word


def word(text: str, start: float, end: float) -> Word:
    return Word(text=text, start=start, end=end, confidence=1.0)


def test_an_utterance_is_shown_when_it_reads_differently_and_ends_with_all_its_words() -> None:
    utterance = OpenUtterance()
    assert utterance.show("", "") == []
    utterance.add(word(" one", 0.5, 1.0))
    utterance.add(word(" two", 1.0, 1.5))
    assert utterance.show(" th", " ree") == [Partial(stable=" one two th", unstable=" ree")]
    assert utterance.show(" th", " ree") == []
    assert utterance.finish() == [Final(text="one two", start=0.5, end=1.5)]
    assert utterance.finish() == []
    assert utterance.show("", "four") == [Partial(stable="", unstable="four")]
    utterance.add(word(" four", 2.0, 2.5))
    assert utterance.finish() == [Final(text="four", start=2.0, end=2.5)]


def test_it_is_a_value() -> None:
    utterance = OpenUtterance(" one", 0.5, 1.0, (" one", " two"))
    saved = json.loads(json.dumps(vars(utterance)))
    assert OpenUtterance.from_dict(saved) == utterance
    for wrong in ({"text": 5}, {"end": "now"}, {"shown": [1, 2]}, {"shown": None}):
        with pytest.raises(ValueError, match="not an utterance"):
            OpenUtterance.from_dict(saved | wrong)
