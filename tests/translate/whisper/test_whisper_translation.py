"""Whisper's translation of speech: the laws, long speech, silence, two texts of one model, and what is refused."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers.pre_tokenizers import ByteLevel

import loquent.speech
from loquent.asr.whisper.config import WhisperConfig
from loquent.asr.whisper.conversion import weight_shapes
from loquent.asr.whisper.live.draft_decoding import StreamingHypothesis
from loquent.asr.whisper.live.memo import CommittedWord
from loquent.asr.whisper.live.options import StreamingOptions, WhisperStreamOptions
from loquent.asr.whisper.live.overlap import next_begin
from loquent.asr.whisper.live.task import WhisperStreamingTask
from loquent.asr.whisper.model import Whisper
from loquent.asr.whisper.tokenizer import WhisperTokenizer
from loquent.speech.audio.files import read_audio
from loquent.speech.runtime.engine import Engine
from loquent.speech.runtime.events import Endpoint, Event, Final, Language, Partial, Translation, Word
from loquent.speech.runtime.pipeline import Pipeline
from loquent.speech.text.languages import LANGUAGES
from loquent.translate.whisper.task import WhisperTranslationTask

RATE = 16_000
SAMPLE = Path(loquent.speech.__file__).parent / "assets" / "sample.flac"
CONTROL = ("translate", "transcribe", "startoflm", "startofprev", "nospeech", "notimestamps")


@pytest.fixture(scope="module")
def tokenizer() -> WhisperTokenizer:
    """All bytes, a few words, and the control tokens of a multilingual model."""
    pairs = [("Ġ", letter) for letter in "abcdefghijklmnopqrstuvwxyz"]
    names = [*sorted(ByteLevel.alphabet()), *(left + right for left, right in pairs)]
    names += [f"<|{name}|>" for name in ("endoftext", "startoftranscript", *LANGUAGES, *CONTROL)]
    return WhisperTokenizer({name: number for number, name in enumerate(names)}, pairs)


@pytest.fixture(scope="module")
def model(tokenizer: WhisperTokenizer) -> Whisper:
    """Windows of 4 s. It writes nonsense, but its nonsense depends on all it hears and has read."""
    config = WhisperConfig(80, 200, 64, 2, 2, tokenizer.n_vocab, 96, 64, 2, 2, alignment_heads=((1, 0),))
    generator = torch.Generator().manual_seed(1)
    weights = {
        name: torch.randn(shape, generator=generator) * (1.0 if "embedding" in name else 0.15)
        for name, shape in weight_shapes(config).items()
    }
    weights["decoder.token_embedding.weight"][tokenizer.eot] *= 2  # or it would hardly ever stop
    return Whisper.from_weights(config, weights)


@pytest.fixture(scope="module")
def talk() -> np.ndarray:
    """Speech for longer than a window, a pause that ends the utterance, and a few words more."""
    sample = read_audio(SAMPLE, RATE).samples
    return np.concatenate([sample[:80_000], np.zeros(20_800, np.float32), sample[144_000:160_777]])


def settings(**changed: Any) -> StreamingOptions:
    return StreamingOptions(
        **{"policy": "alignatt", "chunk_ms": 500, "overlap_s": 1.0, "tokens_per_second": 4.0, **changed}
    )


def whole(on: Any, audio: np.ndarray, **options: Any) -> list[Event]:
    session = Engine(on).open(stream="s", **options)
    return session.push(audio) + session.finish()


@pytest.mark.parametrize(("policy", "transcript"), [("alignatt", True), ("local-agreement", False)])
def test_the_laws(
    model: Whisper, tokenizer: WhisperTokenizer, talk: np.ndarray, task_laws: ModuleType, policy: Any, transcript: bool
) -> None:
    task = WhisperTranslationTask(model, tokenizer, settings(policy=policy))
    task_laws.check_task(task_laws.on_engine(task, transcript=transcript), [talk, talk[50_000:70_000]], examples=1)


def test_it_says_what_the_recogniser_does_in_its_mode(
    model: Whisper, tokenizer: WhisperTokenizer, talk: np.ndarray
) -> None:
    """Text, times and order, full windows included; words are translations."""
    task = WhisperTranslationTask(model, tokenizer, settings())
    events = whole(task, talk, language="de")
    recognised = whole(task.recognition, talk, language="de", task="translate")
    assert {type(event) for event in events} == {Translation, Partial, Final, Endpoint}
    assert len(events) == len(recognised)
    for event, other in zip(events, recognised, strict=True):
        if isinstance(other, Word):
            assert isinstance(event, Translation)
            assert (event.text, event.span, event.emission_time) == (other.text, (0, 0), other.emission_time)
        else:
            assert event == other


def test_both_texts_are_those_of_each_alone_until_a_window_is_full(
    model: Whisper, tokenizer: WhisperTokenizer, talk: np.ndarray
) -> None:
    task = WhisperTranslationTask(model, tokenizer, settings())
    spoken = talk[: 3 * RATE]
    both = whole(task, spoken, language="de", transcript=True)
    assert [event.text for event in both if isinstance(event, Word)] == [
        event.text for event in whole(task.recognition, spoken, language="de") if isinstance(event, Word)
    ]
    alone = whole(task, spoken, language="de")
    assert [event.text for event in both if isinstance(event, Translation)] == [
        event.text for event in alone if isinstance(event, Translation)
    ]


def test_both_texts_share_each_pass_of_the_encoder(
    model: Whisper, tokenizer: WhisperTokenizer, talk: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through full windows and the beginning of another utterance."""
    task = WhisperTranslationTask(model, tokenizer, settings())
    passes: list[int] = []
    encode = model.encoder.forward

    def counted(mel: torch.Tensor, *rest: Any) -> torch.Tensor:
        passes.append(len(mel))
        return encode(mel, *rest)

    monkeypatch.setattr(model.encoder, "forward", counted)
    events = whole(task, talk, transcript=True)
    assert {type(event) for event in events} == {Language, Word, Translation, Partial, Final, Endpoint}
    assert sum(isinstance(event, Final) for event in events) > 2
    assert set(passes) == {1}


def test_a_next_stage_is_given_the_translation_alone(
    model: Whisper, tokenizer: WhisperTokenizer, talk: np.ndarray, swapped: ModuleType
) -> None:
    def spoken(transcript: bool) -> list[Event]:
        tasks = {"translate": WhisperTranslationTask(model, tokenizer, settings()), "speak": swapped.Swapped()}
        engines = {name: Engine(task) for name, task in tasks.items()}
        stream = Pipeline.open(engines, stream="s", language="de", transcript=transcript)
        return [event for event in stream.push(talk[: 2 * RATE]) + stream.finish() if event.stage == "speak"]

    assert spoken(True) == spoken(False) != []


def test_silence_says_nothing(model: Whisper, tokenizer: WhisperTokenizer) -> None:
    task = WhisperTranslationTask(model, tokenizer, settings())
    assert whole(task, np.zeros(30 * RATE, np.float32), transcript=True) == []


def test_the_next_window_has_all_that_its_first_words_rest_on() -> None:
    """The third word stands for something that was said before the second."""
    words = [CommittedWord(0.2, 0.8, 1, 0.5), CommittedWord(2.0, 2.4, 1, 2.3), CommittedWord(2.4, 3.1, 1, 1.4)]
    assert next_begin(words, 2.2, monotonic=True) == 2.4
    assert next_begin(words, 2.2, monotonic=False) == 1.4
    assert next_begin([], 2.2, monotonic=False) == 2.2


def test_the_text_is_english_whatever_is_spoken(model: Whisper, tokenizer: WhisperTokenizer) -> None:
    """A language that is written without spaces does not make a word of each letter."""
    task = WhisperStreamingTask(model, tokenizer, settings())
    memo = task.start(WhisperStreamOptions("ja", "translate"))
    window = task._new_window(memo, 0, [])
    tokens = tokenizer.encode(" they say")
    attention = torch.nn.functional.one_hot(torch.arange(len(tokens)), 200).float()
    events: list[Event] = []
    hypothesis = StreamingHypothesis(tokens, [0.0] * len(tokens), [1.0] * len(tokens), list(attention), True)
    memo.frames = 300
    task._commit(memo, window, hypothesis, len(tokens), events)
    assert [event.text for event in events if isinstance(event, Word)] == [" they", " say"]


def test_what_cannot_translate_is_refused(
    model: Whisper, tokenizer: WhisperTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match="policy: expected local-agreement or alignatt"):
        WhisperTranslationTask(model, tokenizer, StreamingOptions(policy="incremental"))
    engine = Engine(WhisperTranslationTask(model, tokenizer, settings()))
    for wrong in ({"language": "Klingon"}, {"transcript": 1}, {"mode": "transcribe"}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            engine.open(**wrong)
    assert engine.active == 0
    monkeypatch.setattr(WhisperTokenizer, "is_multilingual", False)
    with pytest.raises(ValueError, match="English only"):
        WhisperTranslationTask(model, tokenizer, settings())


def test_snapshots_whose_texts_do_not_belong_together_are_refused(
    model: Whisper, tokenizer: WhisperTokenizer, talk: np.ndarray
) -> None:
    task = WhisperTranslationTask(model, tokenizer, settings())
    session = Engine(task).open(transcript=True)
    session.push(talk[: 2 * RATE])
    values = session.memo.to_dict()
    assert task.restore(values).to_dict() == values
    for wrong in (
        {**values, "transcript": values["translation"]},
        {**values, "transcript": task.start(task.Options(transcript=True)).to_dict()["transcript"]},
        {**values, "transcript": None},
        {"options": values["options"]},
    ):
        with pytest.raises(ValueError, match="not the memo"):
            task.restore(wrong)


def test_nothing_is_committed_while_the_language_may_turn_out_to_be_another(
    model: Whisper, tokenizer: WhisperTokenizer, talk: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = WhisperTranslationTask(model, tokenizer, settings())
    monkeypatch.setattr(task.recognition, "rule", lambda drafts, hypothesis, frames: len(hypothesis.tokens))
    session = Engine(task).open()
    early, packet = list[Event](), RATE // 2
    for begin in range(0, len(talk), packet):
        events = session.push(talk[begin : begin + packet])
        if session.memo.translation.language is not None:
            break
        early += events
    assert {type(event) for event in early} == {Partial}
    assert any(isinstance(event, Translation) for event in events)
