"""The laws, from samples to text: packets, batch mates, snapshots, full windows, silence and the last word."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from loquent.asr.whisper.live.draft_decoding import StreamingHypothesis
from loquent.asr.whisper.live.memo import CommittedWord
from loquent.asr.whisper.live.options import StreamingOptions
from loquent.asr.whisper.live.overlap import next_begin
from loquent.asr.whisper.live.task import WhisperStreamingTask
from loquent.asr.whisper.model import Whisper
from loquent.asr.whisper.recognizer import WhisperRecognizer
from loquent.asr.whisper.tokenizer import WhisperTokenizer
from loquent.speech.runtime.engine import Engine
from loquent.speech.runtime.events import Event

POLICIES = ("local-agreement", "alignatt", "incremental")
RATE = 16_000


@pytest.fixture(
    scope="module", params=[(p, v) for p in POLICIES for v in (True, False)], ids=lambda p: f"{p[0]}-vad={p[1]}"
)
def task(request: pytest.FixtureRequest, toy_whisper: Whisper, tokenizer: WhisperTokenizer) -> WhisperStreamingTask:
    policy, vad = request.param
    options = StreamingOptions(policy=policy, chunk_ms=500, vad=vad, overlap_s=1.0, tokens_per_second=4.0)
    return WhisperStreamingTask(toy_whisper, tokenizer, options)


def whole(task: WhisperStreamingTask, audio: np.ndarray, **options: Any) -> list[Event]:
    session = Engine(task).open(**options)
    return session.push(audio) + session.finish()


@pytest.mark.parametrize("policy", POLICIES)
def test_silence_and_noise_say_nothing(tiny_en: Whisper, tokenizer: WhisperTokenizer, policy: Any) -> None:
    task = WhisperStreamingTask(tiny_en, tokenizer, StreamingOptions(policy=policy))
    noise = np.random.default_rng(0).normal(0, 0.02, 20 * RATE).astype(np.float32)
    assert whole(task, np.concatenate([np.zeros(20 * RATE, np.float32), noise])) == []


def plain(text: str) -> list[str]:
    return re.sub(r"[^a-z0-9 ]", "", text.lower()).split()


@pytest.mark.parametrize("policy", ["local-agreement", "alignatt"])
def test_real_speech_is_recognised_to_the_last_word(
    tiny_en: Whisper, tokenizer: WhisperTokenizer, sample: np.ndarray, policy: Any
) -> None:
    task = WhisperStreamingTask(tiny_en, tokenizer, StreamingOptions(policy=policy, chunk_ms=3000))
    events = whole(task, sample)
    text = plain("".join(event.text for event in events if event.type == "word"))
    assert text[:6] == "streaming recognition writes each word down".split()
    assert text[-5:] == "without losing the last word".split()


@pytest.mark.parametrize("chunk_ms", [3000, 5000])
def test_a_full_window_is_handed_over_without_losing_or_repeating_words(
    tiny_en: Whisper, tokenizer: WhisperTokenizer, sample: np.ndarray, first_sentence: np.ndarray, chunk_ms: int
) -> None:
    """Thirty-five seconds without a pause long enough to end the utterance: the text is that of its three parts."""
    options = StreamingOptions(policy="local-agreement", chunk_ms=chunk_ms, vad=False)
    task = WhisperStreamingTask(tiny_en, tokenizer, options)
    once = plain("".join(e.text for e in whole(task, sample) if e.type == "word"))
    events = whole(task, np.concatenate([sample, sample, first_sentence]))
    text = plain("".join(event.text for event in events if event.type == "word"))
    assert text == once * 2 + once[: once.index("speaking") + 1]
    assert sum(event.type == "final" for event in events) >= 2


def test_a_window_begins_with_the_last_word_although_it_is_long_ago(
    toy_whisper: Whisper, tokenizer: WhisperTokenizer
) -> None:
    """The next window contains no end of a word that its decoder has not been given."""
    task = WhisperStreamingTask(toy_whisper, tokenizer, StreamingOptions(chunk_ms=200, overlap_s=1.0))
    memo = task.start(task.Options())
    memo.frames = 390
    window = task._new_window(memo, 0, tokenizer.encode(" nine ten"))
    window.words = [CommittedWord(0.5, 0.9, 1, 0.6), CommittedWord(1.45, 2.0, 1, 1.7)]
    following = task._hand_over(memo, window, next_begin(window.words, 2.9, True))
    assert (following.start, following.committed) == (140, tokenizer.encode(" ten"))
    assert following.words == window.words[1:]
    assert memo.context == tokenizer.encode(" nine")


def test_a_model_that_is_led_astray_by_its_words_goes_on_without_them(
    toy_whisper: Whisper, tokenizer: WhisperTokenizer
) -> None:
    """What was said is committed, and the next window begins behind it."""
    task = WhisperStreamingTask(toy_whisper, tokenizer, StreamingOptions(chunk_ms=200, overlap_s=1.0))
    memo = task.start(task.Options(prompt="Names."))
    memo.frames, memo.context = 1290, tokenizer.encode(" eight")
    window = task._new_window(memo, 500, tokenizer.encode(" nine"))
    window.words = [CommittedWord(8.5, 8.905, 1, 8.6)]
    assert not task._is_lost(memo, window, StreamingHypothesis())
    assert task._is_lost(memo, window, StreamingHypothesis(looped=True))
    memo.frames += 20
    assert task._is_lost(memo, window, StreamingHypothesis())
    window.open = tokenizer.encode(" ten")
    assert not task._is_lost(memo, window, StreamingHypothesis())
    task._begin_afresh(memo, window)
    assert memo.window is not None
    assert (memo.window.start, memo.window.committed, memo.window.open) == (891, [], [])
    told = tokenizer.decode([token for token in memo.window.control if tokenizer.is_text(token)])
    assert told == " Names."
    assert not task._is_lost(memo, memo.window, StreamingHypothesis(looped=True))  # it knows nothing that could


def test_a_snapshot_continues_in_another_process(
    tiny_en: Whisper, tokenizer: WhisperTokenizer, sample: np.ndarray, tmp_path: Any
) -> None:
    task = WhisperStreamingTask(tiny_en, tokenizer, StreamingOptions(policy="incremental", chunk_ms=600))
    session = Engine(task).open()
    session.push(sample[: 3 * RATE])
    (tmp_path / "snapshot").write_bytes(session.snapshot())
    np.save(tmp_path / "rest.npy", sample[3 * RATE : 5 * RATE])
    here = session.push(sample[3 * RATE : 5 * RATE]) + session.finish()
    program = """
import sys, numpy as np
from loquent.asr.whisper.live.task import WhisperStreamingTask
from loquent.asr.whisper.live.options import StreamingOptions
from loquent.asr.whisper.model import Whisper
from loquent.asr.whisper.checkpoint import load_whisper
from loquent.asr.whisper.tokenizer import WhisperTokenizer
from loquent.speech.runtime.engine import Engine
from loquent.speech.hub import resolve
path = resolve("tiny.en").path
checkpoint = load_whisper(path)
task = WhisperStreamingTask(Whisper.from_weights(checkpoint.config, checkpoint.weights), WhisperTokenizer.load(path),
                            StreamingOptions(policy="incremental", chunk_ms=600))
session = Engine(task).restore(open(sys.argv[1] + "/snapshot", "rb").read())
events = session.push(np.load(sys.argv[1] + "/rest.npy")) + session.finish()
print([e.text for e in events if e.type == "word"])
"""
    run = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == str([event.text for event in here if event.type == "word"])


def test_snapshots_of_other_models_are_refused(task: WhisperStreamingTask, talk: np.ndarray) -> None:
    engine = Engine(task)
    session = engine.open()
    session.push(talk[:RATE])
    snapshot = session.snapshot()
    session.close()
    with pytest.raises(ValueError, match="snapshot"):
        engine.restore(snapshot[:-10])
    other = WhisperStreamingTask(task.model, task.tokenizer, replace(task.settings, chunk_ms=520))
    with pytest.raises(ValueError, match="other options"):
        Engine(other).restore(snapshot)
    assert engine.active == 0


@pytest.mark.parametrize(
    "options",
    [
        {"chunk_ms": 30},
        {"chunk_ms": 0},
        {"policy": "guess"},
        {"overlap_s": 0.1},
        {"chunk_ms": 20_000},
        {"beam_size": 0},
        {"policy": "incremental", "commit": "soon"},
        {"policy": "incremental", "block_ms": 280},
        {"block_ms": 1000},
    ],
)
def test_wrong_options_are_named(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(reversed(options))):
        StreamingOptions(**options)


def test_wrong_stream_options_take_no_slot(task: WhisperStreamingTask) -> None:
    engine = Engine(task)
    with pytest.raises(ValueError, match="English-only"):
        engine.open(language="fr")
    assert engine.active == 0
    assert engine.open().marker("now") != []


@pytest.mark.parametrize(
    ("wrong", "name"),
    [
        ({"language": 5}, "language"),
        ({"prompt": None}, "prompt"),
        ({"adapter": 3}, "adapter"),
        ({"task": []}, "task"),
        ({"language": "Klingon"}, "Klingon"),
        ({"phrases": "fox"}, "phrases"),
    ],
)
def test_stream_options_of_the_wrong_kind_are_named(
    task: WhisperStreamingTask, wrong: dict[str, Any], name: str
) -> None:
    with pytest.raises(ValueError, match=name):
        Engine(task).open(**wrong)


def test_options_of_a_stream_are_fixed(task: WhisperStreamingTask) -> None:
    memo = task.start(task.Options(prompt="Ada"))
    task.configure(memo, task.Options(prompt="Ada"))
    with pytest.raises(ValueError, match="prompt, adapter: fixed at the start"):
        task.configure(memo, task.Options(adapter="none"))


def test_a_prompt_is_a_sentence_of_its_own(task: WhisperStreamingTask) -> None:
    """What follows an open one would go on with it: ", streaming recognition …"."""
    given = ["Ada", " Ada Lovelace ", "Ada.", "Ada?", "「東京」", " "]
    prompts = [task.tokenizer.decode(task.start(task.Options(prompt=prompt)).prompt) for prompt in given]
    assert prompts == [" Ada.", " Ada Lovelace.", " Ada.", " Ada?", " 「東京」", ""]


def test_languages_are_known_by_name_and_code(task: WhisperStreamingTask) -> None:
    languages = [task.start(task.Options(language=name)).language for name in ("English", "", None)]
    assert languages == ["en"] * 3


@pytest.mark.parametrize("policy", POLICIES)
def test_chunks_nearly_as_long_as_a_window_allows(
    toy_whisper: Whisper, tokenizer: WhisperTokenizer, talk: np.ndarray, policy: Any
) -> None:
    """Windows are handed over in time although a step takes a third of one."""
    chunk_ms = 1060 if policy == "incremental" else 1300
    options = StreamingOptions(policy=policy, chunk_ms=chunk_ms, vad=False, overlap_s=2 * chunk_ms / 1000)
    assert whole(WhisperStreamingTask(toy_whisper, tokenizer, options), np.concatenate([talk, 0 * talk]))
    with pytest.raises(ValueError, match="too long"):
        WhisperStreamingTask(toy_whisper, tokenizer, replace(options, chunk_ms=2000))


def test_an_incremental_window_ends_before_the_model_does(
    toy_whisper: Whisper, tokenizer: WhisperTokenizer, talk: np.ndarray
) -> None:
    def first_end(policy: Any) -> float:
        options = StreamingOptions(policy=policy, chunk_ms=100, vad=False, overlap_s=1.0)
        session = Engine(WhisperStreamingTask(toy_whisper, tokenizer, options)).open()
        packets = np.split(talk, range(1600, len(talk), 1600))
        events = (event for packet in packets for event in session.push(packet))
        return next(event.end for event in events if event.type == "final")

    longest_s = toy_whisper.config.n_audio_ctx / 50
    assert first_end("incremental") <= longest_s * 5 / 6 < first_end("local-agreement") <= longest_s


def test_a_click_only_delays_an_endpoint(toy_whisper: Whisper, tokenizer: WhisperTokenizer) -> None:
    task = WhisperStreamingTask(toy_whisper, tokenizer, StreamingOptions(chunk_ms=1000, overlap_s=1.0))
    memo = task.start(task.Options())
    assert task._endpointing(memo, [0.9] * 20, False) == (True, None)
    assert task._endpointing(memo, [0.0] * 30 + [0.9], False) == (True, None)  # silent for 0.96 s, then a click
    _, ended = task._endpointing(memo, [0.0] * 5, False)
    assert ended is not None
    assert ended.rule == "pause"
    assert task._endpointing(memo, [0.0] * 5, False) == (False, None)


def test_the_language_is_found_by_a_multilingual_model(base: WhisperRecognizer, sample: np.ndarray) -> None:
    task = WhisperStreamingTask(base.model, base.tokenizer, StreamingOptions(chunk_ms=2000))
    session = Engine(task).open(prompt="Ada Lovelace.")
    events = session.push(sample[: 6 * RATE])
    assert session.memo.language == "en"
    text = plain("".join(event.text for event in events + session.finish() if event.type == "word"))
    assert text[:6] == "streaming recognition writes each word down".split()
