"""From events to instances, and how much was taken back."""

from __future__ import annotations

from itertools import chain, takewhile
from types import ModuleType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loquent.speech.runtime.engine import Engine
from loquent.speech.runtime.events import Endpoint, Event, Final, Partial, Translation, Word
from loquent.speech.text.words import Text
from loquent.translate.score import Recorder, normalised_erasure

drawn = settings(max_examples=50, deadline=None)
WORDS = st.lists(st.sampled_from("abc"), max_size=5)


def test_words_of_a_text_stream() -> None:
    """As `Session.push(Text(word, number))` gives them: emission times are numbers of source words."""
    recorder = Recorder("words")
    recorder.take([Translation(text="Wir geh", span=(0, 5), emission_time=2.0)])
    recorder.take([Translation(text="en ", span=(5, 8), emission_time=3.0)])
    recorder.take([Translation(text="heim.", span=(8, 12), emission_time=3.0), Endpoint(rule="end", time=0.0)])
    instance = recorder.instance(4, "Wir gehen nach Hause.", source="we are going home.")
    assert (instance.prediction, instance.delays) == ("Wir gehen heim.", (2, 3, 3))
    assert (instance.unit, instance.source_length, instance.elapsed, instance.erased) == ("words", 4, None, 0)
    assert (instance.reference, instance.source) == ("Wir gehen nach Hause.", "we are going home.")


def test_a_speech_stream_with_drafts_and_utterances() -> None:
    recorder = Recorder()
    recorder.take([Partial(stable="", unstable=" Hallo wild", emission_time=1.0)], computed=0.5)
    recorder.take(
        [
            Word(text=" Hallo", start=0, end=1, confidence=1, emission_time=2.0),
            Partial(stable=" Hallo", unstable=" Welt da", emission_time=2.0),  # "wild" is taken back
        ],
        computed=1.5,
    )
    recorder.take([], at=3.0, computed=1.0)
    recorder.take([Final(text="Hallo Welt", start=0, end=2, emission_time=4.0)], computed=0.25)  # "da" is taken back
    recorder.take([Partial(stable=" Ja", unstable="", emission_time=4.0)])
    instance = recorder.instance(4.0)
    assert (instance.prediction, instance.delays) == ("Hallo Welt Ja", (2, 4, 4))
    assert instance.elapsed == (3.5, 4.75, 4.75)  # the third step begins when the second ends, at 3.5
    assert instance.erased == 2


def test_only_one_stage_of_a_pipeline_counts() -> None:
    recorder = Recorder(stage="translate")
    recorder.take(
        [
            Word(text=" home", start=0, end=1, confidence=1, stage="hear", emission_time=1.0),
            Translation(text="heim", span=(0, 5), stage="translate", emission_time=1.0),
        ]
    )
    assert recorder.instance(1.0).prediction == "heim"


def test_characters() -> None:
    recorder = Recorder(target_unit="char")
    recorder.take([Translation(text="你好", span=(0, 1), emission_time=1.0)])
    recorder.take([Translation(text=" 吗", span=(1, 2), emission_time=2.0)])
    instance = recorder.instance(2.0)
    assert (instance.prediction, instance.delays) == ("你好吗", (1, 1, 2))


def test_a_session(swapped: ModuleType) -> None:
    """A task that reads two words and writes them the other way round; taken word by word, or all at once."""
    session, one_by_one, at_once = Engine(swapped.Swapped()).open(), Recorder("words"), Recorder("words")
    events: list[Event] = []
    for number, word in enumerate("a b c d e".split(), 1):
        events += (new := session.push(Text(f"{word} ", number)))
        one_by_one.take(new)
    one_by_one.take(rest := session.finish())
    at_once.take(events + rest)
    instance = one_by_one.instance(5)
    assert (instance.prediction, instance.delays) == ("b a#2 d c#4 e#5", (2, 2, 4, 4, 5))
    assert instance == at_once.instance(5)


def test_words_without_numbers_are_an_error() -> None:
    recorder = Recorder("words")
    recorder.take([Translation(text="heim", span=(0, 4))])
    with pytest.raises(ValueError, match=r"push each source word with its number, Text\(word, number\)"):
        recorder.instance(1)


@drawn
@given(st.lists(WORDS, min_size=1, max_size=6), st.data())
def test_erasures_of_drafts(drafts: list[list[str]], data: st.DataObject) -> None:
    """What is erased is what the definition says, whatever is committed on the way and in whatever parts it comes."""
    last = drafts[-1]
    committed = 0
    events: list[Event] = []
    for time, draft in enumerate(drafts, 1):
        shared = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(draft, last, strict=False)))
        if shared >= committed:
            committed = data.draw(st.integers(committed, shared))
        stable, unstable = last[:committed], draft[committed:] if shared >= committed else []
        drafts[time - 1] = stable + unstable
        events.append(Partial(stable=" ".join(stable), unstable=" " + " ".join(unstable), emission_time=float(time)))
    events.append(Final(text=" ".join(last), start=0, end=1, emission_time=float(len(drafts))))
    recorder = Recorder()
    for size in data.draw(st.lists(st.integers(1, 3))):
        recorder.take(events[:size])
        events = events[size:]
    recorder.take(events)
    instance = recorder.instance(float(len(drafts)))
    assert instance.prediction.split() == last
    if last:
        assert instance.erased is not None
        assert instance.erased / len(last) == normalised_erasure([*drafts, last])


@drawn
@given(st.lists(WORDS))
def test_nothing_is_erased_of_what_only_grows(additions: list[list[str]]) -> None:
    outputs = [[*chain(*additions[:count])] for count in range(len(additions) + 1)]
    assert normalised_erasure(outputs) == (0 if outputs[-1] else None)
    recorder = Recorder()
    for time, words in enumerate(additions, 1):
        recorder.take([Translation(text="".join(f" {word}" for word in words), span=(0, 0), emission_time=float(time))])
    instance = recorder.instance(1.0 + len(additions))
    assert instance.erased == 0
    assert instance.delays == tuple(time for time, words in enumerate(additions, 1) for _ in words)
