"""Streams of text through a small voice: laws, context, words and their times, interruption, abuse."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence

import numpy as np
import pytest

from loquent.speech.runtime.engine import Engine
from loquent.speech.runtime.events import Event, Final, Interrupted, Speech, Word
from loquent.tts.memo import SpeechMemo

TEXT = "The quick brown fox, as they say, jumps over the lazy dog. Did it rest? It did not!"


def speech(events: Sequence[Event]) -> np.ndarray:
    return np.concatenate([event.samples for event in events if isinstance(event, Speech)])


def said(events: Sequence[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, Speech))


def words(events: Sequence[Event]) -> list[Word]:
    return [event for event in events if isinstance(event, Word)]


@pytest.mark.parametrize("options", [{}, {"context": "sentence"}, {"voice": "high:1+low:2", "speed": 1.5, "seed": 9}])
def test_speech_obeys_the_laws(task_laws, toy_task, options):
    texts = [
        ["The quick brown fox jumps. It ran", task_laws.FLUSH, " on and on, and then"],
        ["One"],
        ["Well... Mr. Smith paid five dollars!\n\nWhy?"],
    ]
    task_laws.check_task(task_laws.on_engine(toy_task, **options), texts, examples=8, atol=1e-5)


def test_a_row_of_translator_and_voice_obeys_the_laws(task_laws, toy_task, swapped):
    tasks = {"swap": swapped.Swapped(), "speak": toy_task}
    task_laws.check_task(
        task_laws.in_a_row(tasks), [["one two three four. five", task_laws.FLUSH, " six"]], examples=6, atol=1e-5
    )


def test_a_word_is_spoken_once_two_more_are_there(toy_task):
    session = Engine(toy_task).open()
    assert session.push("Hello there my") == []
    assert session.memo.queued == session.memo.frame == 0
    session.push(" friend")
    assert session.memo.frame + session.memo.queued > 0
    assert session.memo.told == len("Hello")


def test_the_sentence_is_waited_for_where_it_is_the_context(toy_task):
    session = Engine(toy_task).open(context="sentence")
    assert session.push("Hello there my dear old friends in the") == []
    assert said(session.push(" garden! ") + session.flush()) == "Hello there my dear old friends in the garden!"


def test_a_sentence_that_ends_is_spoken_to_its_end(toy_task):
    session = Engine(toy_task).open()
    events = session.push("Hello there! ")
    assert said(events) == "Hello there!"
    assert isinstance(events[-1], Final)
    assert events[-1].text == "Hello there!"


def test_words_join_to_the_text_and_their_times_follow_each_other(toy_task):
    events = Engine(toy_task).open().push(TEXT + " ")
    told = words(events)
    assert "".join(word.text for word in told) == TEXT == said(events)
    times = [time for word in told for time in (word.start, word.end)]
    assert times == sorted(times)
    assert all(word.start < word.end for word in told)
    assert times[-1] <= len(speech(events)) / 800


def test_speech_events_follow_each_other(toy_task):
    events = [e for e in Engine(toy_task).open().push(TEXT + " ") if isinstance(e, Speech)]
    assert events[0].start == 0
    for before, after in itertools.pairwise(events):
        assert after.start == before.end
        assert after.span[0] >= before.span[0]
        assert after.end - after.start == pytest.approx(len(after.samples) / 800)


def test_the_seed_changes_the_noise_and_nothing_else(toy_task):
    one, two = (Engine(toy_task).open(seed=seed).push(TEXT + " ") for seed in (1, 2))
    assert words(one) == words(two)
    assert not np.allclose(speech(one), speech(two))


def test_speed_can_change_under_way(toy_task):
    session = Engine(toy_task).open()
    slow = session.push("one two three four five. ")
    session.configure(speed=3.0)
    fast = session.push("one two three four five. ")
    assert len(speech(fast)) < 0.6 * len(speech(slow))
    with pytest.raises(ValueError, match="voice"):
        session.configure(voice="low")


@pytest.mark.parametrize("voice", ["nobody", "high:0", "high:-1+low", "high:x", "high:inf", "+"])
def test_voices_that_are_not_there_are_refused(toy_task, voice):
    with pytest.raises(ValueError, match="voice"):
        Engine(toy_task).open(voice=voice)


@pytest.mark.parametrize(
    "options", [{"speed": 0.1}, {"speed": 5}, {"seed": -1}, {"context": "page"}, {"lexicon": {"cat": "k☃t"}}]
)
def test_wrong_options_are_refused(toy_task, options):
    with pytest.raises(ValueError, match=next(iter(options))):
        Engine(toy_task).open(**options)


@pytest.mark.parametrize("text", ["", " ", "\n\n\n", "... !!! ???", "—", "\x00\x07\x1b", "()[]{}"])
def test_text_without_words_is_no_speech_and_no_error(toy_task, text):
    session = Engine(toy_task).open()
    events = session.push(text) + session.finish()
    assert [e for e in events if isinstance(e, Speech | Word | Final)] == []
    assert session.done


def test_other_scripts_are_told_and_the_rest_is_spoken(toy_task):
    session = Engine(toy_task).open()
    events = session.push("Hello мир and 世界 to all") + session.finish()
    skipped = [event for event in events if event.type == "skipped"]
    assert {event.text.strip() for event in skipped} >= {"мир"}
    assert all(event.reason for event in skipped)
    assert "to all" in said(events)


def test_a_megabyte_without_a_space_is_read_in_bounded_state(toy_task):
    session = Engine(toy_task).open()
    size = session.nbytes
    session.feed("x" * 20_000)
    for _ in range(30):
        session.engine.step()
        session.drain()
        assert len(json.dumps(session.memo.to_dict())) < 60_000
    assert session.engine.bytes_per_slot <= size


def test_state_stays_bounded_in_a_text_that_never_ends(toy_task):
    session = Engine(toy_task).open()
    sizes = []
    for turn in range(60):
        session.push(f"and then number {turn} came along with all of its many friends ")
        sizes.append(len(json.dumps(session.memo.to_dict())))
    assert max(sizes[30:]) <= max(sizes[:30]) * 1.1


def test_interruption_tells_the_words_that_were_heard_whole(toy_task):
    session = Engine(toy_task).open()
    events = session.push(TEXT + " ")
    third = words(events)[2]
    (interrupted,) = session.interrupt(played_s=third.end)
    assert interrupted == Interrupted(
        text="The quick brown", span=(0, 15), heard=third.end, stream="stream-1", sequence=interrupted.sequence
    )
    more = session.push("A new sentence. ")
    spoken = [event for event in more if isinstance(event, Speech)]
    assert spoken[0].start == pytest.approx(third.end)
    assert TEXT[:3] not in said(more)
    assert said(more).strip() == "A new sentence."


@pytest.mark.parametrize("before", ["", "Hel", "Hello there my", "Hello there my good", "Hello. ", TEXT])
@pytest.mark.parametrize("played", [None, 0.0, 0.05, 1e6])
def test_a_stream_can_be_interrupted_in_every_state(toy_task, before, played):
    session = Engine(toy_task).open()
    given = session.push(before)
    (interrupted,) = [e for e in session.interrupt(played) if isinstance(e, Interrupted)]
    assert 0 <= interrupted.heard <= sum(e.end - e.start for e in given if isinstance(e, Speech)) + 1e-9
    fresh = Engine(toy_task).open()
    after = session.push("Now something else entirely. ") + session.finish()
    alone = fresh.push("Now something else entirely. ") + fresh.finish()
    assert said(after).strip() == said(alone)
    assert len(speech(after)) == len(speech(alone))


def test_an_interrupted_stream_that_had_ended_comes_to_its_end(toy_task):
    session = Engine(toy_task).open()
    session.feed(TEXT)
    session.end()
    session.engine.step()
    session.interrupt()
    session.run()
    assert session.done


def test_breaks_are_silence(toy_task):
    session = Engine(toy_task).open(ssml=True)
    events = session.push('Wait <break time="500ms"/> for it. ') + session.finish()
    quiet = max(len(run) for run in "".join("01"[bool(s)] for s in speech(events)).split("1"))
    assert 0.45 <= quiet / 800 <= 0.55


def test_damaged_memos_are_refused(toy_task):
    session = Engine(toy_task).open()
    session.push("Hello there my good old")
    values = json.loads(json.dumps(session.memo.to_dict()))
    assert SpeechMemo.from_dict(values).to_dict() == session.memo.to_dict()
    for name, bad in {
        "at": 99, "queued": 10**7, "samples": -1, "words": [{"text": 1}], "said": None, "source": 5, "untold": 7,
    }.items():  # fmt: skip
        with pytest.raises((ValueError, KeyError, TypeError)):
            toy_task.restore({**values, name: bad})


def test_a_voice_that_breaks_down_ends_its_stream_alone(toy_task, monkeypatch):
    engine = Engine(toy_task, capacity=2)
    good, bad = engine.open(seed=1), engine.open(seed=2)
    real = toy_task.voice.acoustics
    broken = toy_task.voice.alphabet["z"]

    def acoustics(windows):
        if any(window.phones[-3:] and broken in window.phones for window in windows):
            raise RuntimeError("no z")
        return real(windows)

    monkeypatch.setattr(toy_task.voice, "acoustics", acoustics)
    good.feed("Hello there my friend. ")
    bad.feed("A zoo. ")
    while engine.step():
        pass
    assert [event.type for event in bad.drain()] == ["failure"]
    alone = Engine(toy_task).open(seed=1).push("Hello there my friend. ")
    np.testing.assert_allclose(speech(good.drain()), speech(alone), atol=1e-5)
