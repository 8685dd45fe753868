"""What an encoder is asked for besides the texts, so that it learns to listen: see `distillation` and `spelling`.

Asked below its last layers, it keeps what it has learnt in many voices while those above learn the texts of a few.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn

from loquent.asr.conformer.encoder import ConformerEncoder
from loquent.recipes.conformer.distillation import Distillation, DistillationOptions
from loquent.recipes.conformer.spelling import Spelling, SpellingOptions
from loquent.recipes.loop.config import ConfigError

FILE = "listening.safetensors"


@dataclass(frozen=True)
class ListeningOptions:
    """Who asks, and which layer."""

    distillation: DistillationOptions | None = None
    spelling: SpellingOptions | None = None
    layer: int | None = None  # of the encoder; by default the last
    alone: bool = False  # nothing else is asked

    def __post_init__(self) -> None:
        if self.distillation is None and self.spelling is None:
            raise ValueError("listening goes with distillation, spelling or both")
        if self.alone and self.distillation is None:
            raise ValueError("alone=true goes with distillation, by which the best weights are then chosen")


class Listening(nn.Module):
    """Losses on the output of one layer, whose own weights are trained but not kept with the model.

    Args:
        options: who asks.
        encoder: who is asked. It is listened to whenever it encodes whole recordings.
    """

    frames: Tensor  # (B, T, C), what the layer made last

    def __init__(self, options: ListeningOptions, encoder: ConformerEncoder) -> None:
        super().__init__()
        layer = encoder.layers[(options.layer or len(encoder.layers)) - 1]
        layer.register_forward_hook(self._listen)
        width = encoder.config.dim
        self.distillation = Distillation(options.distillation, width) if options.distillation else None
        self.spelling = Spelling(options.spelling, width) if options.spelling else None

    def forward(self, length: Tensor, batch: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Weighted sum of the losses for the recordings that the encoder has just been given, and each of them.

        Args:
            length: (B,) frames that are valid.
            batch: for a teacher clean (B, N) samples; letters (B, U), letter_count (B,) of them.
        """
        loss, figures = self.frames.new_zeros((), dtype=torch.float32), {}
        if self.distillation is not None:
            distance = self.distillation(self.frames, length, batch["clean"])
            loss = loss + self.distillation.options.weight * distance
            figures["distance"] = distance.detach()
        if self.spelling is not None:
            spelling = self.spelling(self.frames, length, batch["letters"], batch["letter_count"])
            loss = loss + self.spelling.options.weight * spelling
            figures["spelling"] = spelling.detach()
        return loss, figures

    def save(self, folder: Path) -> None:
        """Keep the weights beside the model's, for a run that goes on from there."""
        safetensors.torch.save_file(self.state_dict(), folder / FILE)

    def go_on_from(self, folder: Path) -> None:
        """Take over what a run kept, as far as it asked the same: a head that knows nothing would pull a good encoder
        about.

        Raises:
            ConfigError: it had another teacher.
        """
        if (folder / FILE).is_file():
            own, kept = self.state_dict(), safetensors.torch.load_file(folder / FILE)
            try:
                self.load_state_dict(own | {name: value for name, value in kept.items() if name in own})
            except RuntimeError as error:
                raise ConfigError(f"listening: {folder} had another teacher: {error}") from error

    def _listen(self, layer: nn.Module, inputs: object, output: Tensor | tuple[Tensor, Tensor]) -> None:
        self.frames = output if isinstance(output, Tensor) else output[0]
