"""The laws on tasks of every kind of port, alone and in a row."""

import numpy as np
import pytest

from loquent.speech.runtime.engine import Engine
from loquent.speech.runtime.events import Failure, Interrupted, Marker, Speech
from loquent.speech.runtime.pipeline import Pipeline
from loquent.speech.runtime.stream import StreamClosed
from loquent.speech.text.words import Text


def noise(samples, seed=0):
    return np.random.default_rng(seed).integers(-20_000, 20_000, samples, np.int16)


@pytest.fixture
def texts(task_laws):
    flush = task_laws.FLUSH
    return [
        ["one two three", flush, " four, fi", flush, flush, "ve  six\n"],
        ["A longer sentence without a flush."],
        ["x"],
    ]


def test_audio_to_text(task_laws, band_energy):
    audio = [noise(20_000), noise(7000, 1), noise(500, 2)]
    task_laws.check_task(task_laws.on_engine(band_energy.BandEnergy(), sample_rate=44_100, chunk_ms=70), audio)


def test_text_to_audio(task_laws, tones, texts):
    task_laws.check_task(task_laws.on_engine(tones.Tones()), texts)


def test_text_to_text(task_laws, swapped, texts):
    task_laws.check_task(task_laws.on_engine(swapped.Swapped()), texts)


def test_text_to_text_to_audio(task_laws, swapped, tones, texts):
    task_laws.check_task(task_laws.in_a_row({"swap": swapped.Swapped(), "say": tones.Tones()}), texts)


def test_audio_to_text_to_text_to_audio(task_laws, band_energy, swapped, tones):
    tasks = {"hear": band_energy.BandEnergy(), "swap": swapped.Swapped(), "say": Letters(tones)}
    audio = [noise(9000), noise(4000, 1)]
    task_laws.check_task(task_laws.in_a_row(tasks, sample_rate=16_000, capitals=True), audio, examples=8)


def Letters(tones):  # the levels are digits: these tones spell them
    class Spelled(tones.Tones):
        def _take(self, chunk, memo):
            spelled = tuple(word._replace(text=word.text.translate(DIGITS)) for word in chunk.words)
            super()._take(type(chunk)(spelled, chunk.begin, chunk.flush, chunk.last), memo)

    return Spelled()


DIGITS = str.maketrans("0123456789/", "abcdefghijk")


def test_what_is_said_is_all_that_was_written(tones):
    session = Engine(tones.Tones()).open()
    events = session.push("Hello big ") + session.push("world") + session.finish()
    assert "".join(event.text for event in events) == "hellobigworld"
    assert [event.span[0] for event in events] == [0, 1, 2, 3, 4, 6, 7, 8, 10, 11, 12, 13, 14]
    assert [event.start for event in events] == pytest.approx([0.04 * i for i in range(13)])
    assert all(len(event.samples) == 320 for event in events)


def test_a_word_waits_for_the_next_one_or_a_flush(tones):
    session = Engine(tones.Tones()).open()
    assert session.push("one ") == []
    assert [event.text for event in session.push("two ")] == ["o", "n", "e"]
    assert [event.text for event in session.flush()] == ["t", "w", "o"]
    assert session.flush() == []
    assert session.finish() == []


def test_the_clock_of_speech_goes_through_text(swapped, tones):
    engines = {"swap": Engine(swapped.Swapped()), "say": Engine(tones.Tones())}
    stream = Pipeline.open(engines)
    events = (
        stream.push(Text("a", 1.0)) + stream.push(Text(" bc", 2.5)) + stream.push(Text(" d", 3.0)) + stream.finish()
    )
    assert [(event.stage, event.text, event.emission_time) for event in events] == [
        ("swap", " bc a#2", 2.5),
        ("say", "b", 2.5),
        ("say", "c", 2.5),
        ("swap", " d#3", 3.0),
        ("say", "a", 3.0),
        ("say", "d", 3.0),
    ]
    second = Engine(swapped.Swapped()).open()
    second.push(Text("a", 2.0))
    with pytest.raises(ValueError, match="does not go back"):
        second.push(Text("b", 1.0))


def test_a_generator_pauses_while_nobody_takes_what_it_says(tones):
    engine = Engine(tones.Tones(), ahead_s=0.2)
    session = engine.open()
    session.feed("a very long sentence ")
    session.end()
    steps = 0
    while engine.step():
        steps += 1
    first = session.drain()
    assert sum(event.end - event.start for event in first) == pytest.approx(0.2)
    rest = session.run()
    assert "".join(event.text for event in first + rest) == "averylongsentence"
    assert session.done


def test_an_interruption_says_what_was_heard_and_the_stream_goes_on(tones):
    session = Engine(tones.Tones()).open()
    said = session.push("hello world again")
    assert said[-1].text == "o"
    (stopped,) = session.interrupt(played_s=0.13)
    assert stopped == Interrupted(
        stream=session.stream, sequence=len(said), text="hel", span=(0, 3), heard=0.13, emission_time=0.0
    )
    more = session.push(" new text") + session.finish()
    assert [(event.text, event.span[0]) for event in more][:3] == [("n", 18), ("e", 19), ("w", 20)]
    assert more[0].start == pytest.approx(0.13)
    assert [event.sequence for event in more] == list(range(len(said) + 1, len(said) + 1 + len(more)))


def test_what_was_not_given_out_was_not_heard(tones):
    session = Engine(tones.Tones()).open()
    session.feed("one two")
    session.end()
    session.engine.run(session)
    assert session.done
    (stopped,) = session.interrupt(played_s=9.0)
    assert (stopped.text, stopped.heard, stopped.sequence) == ("", 0.0, 0)
    assert session.run() == []


def test_an_interruption_in_the_middle_of_a_step_comes_after_it(tones):
    engine = Engine(tones.Tones())
    session = engine.open()
    session.feed("one two ")
    engine.step()
    batch = engine.collect()
    assert session.interrupt() == []
    engine.deliver(batch, engine.compute(batch))
    (stopped,) = session.drain()
    assert isinstance(stopped, Interrupted)
    assert [event.text for event in session.push("x ") + session.finish()] == ["x"]


def test_a_marker_waits_until_what_came_before_it_has_been_said(swapped, tones):
    stream = Pipeline.open({"swap": Engine(swapped.Swapped()), "say": Engine(tones.Tones())})
    stream.push("a b c ")
    assert stream.marker("m") == []
    events = stream.push("d ") + stream.finish()
    types = ["m" if isinstance(event, Marker) else event.text for event in events if event.stage == "say"]
    assert types == ["a", "d", "m", "c"]


def test_a_stage_that_fails_ends_the_pipeline_and_nothing_committed_is_lost(band_energy, swapped, tones):
    engines = {"say": Engine(tones.Tones()), "hear": Engine(band_energy.BandEnergy())}
    stream = Pipeline.open(engines, fail_on="x", chunk_ms=40)
    events = stream.push("ab cx de ")
    assert [event.type for event in events if event.stage == "say"] == ["speech"] * 3 + ["failure"]
    assert [event.type for event in events if event.stage == "hear"][-1] == "final"
    assert "".join(event.text for event in events if event.type == "speech") == "abc"
    assert stream.done
    first = Pipeline.open({"swap": Engine(swapped.Swapped()), "say": Engine(tones.Tones())}, fail_on="b")
    failed = first.push("a b c d e")
    assert isinstance(failed[-1], Failure)
    assert failed[-1].stage == "say"
    assert first.done
    with pytest.raises(StreamClosed):
        first.push("more")


def closed(stream):
    stream.close()


def failed_at_its_end(stream):
    stream.sessions[1].fail("internal", "it broke down")


@pytest.mark.parametrize(("over", "failures"), [(closed, []), (failed_at_its_end, ["swap"])])
def test_what_a_stage_says_after_the_stage_behind_it_is_over_fails_nothing(band_energy, swapped, over, failures):
    """As when a client vanishes, or a stage fails, while the stage before it is in a step."""
    hear, swap = Engine(band_energy.BandEnergy()), Engine(swapped.Swapped())
    stream = Pipeline.open({"hear": hear, "swap": swap})
    stream.feed(np.full(3200, 1000, np.int16))
    stream.marker("m")
    batch = hear.collect()
    over(stream)
    hear.deliver(batch, hear.compute(batch))
    assert [event.stage for event in stream.drain() if isinstance(event, Failure)] == failures
    assert (hear.active, swap.active) == (0, 0)


def test_ports_have_to_fit(band_energy, swapped, tones):
    with pytest.raises(ValueError, match="'a' gives text, but 'b' takes audio"):
        Pipeline.open({"a": Engine(swapped.Swapped()), "b": Engine(band_energy.BandEnergy())})
    with pytest.raises(ValueError, match="no stage has an option 'loudness'; the stages are a"):
        Pipeline.open({"a": Engine(swapped.Swapped())}, loudness=1)
    with pytest.raises(ValueError, match="takes text, which has neither sample_rate"):
        Engine(swapped.Swapped()).open(sample_rate=8000)
    engine = Engine(tones.Tones(), 1)
    engine.open()
    full = Engine(swapped.Swapped(), 1)
    with pytest.raises(RuntimeError, match="all 1 streams are in use"):
        Pipeline.open({"swap": full, "say": engine})
    assert full.active == 0


@pytest.mark.parametrize("packet", [b"abc", np.zeros(3), None, Text(b"x"), Text("x", float("nan")), "\ud800"])
def test_what_is_no_text_is_refused_and_the_stream_goes_on(tones, packet):
    session = Engine(tones.Tones()).open()
    session.push("a")
    with pytest.raises(ValueError, match=r"text|number"):
        session.push(packet)
    assert [event.text for event in session.push("b ") + session.finish()] == ["a", "b"]


def test_a_stage_waits_while_too_much_waits_before_the_next_one(swapped, tones):
    engines = {"swap": Engine(swapped.Swapped()), "say": Engine(tones.Tones())}
    stream = Pipeline.open(engines)
    stream.feed("ab " * 2000)
    while engines["swap"].step():
        pass
    assert 200 <= stream.sessions[1].inbox.pending <= 202
    events = stream.finish()
    assert sum(isinstance(event, Speech) for event in events) == 4000
