"""The laws of the model itself: one network, whole or step by step, alone or in company."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from loquent.asr.whisper.model import Whisper
from loquent.asr.whisper.tokenizer import WhisperTokenizer
from loquent.kernels.cached_attention import attention_mask
from loquent.speech.audio.features import WhisperLogMel, normalize_window
from loquent.speech.nn.streaming import Chunk


@pytest.fixture(scope="module")
def features(tiny_en: Whisper, sample: np.ndarray) -> Tensor:
    """Two streams of encoder features (2, 100, C)."""
    mel = normalize_window(WhisperLogMel()(torch.from_numpy(sample)[None]))
    with torch.inference_mode():
        return tiny_en.encoder(torch.stack([mel[0, :200], mel[0, 300:500]]))


@pytest.fixture(scope="module")
def text(tokenizer: WhisperTokenizer) -> Tensor:
    start = [tokenizer.sot, tokenizer.no_timestamps]
    return torch.tensor(
        [start + tokenizer.encode(" one two three four five"), start + tokenizer.encode(" and a b c d")]
    )


@pytest.mark.parametrize("block", [1, 3, 8])
def test_encoder_by_blocks_obeys_the_laws_of_streaming(
    toy_whisper: Whisper, check_streaming: Callable[..., None], block: int
) -> None:
    mel = torch.randn(3, 61, 80, generator=torch.Generator().manual_seed(block))
    check_streaming(toy_whisper.encoder.with_block(block), mel, examples=6, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("block", [5, 50])
def test_real_encoder_step_equals_forward(tiny_en: Whisper, sample: np.ndarray, block: int) -> None:
    mel = normalize_window(WhisperLogMel()(torch.from_numpy(sample[:64_000])[None]))
    encoder = tiny_en.encoder.with_block(block)
    state = encoder.initial_state(1)
    with torch.inference_mode():
        parts = [encoder.step(part, state).data for part in mel.split(70, dim=1)]
        parts.append(encoder.step(mel[:, :0], state, last=True).data)
        torch.testing.assert_close(torch.cat(parts, 1), encoder(mel), rtol=1e-3, atol=1e-3)


@torch.inference_mode()
def test_frames_of_an_incomplete_block_are_encoded_without_a_trace(
    toy_whisper: Whisper, refuse_waiting: Callable[[], Any]
) -> None:
    """Of a block's frames, those that have come see the past and each other; the whole block is then encoded anew."""
    mel = torch.randn(3, 120, 80, generator=torch.Generator().manual_seed(0))
    encoder = toy_whisper.encoder.with_block(8)
    state, rows = encoder.initial_state(4), torch.tensor([2, 0, 3])
    undisturbed, ends = state.clone(), (0, 17, 33, 34, 51, 80, 105, 120)
    for begin, end in itertools.pairwise(ends):
        # Each stream is given a few frames less than the one before.
        length = torch.tensor([end - begin, max(min(end - 3, 120) - begin, 0), max(min(end - 9, 120) - begin, 0)])
        chunk = Chunk(mel[:, begin:end], length, torch.zeros(3, dtype=torch.bool))
        copied = state.clone()
        expected, features = encoder.step(chunk, undisturbed, rows), encoder.step(chunk, state, rows, ahead=True)
        with refuse_waiting():
            again = encoder.step(Chunk(chunk.data, length, chunk.last, static=True), copied, rows, ahead=True)
        assert state.position.tolist() == undisturbed.position.tolist() == copied.position.tolist()
        for row in range(3):
            count, own = int(expected.length[row]), features.data[row, : features.length[row]]
            assert count <= len(own) <= count + 7
            torch.testing.assert_close(own[:count], expected.data[row, :count], rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(again.data[row, : len(own)], own, rtol=1e-4, atol=1e-5)
            if begin == 0:  # no frame has been left out yet: compare with the layers themselves
                x = F.gelu(encoder.conv2(F.gelu(encoder.conv1(mel[row : row + 1, :end]))))[:, : len(own)]
                x = x + encoder.positional_embedding[: len(own)]
                steps = torch.arange(len(own))
                for block in encoder.blocks:
                    x = block(x, attention_mask(steps, steps, 8, None, 0))
                torch.testing.assert_close(own, encoder.ln_post(x)[0], rtol=1e-3, atol=1e-4)


def test_encoder_refuses_more_than_its_window_and_streaming_without_blocks(toy_whisper: Whisper) -> None:
    with pytest.raises(ValueError, match="201 encoder frames exceed the 200"):
        toy_whisper.encoder(torch.zeros(1, 402, 80))
    with pytest.raises(ValueError, match="cannot stream"):
        toy_whisper.encoder.initial_state(1)


@torch.inference_mode()
def test_decoder_step_equals_forward_for_any_cut(
    tiny_en: Whisper, features: Tensor, text: Tensor, refuse_waiting: Callable[[], Any]
) -> None:
    decoder = tiny_en.decoder
    whole = decoder(text, features)
    for width in (1, 2, 3, text.shape[1]):
        state, memory = decoder.initial_state(4, capacity=16), decoder.initial_memory(3, capacity=120)
        rows, memory_rows = torch.tensor([3, 1]), torch.tensor([0, 2])
        decoder.add_audio(Chunk.of(features), memory, memory_rows)
        chunks = [replace(Chunk.of(part), static=True) for part in text.split(width, dim=1)]
        with refuse_waiting():
            got = [decoder.logits(decoder.step(chunk, state, rows, memory, memory_rows)[0]) for chunk in chunks]
        torch.testing.assert_close(torch.cat(got, 1), whole, rtol=1e-3, atol=1e-3)
        assert state.position.tolist() == [0, text.shape[1], 0, text.shape[1]]


@torch.inference_mode()
def test_static_listening_is_listening(toy_whisper: Whisper, refuse_waiting: Callable[[], Any]) -> None:
    """Packets of one shape until the memory is full; what lies beyond a row's length does not matter."""
    decoder, draw = toy_whisper.decoder, torch.Generator().manual_seed(0)
    memory = decoder.initial_memory(4, capacity=20)
    static, rows, width = memory.clone(), torch.tensor([2, 0, 3]), decoder.ln.weight.shape[0]
    while int(memory.frames[rows].min()) < 20:
        length = torch.randint(0, 8, (3,), generator=draw).minimum(20 - memory.frames[rows])
        data = torch.randn(3, 7, width, generator=draw)
        data[torch.arange(7) >= length[:, None]] = torch.nan
        chunk = Chunk(data, length, torch.zeros(3, dtype=torch.bool))
        decoder.add_audio(chunk, memory, rows)
        with refuse_waiting():
            decoder.add_audio(replace(chunk, static=True), static, rows)
        for (name, expected, _), (_, got, _) in zip(memory.leaves(), static.leaves(), strict=True):
            torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5, msg=name)


@torch.inference_mode()
def test_remember_is_listen_for_a_whole_window(tiny_en: Whisper, features: Tensor) -> None:
    decoder = tiny_en.decoder
    one, other = decoder.initial_memory(2, capacity=110), decoder.initial_memory(2, capacity=110)
    decoder.add_audio(Chunk.of(features[:, :40]), one, torch.tensor([0, 1]))
    decoder.add_audio(Chunk.of(features[:, 40:]), one, torch.tensor([0, 1]))
    for slot, window in enumerate(features):
        decoder.set_audio(window, other, slot)
    for (name, a, _), (_, b, _) in zip(one.leaves(), other.leaves(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4, msg=name)


@torch.inference_mode()
def test_taking_tokens_back_leaves_no_trace(tiny_en: Whisper, features: Tensor, text: Tensor) -> None:
    decoder, rows = tiny_en.decoder, torch.tensor([0])
    memory = decoder.initial_memory(1, capacity=100)
    decoder.set_audio(features[0], memory, 0)
    state = decoder.initial_state(1, capacity=16)
    decoder.step(Chunk.of(text[:1, :4]), state, rows, memory, rows)
    expected, _ = decoder.step(Chunk.of(text[:1, 4:6]), state.clone(), rows, memory, rows)
    decoder.step(Chunk.of(text[1:, :5]), state, rows, memory, rows)  # a guess
    state.position.fill_(4)
    got, _ = decoder.step(Chunk.of(text[:1, 4:6]), state, rows, memory, rows)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)


@torch.inference_mode()
def test_copied_and_resized_hypotheses_continue_alike(tiny_en: Whisper, features: Tensor, text: Tensor) -> None:
    decoder = tiny_en.decoder
    memory = decoder.initial_memory(1, capacity=100)
    decoder.set_audio(features[0], memory, 0)
    state = decoder.initial_state(3, capacity=4)
    decoder.step(Chunk.of(text[:1, :4]), state, torch.tensor([1]), memory, torch.tensor([0]))
    state.copy([(1, 0), (1, 2)], 4)
    state = state.resized(9)
    hidden, _ = decoder.step(
        Chunk.of(text[:1, 4:].expand(3, -1)), state, torch.tensor([0, 1, 2]), memory, torch.zeros(3, dtype=torch.long)
    )
    torch.testing.assert_close(decoder.logits(hidden[0]), decoder(text[:1], features[:1])[0, 4:], rtol=1e-3, atol=1e-3)
    for row in (1, 2):
        torch.testing.assert_close(hidden[row], hidden[0], rtol=1e-4, atol=1e-4)


@torch.inference_mode()
def test_watched_attention_is_a_distribution_over_the_frames_heard(
    tiny_en: Whisper, features: Tensor, text: Tensor
) -> None:
    decoder, rows = tiny_en.decoder, torch.tensor([0])
    memory = decoder.initial_memory(1)
    decoder.set_audio(features[0], memory, 0)
    heads = tiny_en.config.alignment_heads
    _, each = decoder.attend(Chunk.of(text[:1]), decoder.initial_state(1), rows, memory, rows, heads)
    _, mean = decoder.step(Chunk.of(text[:1]), decoder.initial_state(1), rows, memory, rows, heads)
    assert each is not None
    assert mean is not None
    assert each.shape == (1, len(heads), text.shape[1], 1500)
    torch.testing.assert_close(each.sum(-1), torch.ones(each.shape[:3]))
    assert not each[..., features.shape[1] :].any()
    torch.testing.assert_close(each.mean(1), mean)
