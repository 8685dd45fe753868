"""Whisper's training loss as a streaming recogniser: block-causal encoder, sampled moments, distillation.

The stock model, which hears the whole window, teaches twice. The encoder learns the features of the stock encoder, and
the decoder learns the probabilities of the stock decoder for every word that has been said. So any speech can be
trained on without the model becoming another one than it was; what it has to learn from labels is when to wait.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from loquent.asr.whisper.live.encoding import SILENCE, with_tail
from loquent.asr.whisper.model import AudioEncoder, CrossAttentionBlock, ResidualAttentionBlock, TextDecoder, Whisper
from loquent.recipes.whisper.moments import (
    ENCODER_RATE,
    NOTHING,
    MomentOptions,
    PackedMoments,
    Transcript,
    pack,
    sample_moments,
)
from loquent.recipes.whisper.teacher_forcing import read_texts
from loquent.recipes.whisper.vocabulary_loss import Teacher, vocabulary_loss
from loquent.speech.audio.features import RunningMaxNormalize, WhisperLogMel, normalize_window
from loquent.speech.nn.streaming import Chunk


@dataclass(frozen=True)
class LossOptions:
    """Chunk sizes, the moments that are trained, and the weight of distillation."""

    chunk_ms: tuple[int, ...] = (100, 160, 200, 300, 400, 500, 700, 1000)  # one is drawn for each batch
    moments: MomentOptions = field(default_factory=MomentOptions)
    block_ms: int | None = (
        None  # the encoder's blocks, as streaming has them, whose chunks are parts; by default chunks
    )
    distillation: float = 1.0  # weight of the feature distance to the stock encoder, the teacher
    teacher_share: float = 0.0  # of the stock decoder's probabilities in the loss of each word; the rest is the label's

    def __post_init__(self) -> None:
        if not self.chunk_ms or any(ms % 20 or not 20 <= ms <= 5000 for ms in self.chunk_ms):
            raise ValueError(f"chunk_ms must be multiples of 20 from 20 to 5000, got {self.chunk_ms}")
        if self.block_ms is not None and (self.block_ms % 20 or not max(self.chunk_ms) <= self.block_ms <= 5000):
            raise ValueError(f"block_ms must be a multiple of 20 from the longest chunk to 5000, got {self.block_ms}")
        if self.distillation < 0:
            raise ValueError(f"distillation must not be negative, got {self.distillation}")
        if not 0 <= self.teacher_share <= 1:
            raise ValueError(f"teacher_share must be from 0 to 1, got {self.teacher_share}")


class CausalWhisperLoss(nn.Module):
    """A Whisper with a low-rank adapter, and the loss of a batch of windows at a chunk size drawn for the batch.

    Args:
        whisper: in any precision, with an adapter on its layers (see `low_rank`).
        eot: the token that ends a chunk's text.
    """

    def __init__(self, whisper: Whisper, eot: int, options: LossOptions) -> None:
        super().__init__()
        self.whisper, self.eot, self.options = whisper, eot, options
        self.features = WhisperLogMel(whisper.config.n_mels)
        self.normalize = RunningMaxNormalize()

    def forward(self, batch: Mapping[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss in nats per token, and its parts.

        Args:
            batch: samples (B, N), length (B,) of them, transcripts of the B windows; clean (B, N), what the teacher
                hears, ``samples`` without it; chunk_ms if it is not to be drawn.
        """
        choices, options = self.options.chunk_ms, self.options
        chunk_ms = batch.get("chunk_ms") or choices[int(torch.randint(len(choices), ()))]
        log_mel = self.log_mel(batch["samples"], batch["length"])
        ends = block_ends((log_mel.data.shape[1] + 1) // 2, chunk_ms, options.block_ms)
        encoded, frames = self.encode(log_mel, ends)
        transcripts: Sequence[Transcript] = batch["transcripts"]
        moments = [
            sample_moments(one, count, ends, options.moments)
            for one, count in zip(transcripts, frames.tolist(), strict=True)
        ]
        packed = pack(transcripts, moments, self.eot, encoded.device)
        has_target = packed.targets != NOTHING
        targets = packed.targets[has_target]
        heard = None
        if options.distillation or options.teacher_share:
            clean = batch.get("clean")
            heard = self.teacher_features(log_mel if clean is None else self.log_mel(clean, batch["length"]))
        teacher = None
        if heard is not None and options.teacher_share:
            share = options.teacher_share * (targets != self.eot)  # it has never learned to wait
            teacher = Teacher(self.teacher_states(transcripts, packed, heard)[has_target], share)
        hidden = read_moments(self.whisper.decoder, packed, encoded)[has_target]
        loss, label, right = vocabulary_loss(hidden, self.whisper.decoder.token_embedding.weight, targets, teacher)
        figures = {
            "tokens": label,
            "accuracy": right.float().mean(),
            "wait_accuracy": right[targets == self.eot].float().mean(),
        }
        if teacher is not None:
            figures["taught"] = loss.detach()
        if heard is not None and options.distillation:
            distance = feature_distance(encoded, heard, frames)
            loss = loss + options.distillation * distance
            figures["distance"] = distance.detach()
        return loss, figures

    @torch.no_grad()
    def log_mel(self, samples: Tensor, length: Tensor) -> Chunk:
        """Log-mel frames of windows (B, N) that end at ``length`` (B,), and of the silence that streaming adds."""
        ends = torch.ones_like(length, dtype=torch.bool)
        mel = self.features.step(Chunk(samples, length, ends), self.features.initial_state(len(length)))
        return with_tail(mel, 2 * self.whisper.config.n_audio_ctx - mel.length)

    def encode(self, log_mel: Chunk, ends: Sequence[int]) -> tuple[Tensor, Tensor]:
        """What streaming in blocks that end at these frames gives: features (B, S, C), and how many are valid."""
        mel = self.normalize.step(log_mel, self.normalize.initial_state(len(log_mel.length)))
        return encode_windows(self.whisper.encoder, mel.with_data(mel.data.to(self.dtype)), ends)

    @torch.no_grad()
    def teacher_features(self, log_mel: Chunk) -> Tensor:
        """The target of distillation: features (B, S, C) of the stock encoder, which sees each window whole.

        Windows are padded with silence to the model's 30 s: with less of it the stock model does not know where the
        speech ends, and is less sure of the words.
        """
        room = 2 * self.whisper.config.n_audio_ctx - log_mel.data.shape[1]
        mel = log_mel.data.masked_fill(~log_mel.mask[..., None], SILENCE)
        mel = F.pad(mel, (0, 0, 0, room), value=SILENCE)
        from loquent.recipes.loop.low_rank import without_adapter

        with without_adapter(self.whisper):
            return self.whisper.encoder(normalize_window(mel).to(self.dtype))

    @torch.no_grad()
    def teacher_states(self, transcripts: Sequence[Transcript], packed: PackedMoments, heard: Tensor) -> Tensor:
        """Hidden states (B, T, C) of the stock decoder at packed tokens, each of which follows the text before it.

        Args:
            heard: features of the stock encoder, as `teacher_features` returns them.
        """
        from loquent.recipes.loop.low_rank import without_adapter

        texts = [torch.tensor(one.control + one.tokens, device=heard.device) for one in transcripts]
        with without_adapter(self.whisper):
            tokens = pad_sequence(texts, batch_first=True, padding_value=self.eot)
            states = read_texts(self.whisper.decoder, tokens, heard)
        return states.gather(1, packed.position[..., None].expand(-1, -1, states.shape[2]))

    @property
    def dtype(self) -> torch.dtype:
        """Of the frozen weights, and of what passes between layers."""
        return self.whisper.decoder.ln.weight.dtype


def feature_distance(encoded: Tensor, target: Tensor, frames: Tensor) -> Tensor:
    """Mean squared distance of features (B, S, C) to a target, in units of its variance; ``frames`` (B,) are valid."""
    valid = torch.arange(encoded.shape[1], device=encoded.device) < frames[:, None]
    target, encoded = target[:, : encoded.shape[1]][valid].float(), encoded[valid]
    return (encoded - target).square().mean() / target.var().clamp_min(1e-6)


def block_ends(frames: int, chunk_ms: int, block_ms: int | None = None) -> list[int]:
    """Encoder frames at which blocks end, up to ``frames`` or beyond.

    A stream's latest block is incomplete at most chunk ends, and is encoded again when more has come. In training every
    frame is encoded once, so a block of ``block_ms`` is cut in two at one of the chunk ends within it, or not, with
    even chances. The decoder thus meets both. Uses torch's generator.

    Args:
        block_ms: None for blocks that are chunks.
    """
    chunk = chunk_ms * ENCODER_RATE // 1000
    if block_ms is None:
        return list(range(chunk, frames + chunk, chunk))
    block = block_ms * ENCODER_RATE // 1000
    ends = []
    for start in range(0, frames, block):
        within = range((start // chunk + 1) * chunk, start + block, chunk)
        if within and torch.rand(()) < 0.5:
            ends.append(within[int(torch.randint(len(within), ()))])
        ends.append(start + block)
    return ends


def encode_windows(encoder: AudioEncoder, mel: Chunk, ends: Sequence[int]) -> tuple[Tensor, Tensor]:
    """`AudioEncoder.forward` under a block-causal mask for windows of different lengths.

    Each row gives what it would give alone: what lies beyond its end reads as zero to the convolutions, and is not
    attended to.

    Args:
        ends: frames at which blocks end, rising, the last one not before the last frame.

    Returns:
        Features (B, S, C) and how many of each row are valid (B,).

    Raises:
        ValueError: a window has more frames than the model has positions.
    """
    x = F.gelu(encoder.conv1(mel.data.masked_fill(~mel.mask[..., None], 0.0)))
    x = F.gelu(encoder.conv2(x.masked_fill(~mel.mask[..., None], 0.0)))
    if x.shape[1] > encoder.capacity:
        raise ValueError(f"{x.shape[1]} encoder frames exceed the model's {encoder.capacity}; make windows shorter")
    x = x + encoder.positional_embedding[: x.shape[1]]
    frames = (mel.length + 1) // 2
    step = torch.arange(x.shape[1], device=x.device)
    block = torch.bucketize(step, torch.tensor(ends, device=x.device), right=True)
    mask = (block <= block[:, None]) & (step < frames[:, None])[:, None]
    for layer in cast(Sequence[ResidualAttentionBlock], encoder.blocks):
        x = layer(x, mask[:, None])
    return encoder.ln_post(x), frames


def read_moments(decoder: TextDecoder, packed: PackedMoments, encoded: Tensor) -> Tensor:
    """Hidden states (B, T, C) of packed moments; `TextDecoder.logits` turns them into scores."""
    x = decoder.token_embedding(packed.tokens) + decoder.positional_embedding[packed.position]
    tokens, audio = packed.token_mask, packed.audio_mask(encoded.shape[1])
    for layer in cast(Sequence[CrossAttentionBlock], decoder.blocks):
        x = x + layer.attn(layer.attn_ln(x), mask=tokens)
        x = x + layer.cross_attn(layer.cross_attn_ln(x), encoded, audio)
        x = x + layer.mlp(layer.mlp_ln(x))
    return decoder.ln(x)
