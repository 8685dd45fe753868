"""Phrases to prefer: in recordings and live, in every kind of search, and never in anybody else's stream."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from loquent.asr.search.biasing import Biasing
from loquent.asr.whisper.beam_search import BeamSearch, DecodingOptions
from loquent.asr.whisper.live.draft_decoding import Draft
from loquent.asr.whisper.live.options import StreamingOptions
from loquent.asr.whisper.live.task import WhisperStreamingTask
from loquent.asr.whisper.live.token_runs import RunningDecoder
from loquent.asr.whisper.model import Whisper
from loquent.asr.whisper.phrases import phrase_biasing, with_gains
from loquent.asr.whisper.recognizer import WhisperRecognizer
from loquent.asr.whisper.tokenizer import WhisperTokenizer
from loquent.speech.runtime.engine import Engine
from loquent.speech.runtime.events import Event

HEARD, WANTED = " writes each word", " rites each word"
PHRASES = {"phrases": ("rites",), "phrase_boost": 6.0}


@pytest.fixture(scope="module")
def recognizer(tiny_en: Whisper, tokenizer: WhisperTokenizer) -> WhisperRecognizer:
    return WhisperRecognizer(tiny_en, tokenizer)


def final_text(events: list[Event]) -> str:
    return " ".join(event.text for event in events if event.type == "final")  # type: ignore[attr-defined]


@pytest.mark.parametrize("search", [{}, {"beam_size": 1}, {"temperatures": (0.2,), "best_of": 2}], ids=str)
def test_recordings_are_written_with_the_phrases(
    recognizer: WhisperRecognizer, first_sentence: np.ndarray, search: dict[str, Any]
) -> None:
    plain = recognizer.transcribe(first_sentence, **search)
    preferring = recognizer.transcribe(first_sentence, **search, **PHRASES)
    assert HEARD in plain.text
    assert WANTED in preferring.text.lower()
    (segment,), (other,) = preferring.segments, plain.segments
    assert segment.avg_logprob < other.avg_logprob  # which phrases do not change: it tells what the model thinks


@pytest.mark.parametrize(
    "settings",
    [
        {"policy": "alignatt", "beam_size": 3},
        {"policy": "incremental"},
        {"policy": "incremental", "beam_size": 3},
    ],
    ids=str,
)
def test_live_speech_is_written_with_the_phrases_of_its_own_stream(
    recognizer: WhisperRecognizer, first_sentence: np.ndarray, settings: dict[str, Any]
) -> None:
    engine = Engine(recognizer.streaming_task(**settings), capacity=2)
    sessions = [engine.open(), engine.open(**PHRASES)]
    for session in sessions:
        session.feed(first_sentence)
        session.end()
    while engine.step():
        pass
    plain, preferring = (final_text(session.drain()) for session in sessions)
    assert WANTED not in plain.lower()
    assert WANTED in preferring.lower()


@pytest.mark.parametrize(
    "settings", [{"policy": "alignatt"}, {"policy": "incremental", "beam_size": 3}], ids=["greedy", "beam"]
)
def test_streams_with_phrases_obey_the_laws(
    toy_whisper: Whisper, tokenizer: WhisperTokenizer, talk: np.ndarray, task_laws: Any, settings: dict[str, Any]
) -> None:
    options = StreamingOptions(chunk_ms=500, overlap_s=1.0, tokens_per_second=4.0, **settings)
    task = WhisperStreamingTask(toy_whisper, tokenizer, options)
    phrases = {"phrases": ("the quick brown fox", "seven wizards", "box"), "phrase_boost": 100.0}
    first, second = talk[:40_000], talk[90_000:130_000]
    preferring = task_laws.whole(Engine(task).open(**phrases), first)
    assert final_text(preferring) != final_text(task_laws.whole(Engine(task).open(), first))
    task_laws.check_task(task_laws.on_engine(task, **phrases), [first, second], examples=2)


@pytest.mark.parametrize("greedy", [True, False])
def test_texts_without_phrases_keep_every_bit(greedy: bool) -> None:
    scores = torch.randn(3, 20, generator=torch.Generator().manual_seed(0))
    assert with_gains(scores, [(None, 0)] * 3, 20, greedy=greedy) is scores
    biasing = Biasing.of([[4, 5, 6], [7]], 2.0)
    found = with_gains(scores, [(None, 0), (biasing, biasing.walk([4, 5])), (biasing, 0)], 20, greedy=greedy)
    assert torch.equal(found[0], scores[0])
    change = found - scores
    # Of one hypothesis, what goes on with a match gains; of several, also what would be given back without 6.
    expected = {6: 2.0} if greedy else {4: 2.0, 6: 6.0, 7: 2.0}
    assert {place: pytest.approx(value, abs=1e-5) for place, value in expected.items()} == {
        place: value for place, value in enumerate(change[1].tolist()) if value
    }
    assert change[2].nonzero()[:, 0].tolist() == [4, 7]


def test_where_the_model_would_end_nothing_gains() -> None:
    scores = torch.zeros(2, 10)
    scores[0, 9] = 1.0  # the end
    biasing = Biasing.of([[4, 5]], 8.0)
    found = with_gains(scores, [(biasing, 0)] * 2, 9, greedy=True)
    assert torch.equal(found[0], scores[0])
    assert found[1].argmax() == 4


def test_a_beam_gives_back_what_a_broken_match_earned() -> None:
    biasing = Biasing.of([[4, 5]], 3.0)
    search = BeamSearch([], DecodingOptions(beam_size=2, length_penalty=0.0), 0, biasing=biasing)
    search.advance(np.array([[-1.0, -3.0]]), np.array([[1, 4]]), 9, 9, 99)
    assert [(one.tokens, one.score, one.bonus) for one in search.hypotheses] == [([4], -3, 3), ([1], -1, 0)]
    search.advance(np.array([[-0.1, -9.0], [-0.1, -9.0]]), np.array([[2, 3], [9, 2]]), 9, 9, 99)
    search.advance(np.array([[-0.1, -9.0]] * len(search.hypotheses)), np.array([[9, 2]] * 2), 9, 9, 99)
    best = search.best()
    assert (best.tokens, best.logprobs, best.score) == ([1], [-1.0], pytest.approx(-1.1))
    assert all(one.bonus == 0 for one in search.finished)


def test_runs_of_tokens_are_for_streams_without_phrases(
    recognizer: WhisperRecognizer, tokenizer: WhisperTokenizer, first_sentence: np.ndarray
) -> None:
    """What a GPU does: it writes on by itself, and the host chooses the tokens of those that prefer some."""
    found = []
    for steps in (None, 4):
        task = recognizer.streaming_task(policy="incremental")
        stock = task.networks.stock
        if steps is not None:
            running = RunningDecoder(stock.decode, spare=True, steps=steps)
            task.networks.stock = stock._replace(decode=running)
            task.networks._merged = None
        engine = Engine(task, capacity=3, static=True)
        sessions = [engine.open(), engine.open(**PHRASES), engine.open(phrases=["wizards"])]
        for session in sessions:
            session.feed(first_sentence)
            session.end()
        while engine.step():
            pass
        found.append([final_text(session.drain()) for session in sessions])
    assert found[0] == found[1]
    plain, preferring, other = found[0]
    assert plain == other != preferring


def test_phrases_count_at_the_beginning_and_within_a_sentence(tokenizer: WhisperTokenizer) -> None:
    biasing = phrase_biasing(tokenizer, ("ada Lovelace", " "), 1.0)
    assert biasing is not None
    spelt = {tokenizer.decode(tokens) for tokens, _ in biasing.phrases}
    assert spelt == {" ada Lovelace", "ada Lovelace", " Ada Lovelace", "Ada Lovelace"}
    assert phrase_biasing(tokenizer, (), 1.0) is phrase_biasing(tokenizer, (" ",), 1.0) is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"phrases": ["x"] * 1001}, "phrases: expected at most 1000"),
        ({"phrases": ["x" * 201]}, "of 200 characters"),
        ({"phrases": ["many different words " * 9] * 1000}, "phrases: expected at most 10000 tokens"),
        ({"phrase_boost": 0.0}, "phrase_boost: expected a number above 0"),
    ],
)
def test_impossible_phrases_are_refused(
    recognizer: WhisperRecognizer, first_sentence: np.ndarray, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        recognizer.session(policy="incremental", **options)
    with pytest.raises(ValueError, match=message):
        recognizer.transcribe(first_sentence, **options)


def test_snapshots_hold_the_phrases(recognizer: WhisperRecognizer, first_sentence: np.ndarray) -> None:
    engine = Engine(recognizer.streaming_task(policy="incremental"), capacity=2)
    session = engine.open(**PHRASES)
    half = len(first_sentence) // 8
    before = session.push(first_sentence[:half])
    resumed = engine.restore(session.snapshot())
    after = [*resumed.push(first_sentence[half:]), *resumed.finish()]
    assert [e.to_dict() for e in after] == [
        e.to_dict() for e in [*session.push(first_sentence[half:]), *session.finish()]
    ]
    assert WANTED in final_text([*before, *after]).lower()


def test_a_draft_knows_where_it_is_among_the_phrases() -> None:
    biasing = Biasing.of([[1, 2, 3]], 1.0)
    assert Draft([0], [2, 3], [0.0, 0.0], 9, past=[7, 1], biasing=biasing).nodes() == [1, 2, 3]
    assert Draft([0], [2], [0.0], 9, past=[1]).nodes() == [0, 0]
