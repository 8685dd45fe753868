"""Sample-exact streaming features: log-mel spectrograms of Whisper, of NeMo and of the Matcha family.

Each extractor keeps the samples that its next frames still need, so a stream gives the frames of the whole recording
whatever packets it comes in. Samples are (B, N) float32 in -1 … 1, frames (B, T, F).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from loquent.kernels.log_mel import Compression, log_mel
from loquent.speech.nn.state import State, initial
from loquent.speech.nn.streaming import (
    Chain,
    Chunk,
    StreamingModule,
    Window,
    WindowState,
    as_chunk,
    as_rows,
    forward_in_pieces,
    slide,
)


class MelSpectrogram(StreamingModule):
    """Framing, power spectrum and mel filters; a subclass says how energies become features.

    Frames of ``window`` samples are weighted with ``taper`` and padded to ``n_fft``. Where they lie within those
    ``n_fft`` samples does not matter to the power spectrum.
    """

    compression: Compression

    taper: Tensor  # (kernel,)
    filters: Tensor  # (n_fft / 2 + 1, F)

    def __init__(
        self, window: Window, taper: Tensor, n_fft: int, sample_rate: int, n_mels: int, f_max: float | None = None
    ) -> None:
        super().__init__()
        self.window, self.n_mels = window, n_mels
        self.register_buffer("taper", taper.float(), persistent=False)
        filters = mel_filters(n_fft // 2 + 1, n_mels, sample_rate, f_max)
        self.register_buffer("filters", filters.float(), persistent=False)

    def initial_state(self, batch: int) -> WindowState:
        """The last ``kernel - 1`` samples of each stream."""
        return WindowState.zeros(self.window, batch, like=self.taper)

    def forward(self, x: Tensor) -> Tensor:
        """Features (B, T, F) of whole recordings (B, N)."""
        return forward_in_pieces(self, x)

    def step(self, x: Chunk | Tensor, state: WindowState, rows: Tensor | None = None, last: bool = False) -> Chunk:
        """Frames that the new samples complete."""
        chunk = as_chunk(x, last)
        stretch = slide(self.window, chunk, state, as_rows(rows, chunk))
        if stretch.data.shape[1] == 0:
            return stretch.with_data(stretch.data.new_zeros(*stretch.data.shape, self.n_mels))
        return stretch.with_data(log_mel(stretch.data, self.taper, self.filters, self.window.stride, self.compression))

    def inputs_for(self, outputs: int) -> int:
        """Samples up to the end of the last frame."""
        return self.window.inputs_for(outputs)


class WhisperLogMel(MelSpectrogram):
    """Whisper's log10 mel energies before normalisation: 16 kHz, 25 ms frames every 10 ms, N // 160 frames.

    Equals `log_mel_spectrogram` of openai/whisper `audio.py` on a recording followed by silence (there up to 30 s), or
    on one that is not padded if ``mirrored_end``; the start is always mirrored. Follow it with `normalize_window` or
    `RunningMaxNormalize`.
    """

    compression = Compression(floor=1e-10, decimal=True)

    def __init__(self, n_mels: int = 80, *, mirrored_end: bool = False) -> None:
        window = Window(kernel=400, stride=160, left=200, right=40, reflect="both" if mirrored_end else "left")
        super().__init__(window, torch.hann_window(400), 400, 16000, n_mels)


def normalize_window(log_mel: Tensor) -> Tensor:
    """Whisper's offline normalisation of windows (..., T, F): the 8 decades below each one's maximum, about -1 … 1."""
    floor = log_mel.amax(dim=(-2, -1), keepdim=True) - 8
    return (torch.maximum(log_mel, floor) + 4) / 4


@dataclass
class RunningMaxState(State):
    """The largest log-mel value that each stream has had."""

    # -10 is the floor of `WhisperLogMel`, so it never wins; unlike -inf it stays finite through every operation.
    peak: Tensor = initial(-10.0)  # noqa: RUF009  (S,)


class RunningMaxNormalize(StreamingModule):
    """Whisper's normalisation by the maximum so far in place of the window's, (B, T, F) -> (B, T, F).

    The rule of the causal Whisper encoder (CarelessWhisper), for which there is no whole window to look at.
    """

    like: Tensor  # device and dtype

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("like", torch.zeros(0), persistent=False)

    def initial_state(self, batch: int) -> RunningMaxState:
        """A peak that any frame exceeds."""
        return RunningMaxState(torch.full((batch,), -10.0, device=self.like.device, dtype=self.like.dtype))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise whole recordings, each frame by the maximum up to and including itself."""
        return self.step(x, self.initial_state(x.shape[0]), last=True).data

    def step(self, x: Chunk | Tensor, state: RunningMaxState, rows: Tensor | None = None, last: bool = False) -> Chunk:
        """Normalise new frames and remember their maximum."""
        chunk = as_chunk(x, last)
        rows = as_rows(rows, chunk)
        if chunk.data.shape[1] == 0:
            return chunk
        peaks = chunk.data.amax(-1).masked_fill(~chunk.mask, -math.inf)
        peaks = torch.maximum(peaks.cummax(dim=1).values, state.peak[rows, None])
        state.peak[rows] = peaks[:, -1]
        return chunk.with_data((torch.maximum(chunk.data, peaks[..., None] - 8) + 4) / 4)

    def inputs_for(self, outputs: int) -> int:
        """Every frame at once."""
        return outputs


@dataclass
class RunningStatistics(State):
    """Sums over all frames of each stream, in double precision: good for months."""

    count: Tensor  # (S,) int64
    total: Tensor  # (S, F) float64
    squares: Tensor  # (S, F) float64


class RunningNormalize(StreamingModule):
    """Normalise each mel bin by the mean and deviation of its frames so far, (B, T, F) -> (B, T, F).

    What a stream can do in place of NeMo's `per_feature`, which takes those of the whole recording. The two agree at
    the recording's last frame; in its first seconds they do not.
    """

    like: Tensor  # device and dtype

    def __init__(self, n_mels: int) -> None:
        super().__init__()
        self.n_mels = n_mels
        self.register_buffer("like", torch.zeros(0), persistent=False)

    def initial_state(self, batch: int) -> RunningStatistics:
        """No frames yet."""
        sums = torch.zeros(2, batch, self.n_mels, dtype=torch.float64, device=self.like.device)
        return RunningStatistics(
            torch.zeros(batch, dtype=torch.long, device=self.like.device), sums[0].clone(), sums[1].clone()
        )

    def forward(self, x: Tensor) -> Tensor:
        """Normalise whole recordings, each frame by those up to and including itself."""
        return self.step(x, self.initial_state(x.shape[0]), last=True).data

    def step(
        self, x: Chunk | Tensor, state: RunningStatistics, rows: Tensor | None = None, last: bool = False
    ) -> Chunk:
        """Normalise new frames and take them in."""
        chunk = as_chunk(x, last)
        rows = as_rows(rows, chunk)
        if chunk.data.shape[1] == 0:
            return chunk
        frames = torch.where(chunk.mask[..., None], chunk.data, 0).double()
        count = state.count[rows, None, None] + chunk.mask.cumsum(1)[..., None]
        total = state.total[rows, None] + frames.cumsum(1)
        squares = state.squares[rows, None] + frames.square().cumsum(1)
        mean = total / count.clamp_min(1)
        variance = (squares - count * mean.square()).clamp_min(0) / (count - 1).clamp_min(1)
        state.count[rows], state.total[rows], state.squares[rows] = count[:, -1, 0], total[:, -1], squares[:, -1]
        return chunk.with_data(((frames - mean) / (variance.sqrt() + 1e-5)).to(chunk.data.dtype))

    def inputs_for(self, outputs: int) -> int:
        """Every frame at once."""
        return outputs


def whisper_features(n_mels: int = 80) -> Chain:
    """Samples to the normalised frames that the incremental Whisper encoder takes."""
    return Chain(WhisperLogMel(n_mels), RunningMaxNormalize())


class PreEmphasis(StreamingModule):
    """First-order high-pass y[n] = x[n] - ``coefficient`` · x[n - 1]; the first sample is kept."""

    like: Tensor  # device and dtype

    def __init__(self, coefficient: float = 0.97) -> None:
        super().__init__()
        self.coefficient, self.window = coefficient, Window(kernel=2, left=1)
        self.register_buffer("like", torch.zeros(0), persistent=False)

    def initial_state(self, batch: int) -> WindowState:
        """The last sample of each stream."""
        return WindowState.zeros(self.window, batch, like=self.like)

    def forward(self, x: Tensor) -> Tensor:
        """Filter whole recordings (B, N)."""
        return forward_in_pieces(self, x)

    def step(self, x: Chunk | Tensor, state: WindowState, rows: Tensor | None = None, last: bool = False) -> Chunk:
        """Filter new samples."""
        chunk = as_chunk(x, last)
        stretch = slide(self.window, chunk, state, as_rows(rows, chunk))
        return stretch.with_data(stretch.data[:, 1:] - self.coefficient * stretch.data[:, :-1])

    def inputs_for(self, outputs: int) -> int:
        """Every sample at once."""
        return outputs


class NemoLogMel(Chain):
    """NeMo's `FilterbankFeatures` with ``normalize: "NA"``: 16 kHz, 25 ms frames every 10 ms, N // 160 frames.

    No dither, pre-emphasis, power in 512 bins, log(energy + 2**-24). `per_feature` normalisation needs the whole
    recording and therefore has no streaming form.
    """

    def __init__(self, n_mels: int = 80) -> None:
        super().__init__(PreEmphasis(), _NemoMel(n_mels))


class _NemoMel(MelSpectrogram):
    compression = Compression(offset=2**-24)

    def __init__(self, n_mels: int) -> None:
        # The symmetric Hann window of 400 begins and ends with a zero: 398 samples are all that a frame needs.
        taper = torch.hann_window(400, periodic=False)[1:-1]
        super().__init__(Window(kernel=398, stride=160, left=199, right=39), taper, 512, 16000, n_mels)


class MatchaMel(MelSpectrogram):
    """The 24 kHz mel of Matcha-TTS and CosyVoice: 80 bins of 80 ms frames every 20 ms, N // 480 frames.

    Magnitudes, log not below log(1e-5), both ends mirrored by 720 samples. Recordings of 720 samples or fewer, which
    upstream refuses, are mirrored as far as they reach and continued by silence.

    Args:
        f_max: 8000 Hz for CosyVoice 2, None (12000 Hz) for CosyVoice 3.
    """

    compression = Compression(magnitude=True, floor=1e-5)

    def __init__(self, f_max: float | None = None) -> None:
        window = Window(kernel=1920, stride=480, left=720, right=720, reflect="both")
        super().__init__(window, torch.hann_window(1920), 1920, 24000, n_mels=80, f_max=f_max)


def mel_filters(n_freqs: int, n_mels: int, sample_rate: int, f_max: float | None = None) -> Tensor:
    """Triangular filters (n_freqs, n_mels), float64, on Slaney's mel scale from 0 to ``f_max`` Hz, each of unit area.

    Those of `librosa.filters.mel`, which Whisper's, NeMo's and Matcha's checkpoints were trained on. Computed in double
    precision: in single, as in `torchaudio.functional.melscale_fbanks`, narrow filters are off by up to 0.3 %.
    """
    edges = mel_edges(n_mels, sample_rate / 2 if f_max is None else f_max)
    lower, centre, upper = edges[:-2], edges[1:-1], edges[2:]
    frequencies = torch.linspace(0, sample_rate / 2, n_freqs, dtype=torch.float64)[:, None]
    rising, falling = (frequencies - lower) / (centre - lower), (upper - frequencies) / (upper - centre)
    return torch.minimum(rising, falling).clamp_min(0) * 2 / (upper - lower)


def mel_edges(n_mels: int, top: float) -> Tensor:
    """Where Slaney's filters from 0 to ``top`` Hz begin and end: (n_mels + 2,) Hz, float64; filter i is [i, i + 2].

    The scale has 3 mels for 200 Hz up to 1 kHz, then 27 mels for a factor of 6.4.
    """
    highest = 15 + 27 * math.log(top / 1000, 6.4) if top > 1000 else top * 3 / 200
    mels = torch.linspace(0, highest, n_mels + 2, dtype=torch.float64)
    return torch.where(mels < 15, mels * 200 / 3, 1000 * 6.4 ** ((mels - 15) / 27))
