"""Learning to listen from Whisper: its encoder says what there is to hear, and nobody has to write it down.

A small encoder trained on little speech knows few voices. A large one has heard many: where its features agree about
two speakers, a pupil that is asked for these features learns to hear the same. A frame of 80 ms is asked for the mean
of the four of the teacher's that it covers, each feature in units of its deviation. The teacher hears recordings before
noise, rooms and lines are added to them, and whole; the pupil hears them afterwards, as a stream.
Source: the features of DistilHuBERT (Chang et al. 2022, arXiv 2110.01900), with another teacher.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from loquent.asr.conformer import ConformerEncoder
from loquent.asr.whisper import Whisper
from loquent.asr.whisper_checkpoint import load_whisper
from loquent.recipes.config import ConfigError
from loquent.speech.features import WhisperLogMel, normalize_window
from loquent.speech.hub import resolve

POOL = 4  # frames of the teacher (20 ms) for each of the pupil's
FILE = "distillation.safetensors"
SILENCE_S = 1  # after a recording, from which the teacher knows that it is over


@dataclass(frozen=True)
class DistillationOptions:
    """Who teaches, and how much that counts."""

    teacher: str = "tiny.en"  # a Whisper: name, folder or hub id
    layer: int | None = None  # of its encoder whose output is asked for; by default the last
    pupil_layer: int | None = None  # which of the pupil's is asked, likewise; those behind it are free for the texts
    weight: float = 1.0  # of the distance to its features
    alone: bool = False  # no other loss: recordings need no texts


class Distillation(nn.Module):
    """The distance between an encoder's frames and a Whisper's, whose weights are neither trained nor kept.

    Args:
        options: who teaches.
        encoder: the pupil. It is listened to whenever it encodes whole recordings.

    Raises:
        ConfigError: it has no such layer.
    """

    _frames: Tensor  # (B, T, C) of the pupil

    def __init__(self, options: DistillationOptions, encoder: ConformerEncoder) -> None:
        super().__init__()
        self.options = options
        layers = len(encoder.layers)
        if not 1 <= (asked := options.pupil_layer or layers) <= layers:
            raise ConfigError(f"distillation.pupil_layer must be from 1 to encoder.layers={layers}, got {asked}")
        encoder.layers[asked - 1].register_forward_hook(self._listen)
        checkpoint = load_whisper(resolve(options.teacher).path)
        teacher = Whisper.from_weights(checkpoint.config, checkpoint.weights).encoder
        teacher.blocks = teacher.blocks[: options.layer]
        self._teacher = (teacher.to(torch.bfloat16),)  # in a tuple: not one of this module's parameters
        self.features = WhisperLogMel(checkpoint.config.n_mels)
        self.project = nn.Linear(encoder.config.dim, teacher.width)
        self.standardize = nn.BatchNorm1d(teacher.width, affine=False)

    def forward(self, length: Tensor, samples: Tensor) -> Tensor:
        """Distance of what the pupil has just made of some recordings: the mean square in units of the features'
        variances, 1 for one that knows only their means.

        Args:
            length: (B,) of its frames that are valid.
            samples: (B, N) the same recordings at 16 kHz as the teacher hears them, at most 29 s.

        Raises:
            ValueError: they are longer.
        """
        frames = self._frames
        valid = torch.arange(frames.shape[1], device=frames.device) < length[:, None]
        wanted = self.standardize(self._targets(samples)[:, : frames.shape[1]][valid])
        return (self.project(frames)[valid].float() - wanted).square().mean()

    def _listen(self, layer: nn.Module, inputs: object, output: Tensor | tuple[Tensor, Tensor]) -> None:
        self._frames = output if isinstance(output, Tensor) else output[0]

    def save(self, folder: Path) -> None:
        """Keep what was learnt about the teacher's features beside the pupil's weights."""
        safetensors.torch.save_file(self.state_dict(), folder / FILE)

    def go_on_from(self, folder: Path) -> None:
        """Take over what was kept, if anything: a projection that knows nothing would pull a good encoder about.

        Raises:
            ConfigError: it is of another teacher.
        """
        if (folder / FILE).is_file():
            try:
                self.load_state_dict(safetensors.torch.load_file(folder / FILE))
            except RuntimeError as error:
                raise ConfigError(f"distillation: {folder} had another teacher: {error}") from error

    @torch.no_grad()
    def _targets(self, samples: Tensor) -> Tensor:
        """Features of the teacher at the pupil's rate (B, T, W), float32."""
        teacher = self._teacher[0].to(samples.device)
        mel = normalize_window(self.features(F.pad(samples, (0, 16_000 * SILENCE_S))))
        return F.avg_pool1d(teacher(mel.to(torch.bfloat16)).float().transpose(1, 2), POOL).transpose(1, 2)
