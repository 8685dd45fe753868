"""Band-limited resampling between any two integer rates, chunk by chunk or whole."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from fractions import Fraction

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from loquent.speech.audio.errors import AudioError
from loquent.speech.nn.streaming import (
    Chunk,
    StreamingModule,
    Window,
    WindowState,
    as_chunk,
    as_rows,
    forward_in_pieces,
    slide,
)

LOWEST_RATE, HIGHEST_RATE = 4_000, 192_000
ZERO_CROSSINGS = (
    64  # on each side of the kernel; with the two numbers below the stop band begins at the Nyquist frequency
)
ROLLOFF = 0.95  # centre of the transition band, relative to the lower Nyquist frequency
KAISER_BETA = 10.06  # 100 dB of stop-band attenuation (Kaiser 1974: 0.1102 · (100 - 8.7))
CHANNELS = 64  # of the convolution, at least about
LARGEST_TABLE = 2**20  # taps, 4 MiB; the largest among customary rates is 192 kHz -> 44.1 kHz with half a million


class Resampler(StreamingModule):
    """Polyphase windowed-sinc resampler: samples (B, N) at ``orig_rate`` to (B, ceil(N · new / orig)) at ``new_rate``.

    Output k is the band-limited signal at time k / new_rate, without delay and with the tail. In lowest terms, ``new``
    outputs lie over every period of ``orig`` inputs, always at the same phases: a convolution with stride ``orig`` and
    ``new`` channels. Flat to 0.9 of the lower Nyquist frequency, 100 dB down above it.

    Raises:
        ValueError: a rate is outside 4000 … 192000 Hz, or their ratio in lowest terms is too large for a table of taps.
    """

    taps: Tensor  # (periods · new, 1, span)

    def __init__(self, orig_rate: int, new_rate: int) -> None:
        super().__init__()
        self.orig, self.new, self.periods, left, right = _shape(orig_rate, new_rate)
        self.window = Window(1) if self.orig == self.new else Window(left + 1 + right, self.orig, left, right)
        taps = _taps(self.orig, self.new, self.periods, left, right, _cutoff(self.orig, self.new))
        self.register_buffer("taps", taps.float()[:, None], persistent=False)

    @staticmethod
    def table_taps(orig_rate: int, new_rate: int) -> int:
        """Taps of the table between two rates, four bytes each, without making it; raises as making it does."""
        orig, new, periods, left, right = _shape(orig_rate, new_rate)
        return periods * new * ((periods - 1) * orig + left + 1 + right)

    def initial_state(self, batch: int) -> WindowState:
        """The last samples of each stream."""
        return WindowState.zeros(self.window, batch, like=self.taps)

    def forward(self, x: Tensor) -> Tensor:
        """Resample whole recordings (B, N)."""
        return forward_in_pieces(self, x)

    def step(self, x: Chunk | Tensor, state: WindowState, rows: Tensor | None = None, last: bool = False) -> Chunk:
        """Outputs of every period of ``orig`` inputs that is complete, and what is left of the last one at the end."""
        chunk = as_chunk(x, last)
        if self.orig == self.new:
            return chunk
        rows = as_rows(rows, chunk)
        before = state.received[rows]
        stretch = slide(self.window, chunk, state, rows)
        # ceil(N · new / orig) outputs in all: the last period may be cut short.
        total = -(-(before + chunk.length) * self.new).div(self.orig, rounding_mode="floor")
        done = self.window.outputs(before, False) * self.new
        length = torch.where(chunk.last, total - done, stretch.length * self.new)
        data = stretch.data
        if data.shape[1]:
            count = (data.shape[1] - self.window.kernel) // self.orig + 1
            data = functional.pad(data, (0, -count % self.periods * self.orig))
            phases = functional.conv1d(data[:, None], self.taps, stride=self.periods * self.orig)
            data = phases.transpose(1, 2).flatten(1)[:, : count * self.new]
        return chunk.with_data(data[:, : chunk.room(length, data.shape[1])], length)

    def inputs_for(self, outputs: int) -> int:
        """Samples under the kernel of the last period begun."""
        return self.window.inputs_for(-(-outputs // self.new))

    @property
    def stride(self) -> Fraction:
        """Input samples per output sample, exactly."""
        return Fraction(self.orig, self.new)


def resample(samples: np.ndarray, orig_rate: int, new_rate: int) -> np.ndarray:
    """Resample a whole recording in blocks of ten seconds.

    Args:
        samples: (N,) or (N, channels), converted to float32.
        orig_rate, new_rate: in Hz, 4000 … 192000.

    Returns:
        float32 of the same rank, ceil(N · new_rate / orig_rate) samples; ``samples`` itself when the rates are equal.
    """
    samples = np.asarray(samples, dtype=np.float32)
    if orig_rate == new_rate:
        return samples
    module, block = Resampler(orig_rate, new_rate), 10 * orig_rate
    state = module.initial_state(math.prod(samples.shape[1:]))
    parts = []
    with torch.inference_mode():
        for start in range(0, len(samples), block):
            part = torch.tensor(samples[start : start + block]).reshape(-1, state.slots).T
            parts.append(module.step(part, state, last=start + block >= len(samples)).data)
    return torch.cat(parts, dim=1).T.reshape(-1, *samples.shape[1:]).numpy() if parts else samples


def resample_blocks(blocks: Iterable[np.ndarray], orig_rate: int, new_rate: int, name: str) -> Iterator[np.ndarray]:
    """Resample a recording that is read block by block.

    Args:
        blocks: mono float32 (N,), of any lengths; none is asked for if the rates do not fit.
        orig_rate, new_rate: in Hz, 4000 … 192000.
        name: of the recording, for the error.

    Yields:
        float32 (N,), ceil(N · new_rate / orig_rate) samples in all.

    Raises:
        AudioError: the rates are outside that range, or their ratio is too odd for a table of taps.
    """
    try:
        module = Resampler(orig_rate, new_rate)
    except ValueError as error:
        raise AudioError(f"{name} cannot be resampled: {error}") from error
    state = module.initial_state(1)
    for block in blocks:
        yield resample_piece(module, state, block)
    yield resample_piece(module, state, np.zeros(0, np.float32), last=True)


def resample_piece(module: Resampler, state: WindowState, samples: np.ndarray, last: bool = False) -> np.ndarray:
    """Resample the next piece of one recording.

    Args:
        state: of the recording, one slot (``module.initial_state(1)``).
        samples: mono float32 (N,).
        last: whether nothing follows: what is held back comes out too.

    Returns:
        float32 (M,).
    """
    with torch.inference_mode():
        return module.step(torch.tensor(samples)[None], state, last=last).data[0].numpy()


def _shape(orig_rate: int, new_rate: int) -> tuple[int, int, int, int, int]:
    """Ratio in lowest terms, periods in one product, and inputs under the kernel to the left and right of the first."""
    for rate in (orig_rate, new_rate):
        if not LOWEST_RATE <= rate <= HIGHEST_RATE:
            raise ValueError(f"sample rate {rate} Hz is outside {LOWEST_RATE} … {HIGHEST_RATE} Hz")
    common = math.gcd(orig_rate, new_rate)
    orig, new = orig_rate // common, new_rate // common
    reach = ZERO_CROSSINGS / _cutoff(orig, new)  # of the sinc to either side, in input samples
    left = math.ceil(reach) - 1
    right = math.ceil(orig - orig / new + reach) - 1  # from the period's last output
    kernel = left + 1 + right
    if kernel * new > LARGEST_TABLE:
        raise ValueError(
            f"resampling {orig_rate} -> {new_rate} Hz has the ratio {new}:{orig} in lowest terms, which "
            f"needs {kernel * new} filter taps (at most {LARGEST_TABLE}); "
            "convert to a customary rate such as 48000 Hz first"
        )
    # With few phases a matrix product would be too narrow to be fast: several periods make one.
    return orig, new, max(1, CHANNELS // new), left, right


def _cutoff(orig: int, new: int) -> float:
    return ROLLOFF * min(1.0, new / orig)


def _taps(orig: int, new: int, periods: int, left: int, right: int, cutoff: float) -> Tensor:
    """Kaiser-windowed sinc at every phase of a few periods, (periods · new, span) float64.

    Tap i multiplies the input at i - left from the first of these periods on.
    """
    inputs = torch.arange(-left, (periods - 1) * orig + right + 1, dtype=torch.float64)
    outputs = torch.arange(periods * new, dtype=torch.float64) * orig / new
    distance = (inputs - outputs[:, None]) * cutoff  # in zero crossings
    beta = torch.tensor(KAISER_BETA, dtype=torch.float64)
    inside = 1 - (distance / ZERO_CROSSINGS).square()
    window = torch.where(inside > 0, torch.special.i0(beta * inside.clamp_min(0).sqrt()) / torch.special.i0(beta), 0)
    return cutoff * torch.sinc(distance) * window
