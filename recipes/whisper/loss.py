"""Whisper's training loss as a streaming recogniser: block-causal encoder, sampled moments, distillation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from loquent.asr.whisper.live.encoding import SILENCE, with_tail
from loquent.asr.whisper.model import AudioEncoder, CrossAttentionBlock, ResidualAttentionBlock, TextDecoder, Whisper
from loquent.kernels.cached_attention import attention_mask
from loquent.recipes.whisper.moments import (
    ENCODER_RATE,
    NOTHING,
    MomentOptions,
    PackedMoments,
    Transcript,
    pack,
    sample_moments,
)
from loquent.recipes.whisper.vocabulary_loss import vocabulary_loss
from loquent.speech.audio.features import RunningMaxNormalize, WhisperLogMel, normalize_window
from loquent.speech.nn.streaming import Chunk

TEACHER_PADDING = 100  # mel frames of silence that mark the end of a recording for the stock encoder


@dataclass(frozen=True)
class LossOptions:
    """Chunk sizes, the moments that are trained, and the weight of distillation."""

    chunk_ms: tuple[int, ...] = (100, 160, 200, 300, 400, 500, 700, 1000)  # one is drawn for each batch
    moments: MomentOptions = field(default_factory=MomentOptions)
    distillation: float = 1.0  # weight of the feature distance to the stock encoder, the teacher

    def __post_init__(self) -> None:
        if not self.chunk_ms or any(ms % 20 or not 20 <= ms <= 5000 for ms in self.chunk_ms):
            raise ValueError(f"chunk_ms must be multiples of 20 from 20 to 5000, got {self.chunk_ms}")
        if self.distillation < 0:
            raise ValueError(f"distillation must not be negative, got {self.distillation}")


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
            batch: samples (B, N), length (B,) of them, transcripts of the B windows; chunk_ms if it is not to be drawn.
        """
        choices, options = self.options.chunk_ms, self.options
        chunk_ms = batch.get("chunk_ms") or choices[int(torch.randint(len(choices), ()))]
        block = chunk_ms * ENCODER_RATE // 1000
        log_mel = self.log_mel(batch["samples"], batch["length"])
        encoded, frames = self.encode(log_mel, block)
        transcripts: Sequence[Transcript] = batch["transcripts"]
        moments = [
            sample_moments(one, count, block, options.moments)
            for one, count in zip(transcripts, frames.tolist(), strict=True)
        ]
        packed = pack(transcripts, moments, self.eot, encoded.device)
        hidden = read_moments(self.whisper.decoder, packed, encoded)
        has_target = packed.targets != NOTHING
        targets = packed.targets[has_target]
        loss, found = vocabulary_loss(hidden[has_target], self.whisper.decoder.token_embedding.weight, targets)
        right = found.float()
        figures = {
            "tokens": loss.detach(),
            "accuracy": right.mean(),
            "wait_accuracy": right[targets == self.eot].mean(),
        }
        if options.distillation:
            distance = feature_distance(encoded, self.teacher_features(log_mel), frames)
            loss = loss + options.distillation * distance
            figures["distance"] = distance.detach()
        return loss, figures

    @torch.no_grad()
    def log_mel(self, samples: Tensor, length: Tensor) -> Chunk:
        """Log-mel frames of windows (B, N) that end at ``length`` (B,), and of the silence that streaming adds."""
        ends = torch.ones_like(length, dtype=torch.bool)
        mel = self.features.step(Chunk(samples, length, ends), self.features.initial_state(len(length)))
        return with_tail(mel, 2 * self.whisper.config.n_audio_ctx - mel.length)

    def encode(self, log_mel: Chunk, block: int) -> tuple[Tensor, Tensor]:
        """What streaming in chunks of ``block`` encoder frames gives: features (B, S, C), and how many are valid."""
        mel = self.normalize.step(log_mel, self.normalize.initial_state(len(log_mel.length)))
        return encode_windows(self.whisper.encoder, mel.with_data(mel.data.to(self.dtype)), block)

    @torch.no_grad()
    def teacher_features(self, log_mel: Chunk) -> Tensor:
        """The target of distillation: features (B, S, C) of the stock encoder, which sees each window whole."""
        room = 2 * self.whisper.config.n_audio_ctx - log_mel.data.shape[1]
        mel = log_mel.data.masked_fill(~log_mel.mask[..., None], SILENCE)
        mel = F.pad(mel, (0, 0, 0, min(TEACHER_PADDING, room)), value=SILENCE)
        from loquent.recipes.loop.low_rank import without_adapter

        with without_adapter(self.whisper):
            return self.whisper.encoder(normalize_window(mel).to(self.dtype))

    @property
    def dtype(self) -> torch.dtype:
        """Of the frozen weights, and of what passes between layers."""
        return self.whisper.decoder.ln.weight.dtype


def feature_distance(encoded: Tensor, target: Tensor, frames: Tensor) -> Tensor:
    """Mean squared distance of features (B, S, C) to a target, in units of its variance; ``frames`` (B,) are valid."""
    valid = torch.arange(encoded.shape[1], device=encoded.device) < frames[:, None]
    target, encoded = target[:, : encoded.shape[1]][valid].float(), encoded[valid]
    return (encoded - target).square().mean() / target.var().clamp_min(1e-6)


def encode_windows(encoder: AudioEncoder, mel: Chunk, block: int) -> tuple[Tensor, Tensor]:
    """`AudioEncoder.forward` under a block-causal mask for windows of different lengths.

    Each row gives what it would give alone: what lies beyond its end reads as zero to the convolutions, and is not
    attended to.

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
    mask = attention_mask(step, step, block, None, 0) & (step < frames[:, None])[:, None]
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
