"""From spectra in parts to sound: pulses through a filter, noise with an envelope, and what is neither."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from loquent.kernels.counter_noise import counter_noise
from loquent.speech.nn.state import MOST, State
from loquent.speech.nn.streaming import Chunk, StreamingModule, WindowState, as_chunk, as_rows
from loquent.tts.acoustics import Renderer
from loquent.tts.vocoder.inverse_stft import InverseSTFT
from loquent.tts.vocoder.pulses import PulseState, PulseTrain
from loquent.tts.vocoder.stft import STFT

PARTS = 5
LOUDEST = 7.0  # log magnitudes are cut off above


def harmonic_noise_spectrum(parts: Tensor, source: Tensor, noise: Tensor) -> Tensor:
    """Put a spectrum together::

        S = e^lh e^(i π tanh θ) · source + e^ln · noise + e^lr e^(i φ)

    Args:
        parts: (..., 5 K), in order: log magnitude lh and angle θ of the filter, log magnitude ln of the noise, log
            magnitude lr and phase φ of the rest. Magnitudes are cut off at e^7.
        source: (..., K) complex, of the pulses.
        noise: (..., 2 K) standard normal, first the real parts.

    Returns:
        (..., K) complex.

    Source: hibari-tts 0.2.1, `hibari/dsp.py`.
    """
    lh, theta, ln, lr, phi = parts.unflatten(-1, (PARTS, -1)).unbind(-2)
    angle = theta.tanh() * math.pi
    gain = lh.clamp(max=LOUDEST).exp()
    cos, sin = gain * angle.cos(), gain * angle.sin()
    breath, rest = ln.clamp(max=LOUDEST).exp(), lr.clamp(max=LOUDEST).exp()
    noise_real, noise_imag = noise.unflatten(-1, (2, -1)).unbind(-2)
    real = cos * source.real - sin * source.imag + breath * noise_real + rest * phi.cos()
    imag = cos * source.imag + sin * source.real + breath * noise_imag + rest * phi.sin()
    return torch.complex(real, imag)


@dataclass
class HarmonicNoiseState(State):
    """What the parts of a `HarmonicNoiseRenderer` remember, and where the noise of each stream stands."""

    decoder: State
    pulses: PulseState
    stft: WindowState
    inverse: WindowState
    seed: Tensor  # (S,) int64
    frame: Tensor  # (S,) int64 number of the next frame that gets noise


class HarmonicNoiseRenderer(Renderer):
    """Frames (B, T, C + 2), of which the last two are pitch in Hz and energy, to samples (B, T · hop).

    A network makes the five parts of each frame's spectrum, pulses of its pitch and counter-based noise make the rest.
    The network's look-ahead L decides: n frames give n - L - n_fft / (2 · hop) frames of samples.

    Args:
        decoder: frames to parts, (B, T, 5 · (n_fft / 2 + 1)), one for one. It looks ahead as far as the transform
            of the pulses at least, n_fft / (2 · hop) frames.
    """

    def __init__(self, decoder: StreamingModule, sample_rate: int, hop: int, n_fft: int) -> None:
        super().__init__()
        self.decoder, self.bins = decoder, n_fft // 2 + 1
        lookahead, source = decoder.latency, n_fft // (2 * hop)  # how far a frame of each looks ahead
        if lookahead < source:
            raise ValueError(
                f"a decoder with a look-ahead of {lookahead} frames is ahead of its source, {source} frames"
            )
        # Pulses wait until they meet what the decoder makes of the same frame.
        self.pulses = PulseTrain(sample_rate, hop, lookahead - source + 1)
        # A cosine of amplitude 1 is half the sum of the weights in its bin: 1 by these.
        self.stft = STFT(n_fft, hop, torch.hann_window(n_fft) / (n_fft / 4))
        self.inverse = InverseSTFT(n_fft, hop)

    def initial_state(self, batch: int) -> HarmonicNoiseState:
        """Streams with seed 0 at frame 0."""
        pulses = self.pulses.initial_state(batch)
        return HarmonicNoiseState(
            self.decoder.initial_state(batch),
            pulses,
            self.stft.initial_state(batch),
            self.inverse.initial_state(batch),
            torch.zeros_like(pulses.phase),
            torch.zeros_like(pulses.phase),
        )

    def seek(self, state: HarmonicNoiseState, rows: Tensor, seeds: Tensor, frames: Tensor) -> None:
        """See `Renderer.seek`; of a seed, the lowest 44 bits count."""
        state.seed[rows] = seeds % MOST
        state.frame[rows] = frames

    def forward(self, x: Tensor) -> Tensor:
        """Samples of whole streams with seed 0, from frame 0."""
        frames = torch.arange(x.shape[1], device=x.device).expand(x.shape[:2])
        noise = counter_noise(torch.zeros_like(frames[:, 0]), frames, 2 * self.bins)
        return self.inverse(harmonic_noise_spectrum(self.decoder(x), self.stft(self.pulses(x[:, :, -2])), noise))

    def step(
        self, x: Chunk | Tensor, state: HarmonicNoiseState, rows: Tensor | None = None, last: bool = False
    ) -> Chunk:
        """Samples that no later frame reaches."""
        chunk = as_chunk(x, last)
        rows = as_rows(rows, chunk)
        parts = self.decoder.step(chunk, state.decoder, rows)
        pulses = self.pulses.step(chunk.with_data(chunk.data[:, :, -2]), state.pulses, rows)
        source = self.stft.step(pulses, state.stft, rows)
        first = state.frame[rows]
        frames = first[:, None] + torch.arange(parts.data.shape[1], device=first.device)
        noise = counter_noise(state.seed[rows], frames, 2 * self.bins)
        state.frame[rows] = first + parts.length
        spectrum = harmonic_noise_spectrum(parts.data, source.data, noise)
        return self.inverse.step(parts.with_data(spectrum), state.inverse, rows)

    def inputs_for(self, outputs: int) -> int:
        """Look-aheads of the decoder and of the inverse transform."""
        return self.decoder.inputs_for(self.inverse.inputs_for(outputs))
