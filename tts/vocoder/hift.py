"""The HiFT vocoder of CosyVoice 2 and 3: mel frames to samples by way of short spectra and a harmonic source."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from loquent.speech.nn.convolution import Conv1d
from loquent.speech.nn.state import State
from loquent.speech.nn.streaming import ChainState, Chunk, StreamingModule, WindowState, as_chunk, as_rows
from loquent.speech.weight_files import check_weight
from loquent.tts.vocoder.branches import Meeting, MeetingState
from loquent.tts.vocoder.f0_predictor import F0Predictor
from loquent.tts.vocoder.hift_source import HarmonicSource, SourceState
from loquent.tts.vocoder.inverse_stft import InverseSTFT
from loquent.tts.vocoder.snake_blocks import MeanOfBlocks, MeanState, ResidualState, SnakeBlock
from loquent.tts.vocoder.stft import STFT
from loquent.tts.vocoder.upsampling import MirroredStart, PaddedConvTranspose1d, RepeatedConv1d
from loquent.tts.vocoder.weight_norm import without_weight_norm

LOUDEST = 1e2  # magnitudes are cut off above
LAST_SLOPE = 0.01  # of the leaky ReLU before the last convolution
MOST = 2**18  # channels, samples a second and whatever else has a size

Upsampling = PaddedConvTranspose1d | RepeatedConv1d
Stage = tuple[Upsampling, Conv1d, SnakeBlock, MeanOfBlocks]


@dataclass(frozen=True)
class HiftConfig:
    """Shape of the vocoder; names and defaults are those of `hift` in `cosyvoice2.yaml`.

    causal: CosyVoice 3's: convolutions see the past, but for the first one of each network.
    conv_pre_look_right: frames that the first convolution of the causal one looks ahead.

    Raises:
        ValueError: sizes that do not fit each other.
    """

    in_channels: int = 80
    base_channels: int = 512
    nb_harmonics: int = 8
    sampling_rate: int = 24_000
    nsf_alpha: float = 0.1
    nsf_sigma: float = 0.003
    nsf_voiced_threshold: float = 10.0
    upsample_rates: tuple[int, ...] = (8, 5, 3)
    upsample_kernel_sizes: tuple[int, ...] = (16, 11, 7)
    n_fft: int = 16
    hop_len: int = 4
    resblock_kernel_sizes: tuple[int, ...] = (3, 7, 11)
    resblock_dilation_sizes: tuple[tuple[int, ...], ...] = ((1, 3, 5), (1, 3, 5), (1, 3, 5))
    source_resblock_kernel_sizes: tuple[int, ...] = (7, 7, 11)
    source_resblock_dilation_sizes: tuple[tuple[int, ...], ...] = ((1, 3, 5), (1, 3, 5), (1, 3, 5))
    lrelu_slope: float = 0.1
    audio_limit: float = 0.99
    f0_channels: int = 512
    causal: bool = False
    conv_pre_look_right: int = 4

    def __post_init__(self) -> None:
        stages = len(self.upsample_rates)
        per_stage = self.upsample_kernel_sizes, self.source_resblock_kernel_sizes, self.source_resblock_dilation_sizes
        if stages == 0 or any(len(sizes) != stages for sizes in per_stage):
            raise ValueError(f"{stages} upsample_rates need as many kernel sizes and source blocks, got {per_stage}")
        if len(self.resblock_kernel_sizes) != len(self.resblock_dilation_sizes) or not self.resblock_kernel_sizes:
            raise ValueError("resblock_kernel_sizes and resblock_dilation_sizes must be equally many, at least 1")
        if any(type(n) is not int or not 0 < n <= MOST for n in self._counts()):
            raise ValueError(f"sizes of the vocoder must be whole numbers from 1 to {MOST}, got {self}")
        if self.base_channels % 2**stages or self.n_fft % (2 * self.hop_len) or self.hop % 2:
            raise ValueError(
                f"base_channels={self.base_channels} must be a multiple of {2**stages}, n_fft={self.n_fft} of twice "
                f"hop_len={self.hop_len}, and a mel frame of {self.hop} samples be an even number of them"
            )

    @property
    def hop(self) -> int:
        """Samples of a mel frame."""
        return math.prod(self.upsample_rates) * self.hop_len

    def channels(self, stage: int) -> int:
        """Of the steps behind a stage of upsampling."""
        return self.base_channels // 2 ** (stage + 1)

    def _counts(self) -> list[int]:
        counts = [getattr(self, field.name) for field in fields(self) if field.type == "int"]
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, tuple):
                for one in value:
                    counts += one if isinstance(one, tuple) else [one]
        return counts


@dataclass
class HiftState(State):
    """Caches of every part of the vocoder."""

    f0: ChainState
    source: SourceState
    stft: WindowState
    source_downs: tuple[WindowState, ...]
    source_blocks: tuple[ResidualState, ...]
    conv_pre: WindowState
    ups: tuple[WindowState, ...]
    mirror: WindowState
    meetings: tuple[MeetingState, ...]
    blocks: tuple[MeanState, ...]
    conv_post: WindowState
    inverse: WindowState


class Hift(StreamingModule):
    """Log-mel frames (B, T, F) to samples (B, T · hop): HiFTNet (arXiv 2309.09493) as in CosyVoice.

    F0 of the frames drives a source of sines and noise (`HarmonicSource`), whose short spectra join what is made of the
    frames at every stage of upsampling; what comes out are short spectra, too, turned into samples.

    `step` gives what `forward` gives of the whole, sample by sample. What lies outside the stream is zero to every
    layer, and of two branches the quicker one waits. Upstream instead runs the vocoder over overlapping pieces and
    fades between them (CosyVoice 2), or over all that it has again and again (3). Noise is a function of the seed
    and the sample, see `HarmonicSource`. Parameters have the names of CosyVoice's generators.
    """

    def __init__(self, config: HiftConfig) -> None:
        super().__init__()
        self.config = config
        causal, base, stages = config.causal, config.base_channels, range(len(config.upsample_rates))
        bins = config.n_fft + 2
        self.f0_predictor = F0Predictor(config.in_channels, config.f0_channels, causal=causal)
        self.m_source = HarmonicSource(
            config.sampling_rate,
            config.hop,
            harmonics=config.nb_harmonics,
            amplitude=config.nsf_alpha,
            noise=config.nsf_sigma,
            threshold=config.nsf_voiced_threshold,
            causal=causal,
        )
        self.stft = STFT(config.n_fft, config.hop_len, final_frame=True)
        kernel, right = (config.conv_pre_look_right + 1, config.conv_pre_look_right) if causal else (7, 3)
        self.conv_pre = Conv1d(config.in_channels, base, kernel, right=right)
        upsample = RepeatedConv1d if causal else PaddedConvTranspose1d
        self.ups = nn.ModuleList(
            upsample(base // 2**stage, config.channels(stage), kernel, rate)
            for stage, rate, kernel in zip(stages, config.upsample_rates, config.upsample_kernel_sizes, strict=True)
        )
        self.mirror = MirroredStart(config.channels(stages[-1]))

        self.source_downs, self.source_resblocks = nn.ModuleList(), nn.ModuleList()
        for stage in stages:
            channels, rate = config.channels(stage), math.prod(config.upsample_rates[stage + 1 :])
            left = rate - 1 if causal else rate // 2
            down = Conv1d(bins, channels, 1) if rate == 1 else _down(bins, channels, rate, left, 0 if causal else left)
            self.source_downs.append(down)
            kernel, dilations = config.source_resblock_kernel_sizes[stage], config.source_resblock_dilation_sizes[stage]
            self.source_resblocks.append(SnakeBlock(channels, kernel, dilations, causal=causal))

        shapes = list(zip(config.resblock_kernel_sizes, config.resblock_dilation_sizes, strict=True))
        self.resblocks = nn.ModuleList(
            SnakeBlock(config.channels(stage), kernel, dilations, causal=causal)
            for stage, (kernel, dilations) in itertools.product(stages, shapes)
        )
        resblocks = cast("list[SnakeBlock]", list(self.resblocks))
        self.means = nn.ModuleList(
            MeanOfBlocks(resblocks[stage * len(shapes) :][: len(shapes)], config.channels(stage)) for stage in stages
        )
        self.conv_post = Conv1d(config.channels(stages[-1]), bins, 7, right=0 if causal else 3)
        self.inverse = InverseSTFT(config.n_fft, config.hop_len, final_frame=True)
        self.meetings = nn.ModuleList(
            Meeting(
                functools.partial(self._frames_for_mel_branch, stage),
                functools.partial(self._frames_for_source_branch, stage),
                config.channels(stage),
            )
            for stage in stages
        )

    @classmethod
    def from_weights(cls, config: HiftConfig, weights: Mapping[str, Tensor]) -> Hift:
        """A vocoder in evaluation mode.

        Args:
            weights: under CosyVoice's names, those of a `hift.pt`; of a whole GAN, the generator's. Weight
                normalisation in either spelling is resolved.

        Raises:
            ValueError: weights are missing, unknown or of other shapes.
        """
        named = {name.replace("generator.", ""): weight for name, weight in weights.items()}
        plain = without_weight_norm(named)
        model = cls(config)
        expected = model.state_dict()
        if expected.keys() != plain.keys():
            missing, unknown = sorted(expected.keys() - plain.keys()), sorted(plain.keys() - expected.keys())
            raise ValueError(f"not the vocoder of the configuration: missing {missing[:4]}, unknown {unknown[:4]}")
        for name, weight in plain.items():
            check_weight(name, weight, expected[name].shape)
        model.load_state_dict(plain)
        return model.eval()

    def seek(self, state: HiftState, rows: Tensor, seeds: Tensor) -> None:
        """Give slots that were reset the seeds (N,) of their noise."""
        self.m_source.seek(state.source, rows, seeds)

    def forward(self, x: Tensor, seeds: Tensor | None = None) -> Tensor:
        """Samples of whole streams, with noise of seed 0 unless seeds (B,) are given."""
        source = self._features(self.stft(self.m_source(self.f0_predictor(x), seeds)))
        x = self.conv_pre(x)
        for stage, (up, down, block, mean) in enumerate(self._stages):
            x = up(F.leaky_relu(x, self.config.lrelu_slope))
            if stage == len(self.ups) - 1:
                x = self.mirror(x)
            x = mean(x + block(down(source)))
        return self._limited(self.inverse(self._spectrum(self.conv_post(F.leaky_relu(x, LAST_SLOPE)))))

    def initial_state(self, batch: int) -> HiftState:
        """Streams at their beginning, with seed 0."""
        ups, downs, blocks, means = zip(*self._stages, strict=True)
        return HiftState(
            self.f0_predictor.initial_state(batch),
            self.m_source.initial_state(batch),
            self.stft.initial_state(batch),
            tuple(down.initial_state(batch) for down in downs),
            tuple(block.initial_state(batch) for block in blocks),
            self.conv_pre.initial_state(batch),
            tuple(up.initial_state(batch) for up in ups),
            self.mirror.initial_state(batch),
            tuple(cast("Meeting", meeting).initial_state(batch) for meeting in self.meetings),
            tuple(mean.initial_state(batch) for mean in means),
            self.conv_post.initial_state(batch),
            self.inverse.initial_state(batch),
        )

    def step(self, x: Chunk | Tensor, state: HiftState, rows: Tensor | None = None, last: bool = False) -> Chunk:
        """Samples that no later frame reaches."""
        chunk = as_chunk(x, last)
        rows = as_rows(rows, chunk)
        f0 = self.f0_predictor.step(chunk, state.f0, rows)
        source = self.stft.step(self.m_source.step(f0, state.source, rows), state.stft, rows)
        source = source.with_data(self._features(source.data))
        chunk = self.conv_pre.step(chunk, state.conv_pre, rows)
        for stage, (up, down, block, mean) in enumerate(self._stages):
            chunk = chunk.with_data(F.leaky_relu(chunk.data, self.config.lrelu_slope))
            chunk = up.step(chunk, state.ups[stage], rows)
            if stage == len(self.ups) - 1:
                chunk = self.mirror.step(chunk, state.mirror, rows)
            part = block.step(down.step(source, state.source_downs[stage], rows), state.source_blocks[stage], rows)
            chunk = cast("Meeting", self.meetings[stage]).step(chunk, part, state.meetings[stage], rows)
            chunk = mean.step(chunk, state.blocks[stage], rows)
        chunk = chunk.with_data(F.leaky_relu(chunk.data, LAST_SLOPE))
        chunk = self.conv_post.step(chunk, state.conv_post, rows)
        samples = self.inverse.step(chunk.with_data(self._spectrum(chunk.data)), state.inverse, rows)
        return samples.with_data(self._limited(samples.data))

    def inputs_for(self, outputs: int) -> int:
        """The longer one of the look-aheads of both branches, stage by stage."""
        return self._frames_for_stage(len(self.ups), self.conv_post.inputs_for(self.inverse.inputs_for(outputs)))

    def _frames_for_stage(self, stage: int, steps: int) -> int:
        """Mel frames for ``steps`` steps before a stage of upsampling."""
        if stage == 0:
            return self.conv_pre.inputs_for(steps)
        steps = self._stages[stage - 1][3].inputs_for(steps)
        return max(self._frames_for_mel_branch(stage - 1, steps), self._frames_for_source_branch(stage - 1, steps))

    def _frames_for_mel_branch(self, stage: int, steps: int) -> int:
        if stage == len(self.ups) - 1:
            steps = self.mirror.inputs_for(steps)
        return self._frames_for_stage(stage, self._stages[stage][0].inputs_for(steps))

    def _frames_for_source_branch(self, stage: int, steps: int) -> int:
        _, down, block, _ = self._stages[stage]
        spectra = down.inputs_for(block.inputs_for(steps))
        return self.f0_predictor.inputs_for(self.m_source.inputs_for(self.stft.inputs_for(spectra)))

    @property
    def _stages(self) -> list[Stage]:
        stages = zip(self.ups, self.source_downs, self.source_resblocks, self.means, strict=True)
        return cast("list[Stage]", list(stages))

    def _features(self, spectra: Tensor) -> Tensor:
        """Complex (B, T, K) to real parts, then imaginary ones (B, T, 2 K)."""
        return torch.cat([spectra.real, spectra.imag], dim=-1)

    def _spectrum(self, x: Tensor) -> Tensor:
        """(B, T, 2 K) log magnitudes and phases, limited, to complex (B, T, K)."""
        log_magnitude, phase = x.chunk(2, dim=-1)
        return torch.polar(log_magnitude.exp().clamp(max=LOUDEST), phase.sin())

    def _limited(self, samples: Tensor) -> Tensor:
        return samples.clamp(-self.config.audio_limit, self.config.audio_limit)


def _down(in_channels: int, out_channels: int, rate: int, left: int, right: int) -> Conv1d:
    return Conv1d(in_channels, out_channels, 2 * rate, rate, left=left, right=right)
