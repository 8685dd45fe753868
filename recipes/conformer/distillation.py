"""Feature distillation from a Whisper encoder, which needs no transcripts.

The teacher was trained on many more speakers than the student's data has, so its features vary less from speaker to
speaker. A linear projection of each student frame (80 ms) predicts the mean of the four teacher frames that it covers,
standardised per feature. The teacher encodes the whole recording before noise, reverberation and telephone lines are
added; the student encodes the augmented recording with its own limited look-ahead.
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

POOL = 4  # frames of the teacher (20 ms) for each of the student's
SILENCE_S = 1  # after a recording, as the teacher expects at its end


@dataclass(frozen=True)
class DistillationOptions:
    """The teacher, and the weight of the loss."""

    teacher: str = "tiny.en"  # a Whisper: name, folder or hub id
    layer: int | None = None  # of its encoder whose output is the target, counted from 1; by default the last
    weight: float = 1.0  # of the loss


class Distillation(nn.Module):
    """The distance between projected encoder frames and a Whisper's. The Whisper is neither trained nor saved.

    Args:
        options: the teacher.
        width: of the student's frames.
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
        """Mean squared distance in units of the features' variances: 1 for a student that predicts only their means.

        Args:
            encoded: (B, T, C) of the student, ``length`` (B,) of them valid.
            samples: (B, N) at 16 kHz, the teacher's input, at most 29 s.

        Raises:
            ValueError: they are longer.
        """
        valid = torch.arange(encoded.shape[1], device=encoded.device) < length[:, None]
        target = self.standardize(self._targets(samples)[:, : encoded.shape[1]][valid])
        return (self.project(encoded)[valid].float() - target).square().mean()

    @torch.no_grad()
    def _targets(self, samples: Tensor) -> Tensor:
        """Features of the teacher at the student's rate (B, T, W), float32."""
        teacher = self._teacher[0].to(samples.device)
        mel = normalize_window(self.features(F.pad(samples, (0, 16_000 * SILENCE_S))))
        return F.avg_pool1d(teacher(mel.to(torch.bfloat16)).float().transpose(1, 2), POOL).transpose(1, 2)
