"""Drafts change what decoding costs, never what it gives; loops are cut where they begin."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from loquent.asr.draft_decoding import Draft, DraftDecoder, repeats
from loquent.asr.hearing import SILENCE
from loquent.asr.whisper import AudioMemory, Whisper
from loquent.asr.whisper_tokenizer import WhisperTokenizer
from loquent.speech.features import WhisperLogMel, normalize_window
from loquent.speech.streaming import Chunk


@pytest.fixture(scope="module")
def memory(tiny_en: Whisper, sample: np.ndarray) -> AudioMemory:
    """The sample's beginning, as the decoder hears it."""
    with torch.inference_mode():
        mel = WhisperLogMel()(torch.from_numpy(sample[: 6 * 16_000])[None])
        window = torch.full((1, 3000, 80), SILENCE)
        window[:, : mel.shape[1]] = mel
        memory = tiny_en.decoder.initial_memory(1)
        tiny_en.decoder.listen(Chunk.of(tiny_en.encoder(normalize_window(window))), memory, torch.tensor([0]))
    return memory


@pytest.fixture(scope="module")
def decode(tiny_en: Whisper, tokenizer: WhisperTokenizer) -> DraftDecoder:
    banned = (*tokenizer.suppressed_tokens, *range(tokenizer.no_timestamps, tokenizer.n_vocab))
    return DraftDecoder(tiny_en.decoder, tokenizer.eot, banned, tiny_en.config.alignment_heads)


@torch.inference_mode()
def run(decode: DraftDecoder, memory: AudioMemory, drafts: list[Draft]) -> list[list[int]]:
    state = decode.decoder.initial_state(len(drafts))
    rows = torch.arange(len(drafts))
    return [h.tokens for h in decode(drafts, state, rows, memory, torch.zeros_like(rows))]


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
    assert not repeats([5] * 23)
    assert not repeats([1, 2] * 4)  # "no, no, no, no"
    assert not repeats([1, 2] * 12 + [3])
    assert not repeats(list(range(8)) * 3)
    assert not repeats([])


def test_a_loop_is_cut(decode: DraftDecoder, memory: AudioMemory, tokenizer: WhisperTokenizer) -> None:
    start = list(tokenizer.sot_sequence(timestamps=False))
    (truth,) = run(decode, memory, [Draft(start, [], [], 40)])
    (cut,) = run(decode, memory, [Draft(start, [], [], 40, past=[truth[0]] * 23)])
    assert cut == []
