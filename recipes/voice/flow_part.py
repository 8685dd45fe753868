"""Training of the flow: phones, true durations, pitch and energy to mel spectrograms, under many chunk masks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from loquent.recipes.voice.corpus import Corpus, padded
from loquent.recipes.voice.data import Utterance
from loquent.tts.flow.masks import ChunkMask, MaskMixture, seen
from loquent.tts.flow.matching import drop_conditions
from loquent.tts.flow.noise import NoiseTable
from loquent.tts.flow.solver import FlowSolver
from loquent.tts.flow_voice.acoustic import HALVES, MATCHING, AcousticNet
from loquent.tts.flow_voice.prosody import places
from loquent.tts.vocoder.convnext import ConvNeXtStack


@dataclass(frozen=True)
class FlowOptions:
    """What the flow learns.

    chunks:  of the masks, in frames of 25 ms; 0 is the full mask. weights: how often each is drawn.
    left:    frames before its chunk that a frame sees, but for the full mask.
    default: the chunk that the voice is judged by.
    dropped: share of the utterances without conditions, which guidance needs.
    """

    chunks: tuple[int, ...] = (1, 5, 10, 25, 0)
    weights: tuple[float, ...] = (1.0, 1.5, 3.0, 1.5, 1.0)
    left: int = 40
    default: int = 10
    dropped: float = 0.05

    def mask(self, chunk: int) -> ChunkMask:
        """That of a chunk."""
        return ChunkMask(chunk, self.left) if chunk else ChunkMask(None)


class FlowPart:
    """Whole sentences.

    Args:
        net: what is trained, with the mean and deviation of mel bins. corpus, valid: utterances.
    """

    judged_by = "mel_l1"

    def __init__(self, net: AcousticNet, corpus: Corpus, valid: Corpus, options: FlowOptions) -> None:
        self.net, self.corpus, self.valid, self.options = net, corpus, valid, options
        self.module: nn.Module = _Loss(net, options)

    def lengths(self) -> list[float]:
        """Seconds."""
        return [0.025 * count for count in self.corpus.unit_counts]

    def collate(self, items: Sequence[int], epoch: int) -> dict[str, Tensor]:
        """Whole utterances."""
        return batch_of([self.corpus[item] for item in items])

    def evaluate(self) -> dict[str, float]:
        """Mean absolute errors of normalised mel bins, under masks (chunk) and by steps of the solver."""
        figures = {}
        for name, chunk, steps in (
            ("mel_l1", self.options.default, 1),
            ("chunk_1", 1, 1),
            ("chunk_5", 5, 1),
            ("chunk_25", 25, 1),
            ("full", 0, 1),
            ("steps_4", self.options.default, 4),
        ):
            total, count = 0.0, 0
            for index in range(0, len(self.valid), 1 if name == self.judged_by else 4):
                batch = batch_of([self.valid[index]])
                device = self.net.mean.device
                mel = batch["mel"].to(device)
                made = rendered(
                    self.net, {key: value.to(device) for key, value in batch.items()}, self.options, chunk, steps
                )
                total += float((made - self.net.stacked(mel)).abs().mean(dim=2).sum())
                count += made.shape[1]
            figures[name] = total / count
        return figures


def some_mels(corpus: Corpus, most: int = 300) -> Tensor:
    """Mel frames (N, mels) of some utterances."""
    return torch.cat([corpus[index].mel for index in range(0, len(corpus), max(len(corpus) // most, 1))])


def rendered(net: AcousticNet, batch: Mapping[str, Tensor], options: FlowOptions, chunk: int, steps: int) -> Tensor:
    """(B, T, 2 · mels) normalised mel frames for one utterance."""
    solver = FlowSolver(
        net.estimator, NoiseTable(net.estimator.bins, 4000), options.mask(chunk), matching=MATCHING, steps=steps
    ).to(net.mean.device)
    return solver(net.conditioner(frames_of(net, batch)))


def batch_of(rows: Sequence[Utterance]) -> dict[str, Tensor]:
    """Phones, the place of each frame in them, curves and mel spectrograms."""
    phones, phones_present = padded([row.phones for row in rows])
    placed = [places(row.durations) for row in rows]
    frame_phone, present = padded([phone for phone, _ in placed])
    curves = [
        torch.cat([row.pitch.unflatten(0, (-1, HALVES)), row.energy.unflatten(0, (-1, HALVES)), where], dim=1)
        for row, (_, where) in zip(rows, placed, strict=True)
    ]
    return {
        "phones": phones,
        "phones_present": phones_present,
        "mixture": torch.stack([row.mixture for row in rows]),
        "frame_phone": frame_phone,
        "present": present,
        "curves": padded(curves)[0],
        "mel": padded([row.mel for row in rows])[0],
    }


def frames_of(net: AcousticNet, batch: Mapping[str, Tensor]) -> Tensor:
    """Frames as the renderer takes them, (B, T, C + 6), zero where there are none."""
    features = net.phones(batch["phones"], batch["mixture"], batch["phones_present"])
    each = features.gather(1, batch["frame_phone"][:, :, None].expand(-1, -1, features.shape[2]))
    return torch.cat([each, batch["curves"]], dim=2) * batch["present"][:, :, None]


class _Loss(nn.Module):
    """Square error of the predicted spectrogram, and some of the absolute one."""

    ABSOLUTE = 0.3
    LATE = 0.2  # what is left of the noise, at least, as errors are weighted by it

    def __init__(self, net: AcousticNet, options: FlowOptions) -> None:
        super().__init__()
        self.net, self.options = net, options
        self.masks = MaskMixture(tuple(map(options.mask, options.chunks)), options.weights)

    def forward(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """See `batch_of`."""
        present, target = batch["present"], self.net.stacked(batch["mel"])
        condition = drop_conditions(self._conditions(batch), self.options.dropped)
        draw = MATCHING.draw(target)
        visible = seen(self.masks.sample(len(target)), present.sum(1), target.shape[1])
        predicted = self.net.estimator(draw.x, condition, draw.t, visible)
        square = MATCHING.loss(predicted, target, draw, present)
        absolute = ((predicted - target).abs().mean(2) * present).sum(1) / present.sum(1)
        weight = 1 / (1 - draw.t).clamp(min=self.LATE)
        share = present.sum(1) / present.sum()
        first = draw.t == 0
        figures = {"at_start": (square * first).sum() / first.sum().clamp(min=1)}
        loss = (share * (weight * square + self.ABSOLUTE * absolute)).sum()
        return loss, {name: value.detach() for name, value in figures.items()}

    def _conditions(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Conditions, of which padding has no part: layers that look ahead see zeros there, as behind a stream."""
        x, present = frames_of(self.net, batch), batch["present"][:, :, None]
        for stage in self.net.conditioner.stages:
            if isinstance(stage, ConvNeXtStack):
                for block in stage.blocks:
                    x = block(x * present)
            else:
                x = stage(x)
        return x
