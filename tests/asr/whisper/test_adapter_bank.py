"""Streams with adapters: each gives what the model with that adapter merged gives, whoever shares its batch."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from loquent.asr.conformer.model import ConformerModel
from loquent.asr.conformer.recognizer import ConformerRecognizer
from loquent.asr.conformer.tokenizer import SubwordTokenizer
from loquent.asr.whisper.adapter_bank import AdapterBank
from loquent.asr.whisper.live.options import StreamingOptions
from loquent.asr.whisper.live.task import WhisperStreamingTask
from loquent.asr.whisper.lora import LoraAdapter, merge, save_adapter
from loquent.asr.whisper.model import Whisper
from loquent.asr.whisper.quantization import quantize_int8
from loquent.asr.whisper.recognizer import WhisperRecognizer
from loquent.asr.whisper.tokenizer import WhisperTokenizer
from loquent.speech.runtime.engine import Engine
from loquent.speech.runtime.events import Event

RATE = 16_000
POLICIES = ("local-agreement", "incremental")
NAMES = ("a", "b", "c")  # of different ranks; the last one leaves most layers alone
Said = list[dict[str, Any]]


@pytest.fixture(scope="module")
def model(toy_whisper: Whisper) -> Whisper:
    return copy.deepcopy(toy_whisper)


@pytest.fixture(scope="module")
def adapters(model: Whisper, random_adapter: Callable[..., LoraAdapter]) -> dict[str, LoraAdapter]:
    made = [random_adapter(model, 1), random_adapter(model, 2, rank=11), random_adapter(model, 3, part="1.cross_attn")]
    return dict(zip(NAMES, made, strict=True))


@pytest.fixture
def bank(model: Whisper, adapters: dict[str, LoraAdapter]) -> AdapterBank:
    bank = AdapterBank(model)
    for name, adapter in adapters.items():
        bank.add(name, adapter)
    return bank


@pytest.fixture(scope="module")
def talk(sample: np.ndarray) -> np.ndarray:
    """Longer than a window of the toy."""
    return sample[: 5 * RATE]


def options(policy: str) -> StreamingOptions:
    return StreamingOptions(policy=policy, chunk_ms=500, overlap_s=1.0, tokens_per_second=4.0)


def said(events: list[Event]) -> Said:
    """Events without what may differ in the last digit when batches differ."""
    return [{k: v for k, v in e.to_dict().items() if k not in ("stream", "confidence")} for e in events]


def whole(task: WhisperStreamingTask, audio: np.ndarray, **chosen: Any) -> Said:
    session = Engine(task).open(**chosen)
    return said(session.push(audio) + session.finish())


@pytest.fixture(scope="module", params=POLICIES)
def policy(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def merged(
    policy: str, toy_whisper: Whisper, adapters: dict[str, LoraAdapter], tokenizer: WhisperTokenizer, talk: np.ndarray
) -> dict[str | None, Said]:
    """What models with each adapter in their weights say, and the model without."""
    expected: dict[str | None, Said] = {}
    for name in (None, *NAMES):
        model = copy.deepcopy(toy_whisper)
        if name is not None:
            merge(model, adapters[name])
        expected[name] = whole(WhisperStreamingTask(model, tokenizer, options(policy)), talk)
    texts = [str(events) for events in expected.values()]
    assert len(set(texts)) == len(texts), "the adapters make a difference"
    return expected


@pytest.fixture
def task(policy: str, model: Whisper, bank: AdapterBank, tokenizer: WhisperTokenizer) -> WhisperStreamingTask:
    return WhisperStreamingTask(model, tokenizer, options(policy), bank)


def test_alone_as_if_merged(task: WhisperStreamingTask, merged: dict[str | None, Said], talk: np.ndarray) -> None:
    for name, expected in merged.items():
        assert whole(task, talk, adapter=name) == expected


def test_batch_mates_have_other_adapters(
    task: WhisperStreamingTask, merged: dict[str | None, Said], talk: np.ndarray
) -> None:
    """Streams with every adapter and none join one after the other, in packets of any size, and share steps."""
    draw = random.Random(3)
    engine = Engine(task, capacity=6)
    waiting = [None, "a", "b", "c", "b", None]
    running, heard = [], []
    while waiting or engine.active:
        if waiting and draw.random() < 0.5:
            name = waiting.pop(0)
            running.append([name, engine.open(adapter=name), 0])
            heard.append([])
        for stream in running:
            _, session, position = stream
            if position < len(talk):
                size = draw.choice([1, 700, 8000, 20_000])
                session.feed(talk[position : position + size])
                stream[2] += size
                if stream[2] >= len(talk):
                    session.end()
        engine.step()
        for events, (_, session, _) in zip(heard, running, strict=True):
            events += session.drain()
    assert [said(events) for events in heard] == [merged[name] for name, _, _ in running]


def test_a_stream_moves_with_its_adapter(
    task: WhisperStreamingTask,
    merged: dict[str | None, Said],
    model: Whisper,
    adapters: dict[str, LoraAdapter],
    tokenizer: WhisperTokenizer,
    talk: np.ndarray,
) -> None:
    """A snapshot names it: elsewhere it may lie in another slot, but has to be there, and be the same."""
    engine = Engine(task)
    session = engine.open(adapter="b")
    before = session.push(talk[: 2 * RATE])
    snapshot = session.snapshot()
    session.close()
    other = AdapterBank(model)
    elsewhere = Engine(WhisperStreamingTask(model, tokenizer, task.settings, other))
    with pytest.raises(ValueError, match="no adapter is called 'b'; loaded: none"):
        elsewhere.restore(snapshot)
    other.add("b", adapters["a"])
    with pytest.raises(ValueError, match="began with another adapter of the name 'b'"):
        elsewhere.restore(snapshot)
    assert other.users("b") == 0
    other.remove("b")
    for name in ("c", "b"):
        other.add(name, adapters[name])
    for place in (elsewhere, engine):
        resumed = place.restore(snapshot)
        assert said(before + resumed.push(talk[2 * RATE :]) + resumed.finish()) == merged["b"]


def test_adapters_come_and_go_while_streams_run(
    task: WhisperStreamingTask,
    merged: dict[str | None, Said],
    adapters: dict[str, LoraAdapter],
    random_adapter: Callable[..., LoraAdapter],
    talk: np.ndarray,
) -> None:
    bank = task.adapters
    bank.remove("a")
    bank.remove("c")
    engine = Engine(task, capacity=3)
    session = engine.open(adapter="b")
    events = session.push(talk[:RATE])
    bank.add("a", adapters["a"])
    for number in range(5):  # of a higher rank, into new slots and over old ones
        bank.add(f"extra {number}", random_adapter(task.model, 100 + number, rank=20))
    first = engine.open(adapter="a")
    heard = first.push(talk[:RATE])
    for number in range(5):
        bank.remove(f"extra {number}")
    bank.add("c", adapters["c"])
    last = engine.open(adapter="c")
    assert said(last.push(talk) + last.finish()) == merged["c"]
    assert said(events + session.push(talk[RATE:]) + session.finish()) == merged["b"]
    assert said(heard + first.push(talk[RATE:]) + first.finish()) == merged["a"]


def test_an_adapter_in_use_stays(bank: AdapterBank, model: Whisper, tokenizer: WhisperTokenizer) -> None:
    engine = Engine(WhisperStreamingTask(model, tokenizer, options("incremental"), bank), capacity=2)
    first, second = engine.open(adapter="a"), engine.open(adapter="a")
    with pytest.raises(ValueError, match="2 streams use the adapter 'a'; remove it when they have ended"):
        bank.remove("a")
    first.close()
    assert bank.users("a") == 1
    second.push(np.zeros(RATE, np.float32))
    second.finish()
    bank.remove("a")
    assert list(bank) == ["b", "c"]
    with pytest.raises(ValueError, match="no adapter is called 'a'; loaded: b, c"):
        engine.open(adapter="a")


def test_streams_that_choose_none(bank: AdapterBank, model: Whisper, tokenizer: WhisperTokenizer) -> None:
    task = WhisperStreamingTask(model, tokenizer, options("incremental"), bank)
    assert task.start(task.Options()).adapter is None
    assert bank.choose([task.start(task.Options()), task.start(task.Options())]) is None
    bank.default = "b"
    assert task.start(task.Options()).adapter == "b"
    assert task.start(task.Options(adapter="none")).adapter is None
    with pytest.raises(ValueError, match="no adapter is called 'd'"):
        bank.default = "d"
    bank.remove("b")
    assert bank.default is None


def test_names(bank: AdapterBank, adapters: dict[str, LoraAdapter]) -> None:
    for name, message in [("a", "called 'a' already"), ("", "'' cannot be"), ("none", "'none' cannot be")]:
        with pytest.raises(ValueError, match=message):
            bank.add(name, adapters["a"])
    with pytest.raises(ValueError, match="no adapter is called 'd'"):
        bank.remove("d")
    size = bank.nbytes
    assert size > 0
    for name in NAMES:
        bank.remove(name)
    assert (len(bank), bank.nbytes) == (0, 0)


def test_with_an_int8_vocabulary(
    model: Whisper, adapters: dict[str, LoraAdapter], tokenizer: WhisperTokenizer, talk: np.ndarray
) -> None:
    quantized = quantize_int8(copy.deepcopy(model))
    other = copy.deepcopy(model)
    merge(other, adapters["a"])
    bank = AdapterBank(quantized)
    bank.add("a", adapters["a"])
    task = WhisperStreamingTask(quantized, tokenizer, options("incremental"), bank)
    expected = whole(WhisperStreamingTask(quantize_int8(other), tokenizer, options("incremental")), talk)
    assert whole(task, talk, adapter="a") == expected


def test_the_recogniser_streams_as_its_adapter_was_trained(
    toy_whisper: Whisper, tokenizer: WhisperTokenizer, random_adapter: Callable[..., LoraAdapter], tmp_path: Any
) -> None:
    recognizer = WhisperRecognizer(copy.deepcopy(toy_whisper), tokenizer)
    small = {"preroll_ms": 100, "overlap_s": 1.0}
    assert recognizer.streaming_task(**small).settings.policy == "local-agreement"
    save_adapter(tmp_path / "live", random_adapter(toy_whisper, 1, chunk_ms=(100, 200, 500)))
    recognizer.adapt(tmp_path / "live")
    assert recognizer.live_adapter == "live"
    assert recognizer.model.merged == ()
    chosen = recognizer.streaming_task(**small).settings
    assert (chosen.policy, chosen.chunk_ms) == ("incremental", 200)
    assert recognizer.streaming_task(chunk_ms=500, **small).settings.step_ms == 500
    assert recognizer.streaming_task(policy="alignatt", **small).settings.step_ms == 1000
    session = recognizer.session(adapter="none", **small)
    assert session.memo.adapter is None
    assert chosen.block == 1000 // 20


def test_the_recogniser_encodes_blocks_as_its_adapter_was_trained(
    toy_whisper: Whisper, tokenizer: WhisperTokenizer, random_adapter: Callable[..., LoraAdapter], tmp_path: Any
) -> None:
    recognizer = WhisperRecognizer(copy.deepcopy(toy_whisper), tokenizer)
    save_adapter(tmp_path / "live", random_adapter(toy_whisper, 1, chunk_ms=(100, 200), block_ms=600))
    recognizer.adapt(tmp_path / "live")
    for asked, frames in (({}, 30), ({"block_ms": None}, 30), ({"block_ms": 400}, 20), ({"chunk_ms": 800}, 40)):
        options = {"preroll_ms": 100, "overlap_s": 1.0, **asked}
        assert recognizer.streaming_task(**options).settings.block == frames
    assert recognizer.streaming_task(policy="alignatt", preroll_ms=100, overlap_s=1.0).settings.block_ms is None


def test_an_adapter_of_the_whole_model_is_merged(
    toy_whisper: Whisper, tokenizer: WhisperTokenizer, random_adapter: Callable[..., LoraAdapter], sample: np.ndarray
) -> None:
    recognizer = WhisperRecognizer(copy.deepcopy(toy_whisper), tokenizer)
    fast = {"temperatures": (0.0,), "beam_size": 1, "sample_len": 20}
    before = recognizer.transcribe(sample[:RATE], **fast).text
    snapshot_of = recognizer.streaming_task(overlap_s=1.0).fingerprint
    recognizer.adapt(random_adapter(toy_whisper, 1))
    assert recognizer.live_adapter is None
    assert recognizer.transcribe(sample[:RATE], **fast).text != before
    assert recognizer.streaming_task(overlap_s=1.0).fingerprint != snapshot_of


def test_a_conformer_takes_none(toy_conformer: tuple[ConformerModel, SubwordTokenizer]) -> None:
    recognizer = ConformerRecognizer(*toy_conformer)
    assert recognizer.live_adapter is None
    for offer in (lambda: recognizer.adapt("a"), lambda: recognizer.add_adapter("a", "a")):
        with pytest.raises(ValueError, match="adapters are for Whisper; a ConformerRecognizer takes none"):
            offer()


def test_a_stream_has_the_adapter_of_its_language(model: Whisper, adapters: dict[str, LoraAdapter]) -> None:
    bank = AdapterBank(model)
    for name, language, chunks in (("english", "en", (300,)), ("german", "de", (300,)), ("radio", "fr", ())):
        info = replace(adapters["a"].info, language=language, chunk_ms=chunks)
        bank.add(name, replace(adapters["a"], info=info))
    assert bank.default_for("de", live=True) is None
    bank.default = "english"
    assert [bank.default_for(language, live=True) for language in (None, "en", "de")] == [
        "english",
        "english",
        "german",
    ]
    with pytest.raises(ValueError, match=r"no adapter for live audio in 'fr'.*local-agreement"):
        bank.default_for("fr", live=True)
    assert bank.default_for("fr", live=False) is None
    bank.default = "radio"
    assert bank.default_for("en", live=False) == "radio"
