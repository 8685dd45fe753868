"""CosyVoice on the runtime: the laws, utterances, what is told of the text, interruption, abuse, the public face."""

from __future__ import annotations

import copy
import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import loquent.speech
from loquent.speech.audio.files import Audio, read_audio
from loquent.speech.commands.cli import main
from loquent.speech.runtime.engine import Engine
from loquent.speech.runtime.events import Event, Final, Interrupted, Skipped, Speech, Word
from loquent.speech.runtime.options import OptionError
from loquent.speech.runtime.pipeline import Pipeline
from loquent.tts.cosyvoice.model import CosyVoice
from loquent.tts.cosyvoice.task import LEAST_WORDS, CosyVoiceTask
from loquent.tts.cosyvoice.voice import Voice
from loquent.tts.synthesizer import Synthesizer

version_2 = pytest.mark.parametrize("checkpoint", [2], indirect=True, ids=["CosyVoice 2"])
TEXT = "the quick fox says so, and lazy dogs jump!"
SENTENCE = "so the dog and the fox and the quick dogs jump over it!"


@pytest.fixture(scope="module")
def task(cosyvoice: CosyVoice) -> CosyVoiceTask:
    return CosyVoiceTask(cosyvoice)


@pytest.fixture
def brief(task: CosyVoiceTask, monkeypatch: pytest.MonkeyPatch) -> CosyVoiceTask:
    """It does not take long about anything."""
    monkeypatch.setattr(task.stages.generator, "most", 0.5)
    return task


@pytest.fixture(scope="module")
def sample() -> Audio:
    """Two seconds of speech."""
    audio = read_audio(Path(loquent.speech.__file__).parent / "assets" / "sample.flac")
    return Audio(audio.samples[: 2 * audio.sample_rate], audio.sample_rate)


def speech(events: Sequence[Event]) -> np.ndarray:
    parts = [event.samples for event in events if isinstance(event, Speech)]
    return np.concatenate([np.zeros(0, np.float32), *parts])


def said(events: Sequence[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, Speech))


def finals(events: Sequence[Event]) -> list[Final]:
    return [event for event in events if isinstance(event, Final)]


def test_speech_obeys_the_laws(task_laws, cosyvoice, brief):
    context = "words" if cosyvoice.config.version == 2 else "sentence"
    texts = [["the dog", task_laws.FLUSH, " so"], ["quick, fox"]]
    options = {"context": context, "voice": "Ben", "seed": 5}
    task_laws.check_task(task_laws.on_engine(brief, **options), texts, examples=2, atol=1e-4)


@pytest.mark.parametrize("context", ["words", "sentence"])
@pytest.mark.parametrize("voice", ["Anna", "Ben"])
def test_an_utterance_is_the_whole_speech(cosyvoice, brief, voice, context):
    whole = cosyvoice.synthesize(TEXT, voice, in_turns=context == "words", seed=3)
    session = Engine(brief).open(voice=voice, context=context, seed=3)
    events = session.push(TEXT) + session.finish()
    assert len(speech(events)) == len(whole.samples) > 5_000
    np.testing.assert_allclose(speech(events), whole.samples, rtol=0, atol=1e-4)
    assert [event.text for event in finals(events)] == [TEXT]


@version_2
def test_speech_begins_within_the_sentence_or_behind_it(brief):
    session = Engine(brief).open(voice="Ben")
    assert said(session.push(SENTENCE)).startswith("so the dog")
    waiting = Engine(brief).open(voice="Ben", context="sentence")
    assert waiting.push(SENTENCE) == []
    assert said(waiting.finish()) == SENTENCE


@version_2
def test_speech_brings_the_text_and_follows_on(brief):
    text = f" {SENTENCE} {TEXT} so they say."
    session = Engine(brief).open(voice="Ben")
    events = session.push(text) + session.finish()
    assert said(events) == text
    assert not [event for event in events if isinstance(event, Word)]
    spoken = [event for event in events if isinstance(event, Speech)]
    assert spoken[0].start == 0
    for before, after in itertools.pairwise(spoken):
        assert after.start == before.end
        assert after.span[0] >= before.span[1]
    for event in spoken:
        assert event.end - event.start == pytest.approx(len(event.samples) / 24_000)
        assert text[slice(*event.span)] == event.text.strip()
    first, second = finals(events)
    assert (first.text, second.text) == (SENTENCE, f"{TEXT} so they say.")
    assert (first.start, first.end, second.end) == (0, second.start, spoken[-1].end)


@version_2
@pytest.mark.parametrize(
    ("text", "utterances"),
    [
        (f"{SENTENCE} so", [SENTENCE, "so"]),
        ("so! so? so.", ["so! so? so."]),
        (f"{SENTENCE}\u201d ... {SENTENCE}", [f"{SENTENCE}\u201d", f"... {SENTENCE}"]),
        ("狐狸说狐狸说狐狸说狐狸说。狐", ["狐狸说狐狸说狐狸说狐狸说。", "狐"]),
        (" ... ", []),
        ("\u2014 \n!!", []),
        ("", []),
    ],
)
def test_utterances_end_with_sentences_that_are_long_enough(brief, text, utterances):
    assert len(SENTENCE.split()) >= LEAST_WORDS
    session = Engine(brief).open(voice="Anna", context="sentence")
    events = session.push(text) + session.finish()
    assert [event.text for event in finals(events)] == utterances
    assert session.done


@version_2
@pytest.mark.parametrize(
    "text",
    ["fox " * 12, "x" * 50, "\U0001f98a狐" * 4, " " * 700 + "fox" + "!" * 160],
    ids=["words", "one word", "symbols", "white space and punctuation"],
)
def test_what_has_no_end_is_spoken_in_pieces(brief, text, monkeypatch):
    monkeypatch.setattr(brief.stages.generator.model.decoder, "capacity", 100)
    engine = Engine(brief)
    session = engine.open(voice="Ben")
    session.feed(text)
    session.end()
    events, most = list[Event](), 0
    while engine.step():
        events += session.drain()
        most = max(most, int(engine.state.tokens.position[0]))
        assert len(json.dumps(session.memo.to_dict())) < 20_000
    assert session.done
    assert "failure" not in [event.type for event in events]
    spoken = "".join(event.text for event in finals(events))
    assert list(filter(str.isalnum, spoken)) == list(filter(str.isalnum, text))  # what only is punctuation is left out
    assert 0 < most <= 100


@version_2
def test_an_utterance_depends_on_its_number_and_the_seed_alone(brief):
    def second(first: str, seed: int) -> np.ndarray:
        session = Engine(brief).open(voice="Ben", seed=seed)
        session.push(first)
        session.flush()
        return speech(session.push("quick fox") + session.finish())

    assert np.array_equal(second("so they", 1), second("so", 1))
    assert not np.array_equal(second("so", 1), second("so", 2))
    session = Engine(brief).open(voice="Ben", seed=1)
    assert not np.array_equal(second("so", 1), speech(session.push("quick fox") + session.finish()))


@version_2
def test_text_without_an_answer_is_told(brief, monkeypatch):
    monkeypatch.setattr(brief.stages.generator, "most", 0.0)
    session = Engine(brief).open(voice="Ben", context="sentence")
    events = session.push("so, fox") + session.finish()
    assert events == [
        Skipped(text="so, fox", span=(0, 7), reason="the model has nothing to say for it", stream="stream-1")
    ]


@version_2
def test_interruption_tells_the_speech_that_was_heard_whole(brief):
    session = Engine(brief).open(voice="Ben")
    spoken = [event for event in session.push(f"{SENTENCE} so ") if isinstance(event, Speech)]
    third = [event for event in spoken if event.text][2]
    (interrupted,) = session.interrupt(played_s=third.end + 0.01)
    heard = "".join(event.text for event in spoken if event.end <= third.end)
    assert SENTENCE.startswith(heard)
    assert interrupted == Interrupted(
        text=heard, span=(0, len(heard)), heard=third.end + 0.01, stream="stream-1", sequence=interrupted.sequence
    )
    more = session.push("dogs jump") + session.finish()
    assert said(more) == "dogs jump"
    assert more[0].start == pytest.approx(third.end + 0.01)


@version_2
@pytest.mark.parametrize("context", ["words", "sentence"])
@pytest.mark.parametrize(
    ("before", "played"),
    [("", 0.0), ("so", None), ("so the quick fox and the", 0.1), (f"{SENTENCE} so", None), ("so. FLUSH", 1e6)],
)
def test_what_follows_an_interruption_is_as_at_the_start(brief, context, before, played):
    session = Engine(brief).open(voice="Ben", context=context, seed=7)
    given = session.push(before.removesuffix("FLUSH"))
    if before.endswith("FLUSH"):
        given += session.flush()
    (interrupted,) = [event for event in session.interrupt(played) if isinstance(event, Interrupted)]
    assert 0 <= interrupted.heard <= len(speech(given)) / 24_000
    assert interrupted.text in before
    after = session.push("dogs jump") + session.finish()
    fresh = Engine(brief).open(voice="Ben", context=context, seed=7)
    alone = fresh.push("dogs jump") + fresh.finish()
    assert said(after) == said(alone) == "dogs jump"
    assert np.array_equal(speech(after), speech(alone))


@version_2
def test_an_interrupted_stream_that_had_ended_comes_to_its_end(brief):
    session = Engine(brief).open()
    session.feed(SENTENCE)
    session.end()
    for _ in range(20):
        session.engine.step()
    session.interrupt()
    session.run()
    assert session.done


@version_2
def test_wrong_options_are_refused(task):
    engine = Engine(task)
    for options, reason in (
        ({"voice": "Carla"}, "voice: there is no 'Carla'; expected one of Anna, Ben"),
        ({"voice": "Anna:0.5+Ben"}, "voice: there is no"),
        ({"seed": -1}, "seed: expected"),
        ({"context": "page"}, "context: expected one of words, sentence"),
        ({"speed": 2.0}, "speed: unknown; .*expected one of voice, context, seed"),
    ):
        with pytest.raises(OptionError, match=reason):
            engine.open(**options)
    session = engine.open(voice="Ben")
    with pytest.raises(ValueError, match="voice: fixed at the start"):
        session.configure(voice="Anna")
    session.configure(voice="Ben")


@version_2
def test_voices_that_leave_no_room_are_refused(cosyvoice):
    model = copy.copy(cosyvoice)
    long = Voice(torch.zeros(12), tuple(range(257, 287)), (1,) * 120, torch.zeros(240, 80))
    model.voices = {"long": long}
    with pytest.raises(OptionError, match="voice: 30 text tokens and 120 speech tokens leave no room"):
        Engine(CosyVoiceTask(model)).open()
    model.voices = {}
    with pytest.raises(OptionError, match="voice: the checkpoint knows none"):
        Engine(CosyVoiceTask(model)).open()


NONSENSE: list[Any] = [None, True, -1, 10**6, 2**70, 1.5, "x", "\ud800", "x" * 10**5, [], [3], [2**40], {}, [[1]]]


@version_2
@pytest.mark.parametrize("context", ["words", "sentence"])
def test_damaged_memos_are_refused_or_harmless(brief, context):
    engine = Engine(brief, capacity=1)
    session = engine.open(voice="Ben", context=context)
    session.feed("so the quick fox jumps")
    for _ in range(8):
        engine.step()
    values = json.loads(json.dumps(session.memo.to_dict()))
    assert brief.restore(values).to_dict() == session.memo.to_dict()
    assert values["utterance"]
    slot = engine.state.gather([session.slot])
    damaged = [{**values, name: bad} for name in values for bad in NONSENSE]
    damaged += [
        {**values, "utterance": {**values["utterance"], name: bad}} for name in values["utterance"] for bad in NONSENSE
    ]
    damaged += [{name: value for name, value in values.items() if name != gone} for gone in values]
    refused = 0
    for one in damaged:
        try:
            memo = brief.restore(one)
            brief.check_restored(memo, slot)
        except (ValueError, KeyError, TypeError):
            refused += 1
            continue
        engine = Engine(brief, capacity=1)
        session = engine.open(voice="Ben", context=context)
        engine.state.scatter([session.slot], slot)
        session.memo = memo
        events = session.push(" so") + ([] if session.done else session.finish())
        assert session.done
        assert "failure" not in [event.type for event in events]
    assert refused > 0.9 * len(damaged)


@version_2
def test_memo_and_state_belong_together(brief):
    engine = Engine(brief, capacity=2)
    one, other = engine.open(voice="Ben", seed=1), engine.open(voice="Ben", seed=1)
    one.push("so the quick fox jumps over")
    other.push("so")
    brief.check_restored(one.memo, engine.state.gather([one.slot]))
    with pytest.raises(ValueError, match="steps of the language model, but its state"):
        brief.check_restored(one.memo, engine.state.gather([other.slot]))


@version_2
def test_a_stream_is_restored_with_its_own_voice(cosyvoice, brief):
    session = Engine(brief).open(voice="Ben")
    session.push("so the quick")
    model = copy.copy(cosyvoice)
    elsewhere = Engine(CosyVoiceTask(model))
    model.voices = {"Anna": cosyvoice.voices["Anna"]}
    elsewhere.task.fingerprint = brief.fingerprint
    with pytest.raises(ValueError, match="there is no 'Ben'"):
        elsewhere.restore(session.snapshot())
    model.voices = {"Ben": cosyvoice.voices["Anna"]}
    with pytest.raises(ValueError, match="the voice 'Ben' is another one here"):
        elsewhere.restore(session.snapshot())


@version_2
def test_a_stream_that_breaks_down_ends_alone(brief):
    engine = Engine(brief, capacity=3)
    good, faint, full = (engine.open(voice="Ben", seed=1) for _ in range(3))
    for session in (good, faint, full):
        session.feed("so the quick fox jumps")
        session.end()
    for _ in range(3):
        engine.step()
    engine.state.flow.speaker[faint.slot] = torch.nan
    full.memo.utterance.script.spoken += 300  # it seems to have had more steps than there is room for
    while engine.step():
        pass
    assert faint.drain()[-1].message.endswith("samples that are not finite numbers")
    assert "more than the capacity of 300" in full.drain()[-1].message
    alone = Engine(brief).open(voice="Ben", seed=1)
    expected = alone.push("so the quick fox jumps") + alone.finish()
    np.testing.assert_allclose(speech(good.drain()), speech(expected), rtol=0, atol=1e-4)


@version_2
def test_a_row_of_translator_and_voice_speaks(brief, swapped):
    engines = {"swap": Engine(swapped.Swapped()), "speak": Engine(brief)}
    pipeline = Pipeline.open(engines, voice="Ben")
    events = pipeline.push("fox quick dogs") + pipeline.finish()
    assert said(events).split() == ["quick", "fox#2", "dogs#3"]
    assert len(speech(events)) > 0


def test_a_recording_gives_a_voice(task, checkpoint, tiny, sample, monkeypatch):
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    monkeypatch.setattr(task.voice, "voices", dict(task.voice.voices))
    tiny.write_readers(checkpoint, task.voice.config.version)
    try:
        task.add_voice("Cleo", sample, "so they say")
        with pytest.raises(ValueError, match="a name of its own, got 'Cleo'"):
            task.add_voice("Cleo", sample)
        with pytest.raises(ValueError, match="leave no room"):
            task.add_voice("Dora", sample, "so they say " * 20)
    finally:
        for file in checkpoint.glob("*.onnx"):
            file.unlink()
    assert task.voice.speakers == ("Anna", "Ben", "Cleo")
    session = Engine(task).open(voice="Cleo")
    events = session.push("so") + session.finish()
    whole = task.voice.synthesize("so", "Cleo", in_turns=True)
    np.testing.assert_allclose(speech(events), whole.samples, rtol=0, atol=1e-4)


def test_a_synthesizer_speaks_with_it(checkpoint, cosyvoice, tmp_path, capsys):
    (checkpoint / "campplus.onnx").touch()  # as there is one for each voice of hibari
    try:
        synthesizer = Synthesizer.from_pretrained(checkpoint, device="cpu")
        with pytest.raises(ValueError, match="chunk_ms"):
            Synthesizer.from_pretrained(checkpoint, device="cpu", chunk_ms=50)
    finally:
        (checkpoint / "campplus.onnx").unlink()
    assert isinstance(synthesizer.streaming_task(), CosyVoiceTask)
    assert (synthesizer.voices, synthesizer.sample_rate) == (("Anna", "Ben"), 24_000)
    result = synthesizer.synthesize("so", voice="Ben", seed=3)
    assert [segment.text for segment in result.segments] == ["so"]
    assert result.duration_s > 0.5
    session = synthesizer.session(voice="Ben", seed=3)
    np.testing.assert_array_equal(speech(session.push("so") + session.finish()), result.samples)
    with pytest.raises(OptionError, match="lexicon: unknown"):
        synthesizer.synthesize("so", lexicon={})


def test_the_command_line_speaks_with_it(checkpoint, tmp_path, capsys):
    out, words = tmp_path / "so.wav", tmp_path / "so.srt"
    speak = ["speak", "so", "--model", str(checkpoint), "--device", "cpu", "-o", str(out)]
    assert main([*speak, "--voice", "Ben", "--save-words", str(words)]) == 0
    assert read_audio(out).duration_s > 0.5
    assert words.read_text().split()[-1] == "so"
    capsys.readouterr()
    for flags, reason in (
        (["--speed", "1.5"], f"--speed is not for the model {str(checkpoint)!r}, which has no such option"),
        (["--ssml"], "--ssml is not for the model"),
        (["--voice", "Carla"], "--voice: there is no 'Carla'; expected one of Anna, Ben"),
    ):
        assert main([*speak, *flags]) == 2
        assert reason in capsys.readouterr().err
