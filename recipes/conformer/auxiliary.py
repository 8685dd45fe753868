"""Auxiliary losses on one encoder layer: feature distillation and intermediate CTC, see the modules of these names.

Attached below the last layers, they train the lower layers on speech of many speakers, also without transcripts of the
task, while the layers above specialise in the task's texts.
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
from loquent.recipes.conformer.intermediate_ctc import IntermediateCTC, IntermediateCTCOptions
from loquent.recipes.loop.config import ConfigError

FILE = "auxiliary.safetensors"


@dataclass(frozen=True)
class AuxiliaryOptions:
    """Which losses, on the output of which layer."""

    distillation: DistillationOptions | None = None
    intermediate_ctc: IntermediateCTCOptions | None = None
    layer: int | None = None  # of the encoder, counted from 1; by default the last
    alone: bool = False  # train with these losses only, and leave the CTC and transducer heads as they are

    def __post_init__(self) -> None:
        if self.distillation is None and self.intermediate_ctc is None:
            raise ValueError("auxiliary goes with distillation, intermediate_ctc or both")
        if self.alone and self.distillation is None:
            raise ValueError("alone=true goes with distillation, whose distance then chooses the best weights")


class AuxiliaryLosses(nn.Module):
    """The auxiliary losses with their own weights, which are trained but are not part of the model.

    Args:
        options: which losses, and their weights.
        encoder: the encoder that is trained; a forward hook keeps the layer's output of its latest forward pass.
    """

    frames: Tensor  # (B, T, C), the latest output of the layer

    def __init__(self, options: AuxiliaryOptions, encoder: ConformerEncoder) -> None:
        super().__init__()
        layer = encoder.layers[(options.layer or len(encoder.layers)) - 1]
        layer.register_forward_hook(self._keep)
        width = encoder.config.dim
        self.distillation = Distillation(options.distillation, width) if options.distillation else None
        self.intermediate_ctc = IntermediateCTC(options.intermediate_ctc, width) if options.intermediate_ctc else None

    def forward(self, length: Tensor, batch: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Weighted sum of the losses for the batch that the encoder has just processed, and each loss by name.

        Args:
            length: (B,) valid frames.
            batch: clean (B, N) samples for the teacher; letters (B, U) and letter_count (B,) for CTC.
        """
        loss, figures = self.frames.new_zeros((), dtype=torch.float32), {}
        if self.distillation is not None:
            distance = self.distillation(self.frames, length, batch["clean"])
            loss = loss + self.distillation.options.weight * distance
            figures["distance"] = distance.detach()
        if self.intermediate_ctc is not None:
            ctc = self.intermediate_ctc(self.frames, length, batch["letters"], batch["letter_count"])
            loss = loss + self.intermediate_ctc.options.weight * ctc
            figures["intermediate_ctc"] = ctc.detach()
        return loss, figures

    def save(self, folder: Path) -> None:
        """Write the weights beside the model's, for a run that starts from there."""
        safetensors.torch.save_file(self.state_dict(), folder / FILE)

    def load(self, folder: Path) -> None:
        """Read the weights that an earlier run saved, for the losses that both have.

        A projection or a head that starts from random weights would first disturb an encoder that is already trained.

        Raises:
            ConfigError: the earlier run had a teacher of another size.
        """
        if (folder / FILE).is_file():
            own, saved = self.state_dict(), safetensors.torch.load_file(folder / FILE)
            try:
                self.load_state_dict(own | {name: value for name, value in saved.items() if name in own})
            except RuntimeError as error:
                raise ConfigError(f"auxiliary: {folder} had another teacher: {error}") from error

    def _keep(self, layer: nn.Module, inputs: object, output: Tensor | tuple[Tensor, Tensor]) -> None:
        self.frames = output if isinstance(output, Tensor) else output[0]
