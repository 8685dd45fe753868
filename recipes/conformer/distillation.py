"""Learning to listen from Whisper: its encoder says what there is to hear, and nobody has to write it down.

A small encoder trained on little speech knows few voices. A large one has heard many: where its features agree about
two speakers, a pupil that is asked for these features learns to hear the same. A frame of 80 ms is asked for the mean
of the four of the teacher's that it covers, each feature in units of its deviation. The teacher hears recordings before
noise, rooms and lines are added to them, and whole; the pupil hears them afterwards, as a stream.
Source: the features of DistilHuBERT (Chang et al. 2022, arXiv 2110.01900), with another teacher.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from loquent.asr.whisper.checkpoint import load_whisper
from loquent.asr.whisper.model import Whisper
from loquent.speech.audio.features import WhisperLogMel, normalize_window
from loquent.speech.hub import resolve

POOL = 4  # frames of the teacher (20 ms) for each of the pupil's
SILENCE_S = 1  # after a recording, from which the teacher knows that it is over


@dataclass(frozen=True)
class DistillationOptions:
    """Who teaches, and how much that counts."""

    teacher: str = "tiny.en"  # a Whisper: name, folder or hub id
    layer: int | None = None  # of its encoder whose output is asked for; by default the last
    weight: float = 1.0  # of the distance to its features


class Distillation(nn.Module):
    """The distance between encoder frames and a Whisper's, whose weights are neither trained nor kept.

    Args:
        options: who teaches.
        width: of the pupil's frames.
    """

    def __init__(self, options: DistillationOptions, width: int) -> None:
        super().__init__()
        self.options = options
        checkpoint = load_whisper(resolve(options.teacher).path)
        teacher = Whisper.from_weights(checkpoint.config, checkpoint.weights).encoder
        teacher.blocks = teacher.blocks[: options.layer]
        self._teacher = (teacher.to(torch.bfloat16),)  # in a tuple: not one of this module's parameters
        self.features = WhisperLogMel(checkpoint.config.n_mels)
        self.project = nn.Linear(width, teacher.width)
        self.standardize = nn.BatchNorm1d(teacher.width, affine=False)

    def forward(self, encoded: Tensor, length: Tensor, samples: Tensor) -> Tensor:
        """Mean squared distance in units of the features' variances: 1 for a pupil that knows only their means.

        Args:
            encoded: (B, T, C) of the pupil, ``length`` (B,) of them valid.
            samples: (B, N) at 16 kHz as the teacher hears them, at most 29 s.

        Raises:
            ValueError: they are longer.
        """
        valid = torch.arange(encoded.shape[1], device=encoded.device) < length[:, None]
        wanted = self.standardize(self._targets(samples)[:, : encoded.shape[1]][valid])
        return (self.project(encoded)[valid].float() - wanted).square().mean()

    @torch.no_grad()
    def _targets(self, samples: Tensor) -> Tensor:
        """Features of the teacher at the pupil's rate (B, T, W), float32."""
        teacher = self._teacher[0].to(samples.device)
        mel = normalize_window(self.features(F.pad(samples, (0, 16_000 * SILENCE_S))))
        return F.avg_pool1d(teacher(mel.to(torch.bfloat16)).float().transpose(1, 2), POOL).transpose(1, 2)
