"""Drafts change what decoding costs, never what it gives; loops are cut where they begin."""

from __future__ import annotations

import copy
import gc
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from loquent.asr.whisper.beam_search import DecodingOptions
from loquent.asr.whisper.live.draft_decoding import Draft, DraftDecoder, StreamingHypothesis, repeats
from loquent.asr.whisper.live.encoding import SILENCE
from loquent.asr.whisper.live.token_runs import DecoderPool, RunningDecoder, TokenRun
from loquent.asr.whisper.model import Whisper
from loquent.asr.whisper.offline.decoding import WindowDecoder
from loquent.asr.whisper.states import AudioMemory
from loquent.asr.whisper.tokenizer import WhisperTokenizer
from loquent.speech.audio.features import WhisperLogMel, normalize_window
from loquent.speech.nn.streaming import Chunk


@pytest.fixture(scope="module")
def memory(tiny_en: Whisper, sample: np.ndarray) -> AudioMemory:
    """The sample's beginning, as the decoder hears it."""
    with torch.inference_mode():
        mel = WhisperLogMel()(torch.from_numpy(sample[: 6 * 16_000])[None])
        window = torch.full((1, 3000, 80), SILENCE)
        window[:, : mel.shape[1]] = mel
        memory = tiny_en.decoder.initial_memory(1)
        tiny_en.decoder.add_audio(Chunk.of(tiny_en.encoder(normalize_window(window))), memory, torch.tensor([0]))
    return memory


@pytest.fixture(scope="module")
def decode(tiny_en: Whisper, tokenizer: WhisperTokenizer) -> DraftDecoder:
    return DraftDecoder(tiny_en.decoder, tokenizer.eot, suppressed(tokenizer), tiny_en.config.alignment_heads)


def suppressed(tokenizer: WhisperTokenizer) -> tuple[int, ...]:
    return (*tokenizer.suppressed_tokens, *range(tokenizer.no_timestamps, tokenizer.n_vocab))


@torch.inference_mode()
def hypotheses(decode: DraftDecoder, memory: AudioMemory, drafts: list[Draft]) -> list[StreamingHypothesis]:
    state = decode.decoder.initial_state(len(drafts))
    rows = torch.arange(len(drafts))
    return decode(drafts, state, rows, memory, torch.zeros_like(rows))


def run(decode: DraftDecoder, memory: AudioMemory, drafts: list[Draft]) -> list[list[int]]:
    return [hypothesis.tokens for hypothesis in hypotheses(decode, memory, drafts)]


@settings(max_examples=5, deadline=None, derandomize=True)
@given(st.data())
def test_any_draft_gives_what_decoding_from_scratch_gives(
    decode: DraftDecoder, memory: AudioMemory, tokenizer: WhisperTokenizer, data: st.DataObject
) -> None:
    start = list(tokenizer.sot_sequence(timestamps=False))
    (truth,) = run(decode, memory, [Draft(start, [], [], 40)])
    assert tokenizer.decode(truth).startswith(" Streaming recognition writes each word down")
    right = data.draw(st.integers(0, len(truth)), label="right tokens")
    wrong = data.draw(st.lists(st.integers(0, tokenizer.eot - 1), max_size=3), label="then")
    drafts = [
        Draft(start, truth[:right] + wrong, [0.0] * (right + len(wrong)), 40),
        Draft(start + truth[:right], [], [], 40 - right),
    ]
    drafted, continued = run(decode, memory, drafts)
    assert drafted == truth
    assert truth[:right] + continued == truth


def test_a_limit_holds(decode: DraftDecoder, memory: AudioMemory, tokenizer: WhisperTokenizer) -> None:
    start = list(tokenizer.sot_sequence(timestamps=False))
    (truth,) = run(decode, memory, [Draft(start, [], [], 40)])
    assert run(decode, memory, [Draft(start, truth[:5], [0.0] * 5, 3), Draft(start, [], [], 0)]) == [truth[:3], []]


def test_loops_are_recognised() -> None:
    assert repeats([9] + [1, 2] * 12)
    assert repeats([5] * 24)
    assert repeats(list(range(8)) * 4)
    assert repeats(list(range(16)) * 4)  # "I'm going to be a little bit more careful."
    assert not repeats([5] * 23)
    assert not repeats([1, 2] * 4)  # "no, no, no, no"
    assert not repeats([1, 2] * 12 + [3])
    assert not repeats(list(range(8)) * 3)
    assert not repeats(list(range(17)) * 4)
    assert not repeats([])


def test_nobody_says_a_word_four_times_in_no_time() -> None:
    assert repeats([1, 5, 5, 5, 5], lambda: [10, 40, 52, 52, 52])
    assert repeats([1, 2] * 4, lambda: [10, 10, 12, 15, 20, 20, 22, 25])
    assert not repeats([5] * 4, lambda: [10, 22, 34, 46])
    assert not repeats([5] * 3, lambda: [10, 10, 10])


def test_a_loop_is_not_gone_on_with(decode: DraftDecoder, memory: AudioMemory, tokenizer: WhisperTokenizer) -> None:
    start = list(tokenizer.sot_sequence(timestamps=False))
    (truth,) = run(decode, memory, [Draft(start, [], [], 40)])
    for past, said in (([truth[0]] * 23, []), ([truth[0]] * 3, [1500] * 3)):
        (other,) = hypotheses(decode, memory, [Draft(start, [], [], 40, past=past, said=said)])
        assert other.looped
        assert other.tokens  # something else is heard
        assert other.tokens[0] != truth[0]


def test_a_beam_without_a_draft_is_the_search_of_recordings(
    tiny_en: Whisper, tokenizer: WhisperTokenizer, decode: DraftDecoder, memory: AudioMemory
) -> None:
    beam = DraftDecoder(tiny_en.decoder, tokenizer.eot, suppressed(tokenizer), decode.watch, beam_size=4)
    start = list(tokenizer.sot_sequence(timestamps=False))
    options = DecodingOptions(beam_size=4, length_penalty=0.0, without_timestamps=True, suppress_blank=False)
    with torch.inference_mode():
        wanted = WindowDecoder(tiny_en, tokenizer).decode(memory, [0], [options])[0]
    (found,) = run(beam, memory, [Draft(start, [], [], 60)])
    assert found == list(wanted.tokens)
    # Streams do not meddle with each other, and limits hold.
    drafts = [Draft(start, [], [], 60), Draft(start + found[:3], found[3:5], [0.0, 0.0], 9), Draft(start, [], [], 0)]
    together = run(beam, memory, drafts)
    assert together[0] == found
    assert together[1][:2] == found[3:5]
    assert 2 < len(together[1]) <= 9
    assert together[2] == []


def test_a_beam_tells_how_sure_it_is_and_where_it_listens(
    tiny_en: Whisper, tokenizer: WhisperTokenizer, decode: DraftDecoder, memory: AudioMemory
) -> None:
    """Scores and attention of what a beam has found are those of writing the same text greedily."""
    beam = DraftDecoder(tiny_en.decoder, tokenizer.eot, suppressed(tokenizer), decode.watch, beam_size=4)
    start, row = list(tokenizer.sot_sequence(timestamps=False)), torch.tensor([0])
    with torch.inference_mode():
        (found,) = beam([Draft(start, [], [], 60)], tiny_en.decoder.initial_state(1), row, memory, row)
        draft = Draft(start, found.tokens, [-1e9] * len(found.tokens), 60)
        lenient = DraftDecoder(tiny_en.decoder, tokenizer.eot, suppressed(tokenizer), decode.watch, lenient=True)
        (read,) = lenient([draft], tiny_en.decoder.initial_state(1), row, memory, row)
    assert found.complete
    assert read.tokens[: len(found.tokens)] == found.tokens
    for name in ("scores", "probabilities"):
        assert getattr(found, name) == pytest.approx(getattr(read, name)[: len(found.tokens)], rel=1e-3, abs=1e-3)
    for mine, theirs in zip(found.attention, read.attention, strict=False):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("steps", "spare"), [(1, False), (3, True), (8, False)])
def test_tokens_written_in_runs_are_those_written_one_by_one(
    tiny_en: Whisper, tokenizer: WhisperTokenizer, decode: DraftDecoder, memory: AudioMemory, steps: int, spare: bool
) -> None:
    plain = copy.copy(decode)
    plain.normalize = spare
    runs = RunningDecoder(plain, spare=spare, steps=steps)
    start = list(tokenizer.sot_sequence(timestamps=False))
    looped = tokenizer.encode(" and so on" * 5)
    (truth,) = run(decode, memory, [Draft(start, [], [], 40)])
    drafts = [
        Draft(start, [], [], 40, frames=300),
        Draft(start, truth[:5], [0.0] * 5, 7, frames=300),
        Draft(start, [], [], 0),
        Draft(start + looped, [], [], 30, looped, [0] * len(looped), 300),  # what comes next would be a loop at once
        Draft(start, [*truth[:3], truth[0]], [0.0] * 4, 40, frames=300),
    ]
    results = []
    for decoder in (plain, runs):
        with torch.inference_mode():
            state, rows = tiny_en.decoder.initial_state(6), torch.tensor([4, 0, 2, 1, 3])
            found = decoder(drafts, state, rows, memory, torch.zeros_like(rows))
        results.append((found, state.position[rows].tolist()))
    (expected, position), (got, got_position) = results
    assert got_position == position
    for one, other in zip(got, expected, strict=True):
        for name in ("tokens", "complete", "finite", "looped"):
            assert getattr(one, name) == getattr(other, name)
        assert one.scores == pytest.approx(other.scores, abs=1e-3)
        assert one.probabilities == pytest.approx(other.probabilities, abs=1e-4)
        assert one.attended == other.attended
    pool = weakref.ref(state)
    del state
    gc.collect()
    assert pool() is None  # a decoder keeps no engine's pool


def test_a_run_waits_for_nothing(tiny_en: Whisper, memory: AudioMemory, refuse_waiting: Callable[[], Any]) -> None:
    decoder = tiny_en.decoder
    token_run = TokenRun(decoder, torch.zeros(51864), 50256, tiny_en.config.alignment_heads, 3)
    pool, zero = DecoderPool(decoder.initial_state(1), memory), torch.zeros(1, dtype=torch.long)
    first = Chunk(torch.full((1, 1), 50257), zero + 1, zero.bool(), static=True)
    with torch.inference_mode(), refuse_waiting():
        best, *_, attention = token_run(first, pool, zero, zero, zero + 2)
    assert best.shape == (1, 3)
    assert attention.shape == (1, 3, len(tiny_en.config.alignment_heads), 1500)
    assert pool.decoder.position.tolist() == [2]  # there was room for no more
