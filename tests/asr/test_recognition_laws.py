"""The laws, from samples to text, for every streaming recogniser: packets, batch mates, snapshots, committed text."""

from __future__ import annotations

import copy
import functools
import itertools
import random
import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from loquent.asr.conformer.model import ConformerModel
from loquent.asr.conformer.options import ConformerOptions
from loquent.asr.conformer.task import ConformerStreamingTask
from loquent.asr.conformer.tokenizer import SubwordTokenizer
from loquent.asr.whisper.live.options import StreamingOptions
from loquent.asr.whisper.live.task import WhisperStreamingTask
from loquent.asr.whisper.live.token_runs import RunningDecoder
from loquent.asr.whisper.model import Whisper
from loquent.asr.whisper.tokenizer import WhisperTokenizer
from loquent.speech.runtime.engine import Engine
from loquent.speech.runtime.events import Event
from loquent.speech.runtime.replay import Outputs, Replay
from loquent.speech.runtime.task import Task

WHISPERS = [(policy, vad) for policy in ("local-agreement", "alignatt", "incremental") for vad in (True, False)]
BEAMS = [("beam", "at-once"), ("beam", "hold-last"), ("beam", "agreement")]
CONFORMERS = [(head, beam) for head in ("ctc", "transducer") for beam in (1, 3)]
ADAPTIVE = [("adaptive", "ctc")]
few = settings(max_examples=2, deadline=None, database=None, suppress_health_check=list(HealthCheck), derandomize=True)


@pytest.fixture(scope="module", params=WHISPERS + BEAMS + CONFORMERS + ADAPTIVE, ids=lambda p: f"{p[0]}-{p[1]}")
def task(
    request: pytest.FixtureRequest,
    toy_whisper: Whisper,
    tokenizer: WhisperTokenizer,
    toy_conformer: tuple[ConformerModel, SubwordTokenizer],
    toy_adaptive: tuple[ConformerModel, SubwordTokenizer],
) -> Task:
    if request.param in ADAPTIVE:
        return ConformerStreamingTask(*toy_adaptive, ConformerOptions(head=request.param[1]))
    if request.param in CONFORMERS:
        head, beam = request.param
        return ConformerStreamingTask(*toy_conformer, ConformerOptions(head=head, beam_size=beam))
    if request.param in BEAMS:
        common = {"policy": "incremental", "chunk_ms": 500, "block_ms": 700, "overlap_s": 1.0, "tokens_per_second": 4.0}
        return WhisperStreamingTask(
            toy_whisper, tokenizer, StreamingOptions(commit=request.param[1], beam_size=3, **common)
        )
    policy, vad = request.param
    options = StreamingOptions(policy=policy, chunk_ms=500, vad=vad, overlap_s=1.0, tokens_per_second=4.0)
    return WhisperStreamingTask(toy_whisper, tokenizer, options)


def packets(audio: np.ndarray, seed: int, largest: int) -> Iterator[np.ndarray]:
    draw = random.Random(seed)
    position = 0
    while position < len(audio):
        size = draw.choice([0, 1, draw.randint(1, largest), largest])
        yield audio[position : position + size]
        position += size


def said(events: list[Event]) -> list[dict[str, Any]]:
    """Events without what may differ in the last digit when batches differ."""
    return [{k: v for k, v in e.to_dict().items() if k not in ("stream", "confidence")} for e in events]


def whole(task: Task, audio: np.ndarray, **options: Any) -> list[Event]:
    """What a stream says that is alone and comes in one packet; many tests ask for the same."""
    return _whole(task, audio.tobytes(), audio.shape, tuple(options.items()))


@functools.cache
def _whole(task: Task, samples: bytes, shape: tuple[int, ...], options: tuple[tuple[str, Any], ...]) -> list[Event]:
    session = Engine(task).open(**dict(options))
    return session.push(np.frombuffer(samples, np.float32).reshape(shape)) + session.finish()


def test_the_material_shows_every_kind_of_event(task: Task, talk: np.ndarray) -> None:
    kinds = {event.type for event in whole(task, talk)}
    assert kinds >= {"partial", "word", "final"}
    assert ("endpoint" in kinds) == getattr(task.settings, "vad", True)


@few
@given(seed=st.integers(0, 2**32), largest=st.sampled_from([320, 4800, 50_000]))
def test_packets_do_not_matter(task: Task, talk: np.ndarray, seed: int, largest: int) -> None:
    session = Engine(task).open()
    events = [event for packet in packets(talk, seed, largest) for event in session.push(packet)] + session.finish()
    assert [e.to_dict() for e in events] == [e.to_dict() for e in whole(task, talk)]


def test_static_mode_says_the_same_and_its_launches_wait_for_nothing(
    task: Task, talk: np.ndarray, task_laws: Any
) -> None:
    audios = [talk, talk[50_000:], talk[:30_001]]
    with task_laws.static_engines():
        engine = Engine(task, capacity=3)
    sessions = [engine.open() for _ in audios]
    for session, audio in zip(sessions, audios, strict=True):
        session.feed(audio)
        session.end()
    while engine.step():
        pass
    for session, audio in zip(sessions, audios, strict=True):
        assert said(session.drain()) == said(whole(task, audio))


def test_graphs_say_the_same(task: Task, talk: np.ndarray, task_laws: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps are recorded and replayed as on a GPU, but for what a graph is made of."""
    captured = list[tuple[int, ...]]()

    def capture(run: Callable[[], Outputs]) -> tuple[Callable[[], None], Outputs]:
        outputs = run()
        captured.append(tuple(outputs[0].shape))

        def replay() -> None:
            for mine, new in zip(outputs, run(), strict=True):
                mine.copy_(new)

        return replay, outputs

    make = Replay.__init__
    monkeypatch.setattr(Replay, "__init__", lambda self, function: make(self, function, capture))
    again = copy.copy(task)
    again.__init__(*[getattr(task, name) for name in ("model", "tokenizer", "settings")])  # type: ignore[misc]
    if isinstance(again, WhisperStreamingTask) and again.networks.stock.decode.beam_size == 1:
        encoding, decode = again.networks.stock
        running = RunningDecoder(decode, spare=encoding.keeps_tokens, steps=3)
        again.networks.stock = again.networks.stock._replace(decode=running)
    audios = [talk, talk[50_000:], talk[:30_001]]
    with task_laws.static_engines():
        engine = Engine(again, capacity=3)
    sessions = [engine.open() for _ in audios]
    for session, audio in zip(sessions, audios, strict=True):
        session.feed(audio)
        session.end()
    while engine.step():
        pass
    for session, audio in zip(sessions, audios, strict=True):
        assert said(session.drain()) == said(whole(task, audio))
    assert 2 <= len(captured) <= 6  # 4, 2 and 1 rows, and what is searched again


@few
@given(seed=st.integers(0, 2**32))
def test_batch_mates_do_not_matter(task: Task, talk: np.ndarray, seed: int) -> None:
    draw = random.Random(seed)
    audios = [talk, talk[draw.randint(0, 60_000) :], talk[: draw.randint(1, len(talk))], talk[::-1].copy()]
    alone = [said(whole(task, audio)) for audio in audios]
    engine = Engine(task, capacity=3)
    waiting, heard, running = list(enumerate(audios)), [[] for _ in audios], {}
    while waiting or running:
        if waiting and engine.active < engine.capacity and draw.random() < 0.3:  # join at any time
            index, audio = waiting.pop(0)
            running[index] = engine.open(), packets(audio, seed + index, 20_000)
        for index, (session, source) in list(running.items()):
            packet = next(source, None)
            if packet is None:
                session.end()
                while session.ready:
                    engine.step()
                del running[index]
            elif draw.random() < 0.9:
                session.feed(packet)
            else:
                running[index] = session, itertools.chain([packet], source)
            heard[index] += session.drain()
        if draw.random() < 0.6:
            engine.step()
        for index, (session, _) in running.items():
            heard[index] += session.drain()
    assert [said(events) for events in heard] == alone


@few
@given(cut=st.floats(0.05, 0.95), detour=st.integers(1, 30_000))
def test_a_stream_is_a_value(task: Task, talk: np.ndarray, cut: float, detour: int) -> None:
    """It goes on in another engine as in its own, and from a snapshot as if what came after had never been."""
    engine = Engine(task, capacity=2)
    size = engine.nbytes
    session = engine.open()
    at = int(cut * len(talk))
    before = session.push(talk[:at])
    snapshot = session.snapshot()
    session.push(talk[:detour])
    session.close()
    for other in (engine, Engine(task, capacity=1)):
        resumed = other.restore(snapshot)
        after = resumed.push(talk[at:]) + resumed.finish()
        assert said(before + after) == said(whole(task, talk))
    assert engine.nbytes == size
    assert engine.active == 0


def test_committed_text_is_never_taken_back(task: Task, talk: np.ndarray) -> None:
    stable, words, finals = "", "", ""
    for event in whole(task, talk):
        if event.type == "partial":
            assert event.stable.startswith(stable)
            stable = event.stable
        elif event.type == "word":
            words += event.text
            assert 0 <= event.start <= event.end <= event.emission_time + 0.02
        elif event.type == "final":
            stable, finals = "", finals + event.text
    assert re.sub(r"\s", "", words) == re.sub(r"\s", "", finals)


def test_words_are_in_order(task: Task, talk: np.ndarray) -> None:
    words = [event for event in whole(task, talk) if event.type == "word"]
    assert all(a.end <= b.end and a.start <= b.start for a, b in itertools.pairwise(words))


@pytest.mark.parametrize("rate", [8_000, 44_100, 48_000])
def test_other_sample_rates_and_channels(task: Task, rate: int) -> None:
    tone = np.sin(np.arange(2 * rate) / rate * 2000).astype(np.float32)
    stereo = np.stack([tone, -0.5 * tone], axis=1)
    reference = said(whole(task, (0.25 * tone), sample_rate=rate))
    assert said(whole(task, stereo, sample_rate=rate, channels=2)) == reference


class Broken:
    """Part of a memo that cannot be used."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError("broken memo")


@pytest.mark.parametrize("fault", ["memo", "features", "model", "search"])
def test_a_stream_that_fails_ends_alone(task: Task, talk: np.ndarray, fault: str) -> None:
    """Its batch mates say what they say alone, and so does who gets its slot."""
    audios = [talk, talk[3000:], talk[:100_000]]
    alone = [said(whole(task, audio)) for audio in audios]
    engine = Engine(task, capacity=3)
    sessions, found = [engine.open() for _ in audios], [[] for _ in audios]
    failing, cut = sessions[1], 40_000
    for session, audio in zip(sessions, audios, strict=True):
        session.feed(audio[:cut])
    while engine.step():
        pass
    if fault == "memo":
        failing.memo.utterance = Broken()
    else:
        kinds = {"features": "features", "vad": "features", "search": "search"}
        leaves = [(kinds.get(name.partition(".")[0], "model"), tensor) for name, tensor, _ in engine.state.leaves()]
        poisoned = [tensor for kind, tensor in leaves if kind == fault and tensor.is_floating_point()]
        if not poisoned:
            pytest.skip("keeps no numbers of this kind")
        for tensor in poisoned:
            tensor[failing.slot] = torch.nan
    for session, audio in zip(sessions, audios, strict=True):
        session.feed(audio[cut:])
        session.end()
    while engine.step():
        pass
    for session, events in zip(sessions, found, strict=True):
        events += session.drain()
    failed = found.pop(1)
    assert failed[-1].type == "failure"
    assert {"memo": "broken memo"}.get(fault, "finite") in failed[-1].message
    assert said(failed[:-1]) == alone.pop(1)[: len(failed) - 1]
    assert [said(events) for events in found] == alone
    assert engine.active == 0
    following, later = [engine.open() for _ in range(3)], talk[60_000:]
    for session in following:
        session.feed(later)
        session.end()
    while engine.step():
        pass
    assert [said(session.drain()) for session in following] == [said(whole(task, later))] * 3
