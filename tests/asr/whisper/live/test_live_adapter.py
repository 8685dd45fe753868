"""The adapters that come with loquent: tiny.en streams incrementally with its own unless one says otherwise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import loquent.speech
from loquent.asr import Recognizer
from loquent.asr.whisper.adapter_bank import NONE
from loquent.asr.whisper.live.task import WhisperStreamingTask
from loquent.asr.whisper.lora import adapter_info, base_digest
from loquent.asr.whisper.recognizer import WhisperRecognizer
from loquent.recipes.data.augment import colored_noise
from loquent.recipes.loop.error_rate import error_rate
from loquent.recipes.whisper.evaluation import final_text, plain_words
from loquent.speech.hub import SHIPPED_ADAPTERS, resolve_adapter
from loquent.speech.runtime.engine import Engine

LIVE = "loquent/live-tiny.en"
TEXT = (Path(loquent.speech.__file__).parent / "assets" / "sample.txt").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def recognizer() -> WhisperRecognizer:
    loaded = Recognizer.from_pretrained("tiny.en")
    assert isinstance(loaded, WhisperRecognizer)
    return loaded


@pytest.fixture(scope="module")
def task(recognizer: WhisperRecognizer) -> WhisperStreamingTask:
    return recognizer.streaming_task(policy="incremental")


def test_incremental_streams_go_through_it(recognizer: WhisperRecognizer, task: WhisperStreamingTask) -> None:
    assert task.settings.chunk_ms == 300
    assert recognizer.live_adapter == LIVE
    assert task.start(task.Options()).adapter == LIVE
    assert adapter_info(LIVE).base_digest == base_digest(recognizer.model)
    for name in SHIPPED_ADAPTERS:
        assert (resolve_adapter(name) / "README.md").is_file()  # the model card


def test_a_prompt_leaves_no_mark_in_the_text(recognizer: WhisperRecognizer, sample: np.ndarray) -> None:
    session = recognizer.session(prompt="Ada Lovelace")
    heard = final_text(session.push(sample[: 5 * 16_000]) + session.finish()).strip()
    assert heard.lower().startswith("streaming recognition")


def test_a_model_of_many_languages_streams_in_that_of_its_adapter(base: WhisperRecognizer, sample: np.ndarray) -> None:
    assert base.streaming_task().settings.policy == "local-agreement"
    assert base.streaming_task(language="German").settings.policy == "local-agreement"
    assert not len(base.adapters)
    task = base.streaming_task(language="English")
    assert (task.settings.policy, task.settings.chunk_ms, task.start(task.Options()).adapter) == (
        "incremental",
        300,
        "loquent/live-base",
    )
    assert task.start(task.Options()).language == "en"
    with pytest.raises(ValueError, match="no adapter for live audio in 'de'"):
        task.start(task.Options(language="de"))
    assert base.streaming_task().settings.policy == "local-agreement"  # although the adapter is loaded by now
    session = base.session(language="en", sample_rate=16_000)
    heard = final_text(session.push(sample) + session.finish())
    assert error_rate([(plain_words(TEXT), plain_words(heard))]) < 15


def test_a_language_that_the_model_lacks_is_named(task: WhisperStreamingTask) -> None:
    with pytest.raises(ValueError, match="English-only"):
        task.start(task.Options(language="fr"))


def test_other_policies_hear_with_the_stock_model(recognizer: WhisperRecognizer) -> None:
    task = recognizer.streaming_task(policy="local-agreement")
    assert task.start(task.Options()).adapter is None


def test_it_can_be_declined() -> None:
    stock = Recognizer.from_pretrained("tiny.en", adapter=NONE)
    assert isinstance(stock, WhisperRecognizer)
    task = stock.streaming_task(policy="incremental")
    assert task.start(task.Options()).adapter is None
    assert len(stock.adapters) == 0
    assert stock.streaming_task().settings.policy == "local-agreement"


def test_it_is_the_default_of_streams(recognizer: WhisperRecognizer) -> None:
    settings = recognizer.streaming_task().settings
    assert (settings.policy, settings.chunk_ms, settings.block) == ("incremental", 300, 50)


@pytest.mark.parametrize("chunk_ms", [100, 300, 1000])
def test_it_hears_what_is_said(recognizer: WhisperRecognizer, sample: np.ndarray, chunk_ms: int) -> None:
    session = Engine(recognizer.streaming_task(policy="incremental", chunk_ms=chunk_ms)).open()
    heard = final_text(session.push(sample) + session.finish())
    assert error_rate([(plain_words(TEXT), plain_words(heard))]) < 20


@pytest.mark.parametrize("chunk_ms", [300, 1000])
def test_the_last_word_is_written_although_nothing_follows_it(
    recognizer: WhisperRecognizer, sample: np.ndarray, chunk_ms: int
) -> None:
    """The recording is cut where its last sentence begins and where its last word ends."""
    loud = np.flatnonzero(np.abs(sample) > 0.02)
    session = Engine(recognizer.streaming_task(policy="incremental", chunk_ms=chunk_ms)).open()
    heard = final_text(session.push(sample[round(8.8 * 16_000) : loud[-1] + 1]) + session.finish())
    assert plain_words(heard).split()[-2:] == ["last", "word"]


def test_noise_says_nothing(task: WhisperStreamingTask) -> None:
    rng = np.random.default_rng(0)
    session = Engine(task).open()
    noise = np.concatenate([colored_noise(160_000, tilt, rng) * level for tilt, level in ((0, 0.02), (1.5, 0.1))])
    events = session.push(noise.astype(np.float32)) + session.finish()
    assert final_text(events) == ""
