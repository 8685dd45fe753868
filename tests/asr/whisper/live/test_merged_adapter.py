"""The default adapter of live streams is part of the weights that they go through, in int8, and of no others."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch

from loquent.asr import Recognizer
from loquent.asr.whisper.adapter_bank import NONE, AdapterBank
from loquent.asr.whisper.live.network import Networks
from loquent.asr.whisper.live.options import StreamingOptions
from loquent.asr.whisper.live.task import WhisperStreamingTask
from loquent.asr.whisper.lora import LoraAdapter, merge
from loquent.asr.whisper.model import Whisper
from loquent.asr.whisper.quantization import int8_layers, quantize_int8
from loquent.asr.whisper.recognizer import WhisperRecognizer
from loquent.asr.whisper.tokenizer import WhisperTokenizer
from loquent.recipes.loop.error_rate import word_errors
from loquent.speech.audio.features import WhisperLogMel, normalize_window
from loquent.speech.runtime.engine import Engine
from loquent.speech.runtime.events import Event, Word
from loquent.speech.runtime.session import Session

LIVE = "loquent/live-tiny.en"


@pytest.fixture(scope="module")
def recognizer() -> WhisperRecognizer:
    loaded = Recognizer.from_pretrained("tiny.en")
    assert isinstance(loaded, WhisperRecognizer)
    loaded.streaming_task()  # puts the adapter into the bank
    return loaded


@pytest.fixture(scope="module")
def merged(recognizer: WhisperRecognizer) -> WhisperStreamingTask:
    return recognizer.streaming_task()


@pytest.fixture(scope="module")
def beside(recognizer: WhisperRecognizer) -> WhisperStreamingTask:
    """A task whose streams have the adapter beside the weights."""
    bank = AdapterBank(recognizer.model)
    bank.add(LIVE, recognizer.adapters[LIVE])
    settings = StreamingOptions(policy="incremental", chunk_ms=300)
    task = WhisperStreamingTask(recognizer.model, recognizer.tokenizer, settings, bank)
    bank.default = LIVE
    return task


def said(events: list[Event]) -> list[str]:
    return [event.text.strip() for event in events if isinstance(event, Word)]


def heard(session: Session, audio: np.ndarray) -> list[Event]:
    return session.push(audio) + session.finish()


def through(task: WhisperStreamingTask, **options: str) -> list[bool]:
    """Whether a stream goes through the merged network."""
    memo = task.start(task.Options(**options))
    found = [network is not task.networks.stock for network, _ in task.networks.of_streams([0], [memo])]
    task.end(memo)
    return found


def test_which_streams_go_through_it(
    recognizer: WhisperRecognizer, merged: WhisperStreamingTask, beside: WhisperStreamingTask
) -> None:
    assert through(merged) == through(merged, adapter=LIVE) == [True]
    assert through(merged, adapter=NONE) == through(beside) == [False]
    assert through(recognizer.streaming_task(policy="local-agreement")) == [False]
    assert recognizer.adapters.merged() is recognizer.adapters.merged()  # made once for all sessions


def test_it_writes_what_the_adapter_beside_the_weights_writes(
    merged: WhisperStreamingTask, beside: WhisperStreamingTask, sample: np.ndarray
) -> None:
    """But for a word here or there that is as probable as another one. A stream may move from one to the other."""
    audio, half = sample[: 9 * 16_000], 5 * 16_000
    assert merged.fingerprint == beside.fingerprint
    texts = [said(heard(Engine(task).open(), audio)) for task in (beside, merged)]
    for first, second in ((merged, beside), (beside, merged)):
        session = Engine(first).open()
        before = session.push(audio[:half])
        resumed = Engine(second).restore(session.snapshot())
        texts.append(said(before + heard(resumed, audio[half:])))
    assert len(texts[0]) > 15
    for text in texts[1:]:
        assert word_errors(texts[0], text) <= 2


def test_neighbours_change_nothing(merged: WhisperStreamingTask, sample: np.ndarray) -> None:
    """Two streams with it, and one with the model as it is, in one batch."""
    chosen, audio = ({}, {"adapter": NONE}, {}), sample[: 3 * 16_000]
    alone = [said(heard(Engine(merged).open(**options), audio)) for options in chosen]
    engine = Engine(merged, capacity=3)
    sessions = [engine.open(**options) for options in chosen]
    for session in sessions:
        session.feed(audio)
        session.end()
    while engine.step():
        pass
    assert [said(session.drain()) for session in sessions] == alone


def test_recordings_go_through_the_model_as_it_is(sample: np.ndarray) -> None:
    recognizer = Recognizer.from_pretrained("tiny.en")
    assert isinstance(recognizer, WhisperRecognizer)
    weights = {name: value.clone() for name, value in recognizer.model.state_dict().items()}
    before = recognizer.transcribe(sample[: 3 * 16_000], beam_size=1).text
    heard(recognizer.session(), sample[: 2 * 16_000])
    assert recognizer.transcribe(sample[: 3 * 16_000], beam_size=1).text == before
    assert all(torch.equal(value, weights[name]) for name, value in recognizer.model.state_dict().items())


def test_adapters_that_come_later_are_beside_the_weights(
    toy_whisper: Whisper, tokenizer: WhisperTokenizer, random_adapter: Callable[..., LoraAdapter]
) -> None:
    model = quantize_int8(copy.deepcopy(toy_whisper))
    bank = AdapterBank(model)
    bank.add("first", random_adapter(model, 1, chunk_ms=(300,)))
    bank.default = "first"
    settings = StreamingOptions(policy="incremental", chunk_ms=300, overlap_s=1.0, preroll_ms=100)
    task = WhisperStreamingTask(model, tokenizer, settings, bank)
    bank.add("second", random_adapter(model, 2, chunk_ms=(300,)))
    assert (through(task), through(task, adapter="second")) == ([True], [False])
    bank.remove("first")
    bank.add("first", random_adapter(model, 3, chunk_ms=(300,)))  # another one of the same name
    assert through(task, adapter="first") == [False]


def test_a_model_in_float32_has_no_second_weights(
    toy_whisper: Whisper, tokenizer: WhisperTokenizer, random_adapter: Callable[..., LoraAdapter]
) -> None:
    bank = AdapterBank(toy_whisper)
    bank.add("live", random_adapter(toy_whisper, 1, chunk_ms=(300,)))
    bank.default = "live"
    assert bank.merged() is None
    networks = Networks(toy_whisper, tokenizer, StreamingOptions(policy="incremental"), bank)
    assert networks.threads(1) <= networks.threads(1000)


@torch.inference_mode()
def test_its_layers_are_those_of_the_merged_model(
    tiny_en: Whisper, random_adapter: Callable[..., LoraAdapter], sample: np.ndarray
) -> None:
    adapter, exact = random_adapter(tiny_en, 1, size=0.3), copy.deepcopy(tiny_en)
    quantized = int8_layers(tiny_en, adapter)
    merge(exact, adapter)
    assert quantized.merged == exact.merged == (adapter.digest,)
    assert tiny_en.merged == ()
    mel = normalize_window(WhisperLogMel()(torch.from_numpy(sample[: 2 * 16_000])[None]))
    tokens = torch.randint(0, 50_000, (1, 12), generator=torch.Generator().manual_seed(0))
    heard = [one.encoder.with_block(50)(mel) for one in (quantized, exact, tiny_en)]
    written = [one.decoder(tokens, heard[1]).log_softmax(-1) for one in (quantized, exact, tiny_en)]
    for mine, merged, stock in (heard, written):
        assert (mine - merged).norm() < 0.5 * (stock - merged).norm()
