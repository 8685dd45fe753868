"""Short-time Fourier transform of a stream of samples."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from loquent.speech.nn.streaming import Chunk, StreamingModule, Window, WindowState, as_chunk, as_rows, slide


class STFT(StreamingModule):
    """Samples (B, N) to complex spectra (B, T, n_fft / 2 + 1) of frames centred on every ``hop``-th sample.

    Equals ``torch.stft(center=True, pad_mode="reflect")`` of the whole signal, transposed.

    Args:
        n_fft: samples of a frame, even. hop: samples between frames.
        window: (n_fft,) weights; a periodic Hann window by default.
        final_frame: whether the frame centred on the end of the stream is one, as it is in torch: N // hop + 1 frames.
            Otherwise N // hop: one for each hop of samples.
    """

    taper: Tensor  # (n_fft,)

    def __init__(self, n_fft: int, hop: int, window: Tensor | None = None, *, final_frame: bool = False) -> None:
        super().__init__()
        self.n_fft, self.hop = n_fft, hop
        taper = torch.hann_window(n_fft) if window is None else window.float()
        if n_fft % 2 or taper.shape != (n_fft,) or not 0 < hop <= n_fft // 2:
            raise ValueError(
                f"expected an even n_fft, as many weights and hop at most n_fft / 2, got n_fft={n_fft}, "
                f"hop={hop}, a window of shape {tuple(taper.shape)}"
            )
        self.register_buffer("taper", taper, persistent=False)
        half = n_fft // 2
        # A periodic window begins with 0: what that meets is not waited for, though the first frame mirrors it.
        self.unseen = int(taper[0] == 0)
        right = half if final_frame else half - hop
        self.window = Window(n_fft - self.unseen, hop, left=half - self.unseen, right=right, reflect="both")

    def initial_state(self, batch: int) -> WindowState:
        """The samples of frames to come."""
        return WindowState.zeros(self.window, batch, like=self.taper)

    def forward(self, x: Tensor) -> Tensor:
        """Spectra of whole signals."""
        frames = (x.shape[1] + self.window.left + self.window.right - self.window.kernel) // self.hop + 1
        return self.step(x, self.initial_state(x.shape[0]), last=True).data[:, : max(frames, 0)]

    def step(self, x: Chunk | Tensor, state: WindowState, rows: Tensor | None = None, last: bool = False) -> Chunk:
        """Spectra of the frames whose samples have all come."""
        chunk = as_chunk(x, last)
        stretch = slide(self.window, chunk, state, as_rows(rows, chunk))
        if stretch.data.shape[1] == 0:
            shape = stretch.data.shape[0], 0, self.n_fft // 2 + 1
            return stretch.with_data(torch.zeros(shape, device=stretch.data.device, dtype=torch.complex64))
        frames = F.pad(stretch.data, (self.unseen, 0)).unfold(1, self.n_fft, self.hop)
        return stretch.with_data(torch.fft.rfft(frames * self.taper))

    def inputs_for(self, outputs: int) -> int:
        """Up to the last sample of the last frame."""
        return self.window.inputs_for(outputs)
