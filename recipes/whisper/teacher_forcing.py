"""The loss that Whisper was trained with: each next token of a window's text, given those before it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from loquent.asr.whisper.model import TextDecoder, Whisper
from loquent.kernels.cached_attention import attention_mask
from loquent.recipes.data.augment import SpecAugment, SpecAugmentOptions
from loquent.recipes.whisper.passages import NOTHING
from loquent.recipes.whisper.vocabulary_loss import vocabulary_loss
from loquent.speech.audio.features import WhisperLogMel, normalize_window

HOP = 160  # samples of a mel frame


class TeacherForcingLoss(nn.Module):
    """A Whisper with a low-rank adapter, and its cross-entropy on a batch of windows.

    Args:
        whisper: with an adapter on its layers (see `low_rank`).
        spec_augment: masks on the features in training.
    """

    def __init__(self, whisper: Whisper, spec_augment: SpecAugmentOptions) -> None:
        super().__init__()
        self.whisper = whisper
        self.features = WhisperLogMel(whisper.config.n_mels)
        self.spec_augment = SpecAugment(spec_augment)

    def forward(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss in nats per token, and the share of tokens that are the likeliest.

        Args:
            batch: samples (B, N) of windows that are padded alike, length (B,) of what is not padding, tokens (B, T)
                and their targets (B, T), `NOTHING` where there is none.
        """
        with torch.no_grad():
            mel = normalize_window(self.features(batch["samples"]))
            mel = self.spec_augment(mel, batch["length"] // HOP)
        audio = self.whisper.encoder(mel.to(self.whisper.decoder.ln.weight.dtype))
        hidden = read_texts(self.whisper.decoder, batch["tokens"], audio)
        asked = batch["targets"] != NOTHING
        embedding = self.whisper.decoder.token_embedding.weight
        loss, _, right = vocabulary_loss(hidden[asked], embedding, batch["targets"][asked])
        return loss, {"accuracy": right.float().mean()}


def read_texts(decoder: TextDecoder, tokens: Tensor, audio: Tensor) -> Tensor:
    """`TextDecoder.forward` up to the scores: hidden states (B, T, C) of tokens (B, T), given features (B, S, C)."""
    x = decoder.token_embedding(tokens) + decoder.positional_embedding[: tokens.shape[1]]
    steps = torch.arange(tokens.shape[1], device=x.device)
    mask = attention_mask(steps, steps, 1, None, 0)
    for block in decoder.blocks:
        x = block(x, mask, audio)
    hidden: Tensor = decoder.ln(x)
    return hidden
