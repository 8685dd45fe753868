"""A small voice for tests: it has all parts of a real one, look-ahead and noise included, and takes no time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from loquent.speech.nn.convolution import Conv1d, ConvTranspose1d
from loquent.speech.nn.state import State
from loquent.speech.nn.streaming import Chain, Chunk, as_chunk, as_rows
from loquent.tts.acoustics import PhoneWindow, Renderer, WordAcoustics

PHONES = " ,.;:!?—…ˈˌAIOQWYabdefhijklmnopstuvwzæðŋɐɑɒɔəɛɜɡɪɹɾʃʊʌʒʔʤʧθᵊᵻT"


@dataclass
class ToyState(State):
    chain: State
    seed: Tensor  # (S,) int64
    frame: Tensor  # (S,) int64


class ToyRenderer(Renderer):
    """Look-ahead of three frames, eight samples a frame."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.chain = Chain(Conv1d(5, 6, 7, right=3), torch.nn.Tanh(), ConvTranspose1d(6, 1, 12, 8))

    def forward(self, x: Tensor) -> Tensor:
        frames = torch.arange(x.shape[1])[None]
        return self.chain(self._noisy(x, torch.zeros(1, 1, dtype=torch.long), frames))[..., 0]

    def initial_state(self, batch: int) -> ToyState:
        return ToyState(
            self.chain.initial_state(batch),
            torch.zeros(batch, dtype=torch.long),
            torch.zeros(batch, dtype=torch.long),
        )

    def step(self, x: Chunk | Tensor, state: ToyState, rows: Tensor | None = None, last: bool = False) -> Chunk:
        chunk = as_chunk(x, last)
        rows = as_rows(rows, chunk)
        frames = state.frame[rows][:, None] + torch.arange(chunk.data.shape[1])
        noisy = self._noisy(chunk.data, state.seed[rows][:, None], frames)
        state.frame[rows] += chunk.length
        out = self.chain.step(chunk.with_data(noisy), state.chain, rows)
        return out.with_data(out.data[..., 0])

    def inputs_for(self, outputs: int) -> int:
        return self.chain.inputs_for(outputs)

    def seek(self, state: ToyState, rows: Tensor, seeds: Tensor, frames: Tensor) -> None:
        state.seed[rows], state.frame[rows] = seeds, frames

    def _noisy(self, x: Tensor, seeds: Tensor, frames: Tensor) -> Tensor:
        return x + 0.1 * torch.sin((seeds * 37 + frames) % 1000 * 1.7)[..., None]


class ToyVoice:
    """Phones last from two to four frames; how they sound depends on the whole window."""

    sample_rate, hop_length = 800, 8
    phone_size, curve_size = 4, 1
    speakers = ("high", "low")
    fingerprint = "toy"

    def __init__(self) -> None:
        self.alphabet = {phone: number + 1 for number, phone in enumerate(PHONES)}
        self.renderer = ToyRenderer().eval()

    def acoustics(self, windows: Sequence[PhoneWindow]) -> list[WordAcoustics]:
        return [self._acoustics(window) for window in windows]

    def _acoustics(self, window: PhoneWindow) -> WordAcoustics:
        weights = window.speaker if isinstance(window.speaker, dict) else {window.speaker: 1.0}
        pitch = sum(weight * (1 + number) for number, weight in weights.items())
        ids = torch.tensor([0, *window.phones, 0])
        begin = 0 if window.opens and window.begin == 0 else window.begin + 1
        end = len(ids) if window.closes and window.end == len(window.phones) else window.end + 1
        around = ids.double().cumsum(0) - ids.double().flip(0).cumsum(0).flip(0)
        phones = torch.stack([torch.sin(ids * k + around / 50) for k in (1.0, 2.0, 3.0)], 1).float()
        phones = torch.cat([phones, torch.full((len(ids), 1), pitch)], 1)[begin:end]
        durations = ((2 + ids[begin:end] % 3) / window.speed).round().long().clamp(min=1)
        curves = torch.linspace(0, 1, int(durations.sum()))[:, None] if len(durations) else torch.zeros(0, 1)
        return WordAcoustics(phones, durations, curves)
