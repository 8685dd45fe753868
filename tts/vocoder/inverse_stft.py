"""Inverse short-time Fourier transform of a stream of spectra."""

from __future__ import annotations

import torch
from torch import Tensor

from loquent.speech.nn.streaming import Chunk, StreamingModule, Window, WindowState, as_chunk, as_rows, slide

FAINT = 1e-11  # least sum of squared weights that is divided by, torch's


class InverseSTFT(StreamingModule):
    """Complex spectra (B, T, n_fft / 2 + 1) to samples (B, T · hop): overlapping frames are added and normalised.

    Equals ``torch.istft(center=True, length=T * hop)`` of the whole, transposed. A sample is complete when the last
    frame that reaches it has come, n_fft / (2 · hop) frames after its own; the edges are divided by the weights of
    those frames that exist.

    Args:
        n_fft: samples of a frame, a multiple of 2 · hop. hop: samples between frames.
        window: (n_fft,) weights; a periodic Hann window by default.
        final_frame: whether the last frame is centred on the end of the stream and adds no samples of its own, as in
            torch without a length: (T - 1) · hop samples.
    """

    taper: Tensor  # (n_fft,)

    def __init__(self, n_fft: int, hop: int, window: Tensor | None = None, *, final_frame: bool = False) -> None:
        super().__init__()
        self.n_fft, self.hop = n_fft, hop
        taper = torch.hann_window(n_fft) if window is None else window.float()
        if n_fft % (2 * hop) or taper.shape != (n_fft,):
            raise ValueError(
                f"expected n_fft to be a multiple of 2 · hop, and as many weights, got n_fft={n_fft}, hop={hop}, "
                f"a window of shape {tuple(taper.shape)}"
            )
        self.register_buffer("taper", taper, persistent=False)
        self.overlap = n_fft // hop  # frames that reach a sample
        half = self.overlap // 2
        self.window = Window(self.overlap, left=self.overlap - 1 - half, right=half - final_frame)

    def initial_state(self, batch: int) -> WindowState:
        """The frames that reach samples to come, as waves with a mark behind each."""
        return WindowState.zeros(self.window, batch, self.n_fft + 1, like=self.taper)

    def forward(self, x: Tensor) -> Tensor:
        """Samples of whole streams."""
        hops = x.shape[1] + self.window.left + self.window.right - self.overlap + 1
        return self.step(x, self.initial_state(x.shape[0]), last=True).data[:, : max(hops, 0) * self.hop]

    def step(self, x: Chunk | Tensor, state: WindowState, rows: Tensor | None = None, last: bool = False) -> Chunk:
        """Samples that no later frame reaches."""
        chunk = as_chunk(x, last)
        batch, steps = chunk.data.shape[:2]
        # A mark of 1 says that the frame exists; where there is none, the stretch is 0.
        marked = torch.ones(batch, steps, self.n_fft + 1, device=self.taper.device, dtype=self.taper.dtype)
        if steps:
            marked[:, :, :-1] = torch.fft.irfft(chunk.data, n=self.n_fft)
            marked[:, :, :-1] *= self.taper
        stretch = slide(self.window, chunk.with_data(marked), state, as_rows(rows, chunk))
        hops = max(stretch.data.shape[1] - self.overlap + 1, 0)
        if hops == 0:
            return stretch.with_data(marked.new_zeros(batch, 0), stretch.length * self.hop)
        pieces = stretch.data[:, :, :-1].unflatten(2, (self.overlap, self.hop))
        total = sum(pieces[:, first : first + hops, self.overlap - 1 - first] for first in range(self.overlap))
        squares = self.taper.square().unflatten(0, (self.overlap, self.hop)).flip(0)
        weights = (stretch.data[:, :, -1].unfold(1, self.overlap, 1) @ squares).clamp(min=FAINT)
        return stretch.with_data((total / weights).flatten(1), stretch.length * self.hop)

    def inputs_for(self, outputs: int) -> int:
        """The last frame that reaches the last sample."""
        return self.window.inputs_for(-(-outputs // self.hop))
