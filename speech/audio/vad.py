"""Voice activity: the 16 kHz network of Silero VAD as a streaming module, batched over streams."""

from __future__ import annotations

import importlib.util
import warnings
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from loquent.kernels.lstm_steps import lstm_steps
from loquent.speech.nn.state import State
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

SAMPLE_RATE = 16_000
FRAME = 512  # samples per probability
FRAME_S = FRAME / SAMPLE_RATE
CONTEXT = 64  # samples of the previous frame that the network sees again
SPECTRUM = 256  # samples per spectrum, half overlapping
WIDTH = 128  # of the recurrent state


@dataclass
class VadState(State):
    """The samples of the frame begun, 64 before it, and the recurrent state."""

    samples: WindowState
    hidden: Tensor  # (S, 128)
    cell: Tensor  # (S, 128)


class SileroVad(StreamingModule):
    """Probability of speech for each 32 ms: samples (B, N) at 16 kHz -> (B, ceil(N / 512)), the last frame zero-padded.

    The network of Silero VAD 6 (github.com/snakers4/silero-vad, MIT licence): four overlapping spectra per frame, four
    convolutions over them, an LSTM cell over frames. Only the LSTM is sequential: everything before it runs over all
    frames of all streams at once.
    """

    taper: Tensor  # (SPECTRUM,)

    def __init__(self) -> None:
        super().__init__()
        self.window = Window(CONTEXT + FRAME, FRAME, left=CONTEXT, right=FRAME - 1)
        self.register_buffer("taper", torch.hann_window(SPECTRUM), persistent=False)
        shapes = [(SPECTRUM // 2 + 1, 128), (128, 64), (64, 64), (64, WIDTH)]
        self.encoder = nn.ModuleList([nn.Linear(3 * inputs, outputs) for inputs, outputs in shapes])
        self.lstm = nn.LSTMCell(WIDTH, WIDTH)
        self.output = nn.Linear(WIDTH, 1)

    @classmethod
    def from_pretrained(cls, path: str | Path | None = None) -> SileroVad:
        """Load a TorchScript checkpoint, by default `silero_vad.jit` of the installed `silero-vad` package.

        The package's `silero_vad_16k.safetensors` is no substitute: in 6.2 its weights differ from the other files'.

        Raises:
            FileNotFoundError: there is no such file, or the package is not installed.
            ValueError: the file holds another network.
        """
        path = _packaged_weights() if path is None else Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"no Silero VAD checkpoint at {path}")
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "`torch.jit.load` is deprecated", DeprecationWarning)
            published = torch.jit.load(str(path), map_location="cpu").state_dict()
        model = cls()
        try:
            model.load_state_dict(
                {  # convolution kernels (out, in, width) become rows of matrices
                    name: published[_published_name(name)].reshape(mine.shape)
                    for name, mine in model.state_dict().items()
                }
            )
        except (KeyError, RuntimeError, IndexError) as error:
            raise ValueError(f"{path} does not hold the 16 kHz network of Silero VAD 6: {error}") from error
        return model.eval().requires_grad_(False)

    def initial_state(self, batch: int) -> VadState:
        """Silence before the stream and a recurrent state of zeros."""
        like = self.output.weight
        zeros = torch.zeros(batch, WIDTH, device=like.device, dtype=like.dtype)
        return VadState(WindowState.zeros(self.window, batch, like=like), zeros, zeros.clone())

    def forward(self, x: Tensor) -> Tensor:
        """Probabilities (B, T) for whole recordings (B, N)."""
        return forward_in_pieces(self, x)

    def step(self, x: Chunk | Tensor, state: VadState, rows: Tensor | None = None, last: bool = False) -> Chunk:
        """Probabilities of the frames that the new samples complete."""
        chunk = as_chunk(x, last)
        rows = as_rows(rows, chunk)
        stretch = slide(self.window, chunk, state.samples, rows)
        if stretch.data.shape[1] == 0:
            return stretch
        samples = stretch.data.unfold(1, self.window.kernel, FRAME)  # (B, T, 576)
        inputs = self._encode(samples.flatten(0, 1)).unflatten(0, samples.shape[:2])
        gates = functional.linear(inputs, self.lstm.weight_ih, self.lstm.bias_ih + self.lstm.bias_hh)  # (B, T, 4 · 128)
        frames = stretch.with_data(gates)

        before = state.hidden[rows], state.cell[rows]
        y, state.hidden[rows], state.cell[rows] = lstm_steps(gates, self.lstm.weight_hh, *before, frames.length)
        return frames.with_data(self.output(y.relu()).squeeze(2).sigmoid())

    def _encode(self, samples: Tensor) -> Tensor:
        """(frames, 576) samples -> (frames, 128)."""
        mirrored = functional.pad(samples, (0, CONTEXT), mode="reflect")
        spectrum = torch.fft.rfft(mirrored.unfold(1, SPECTRUM, SPECTRUM // 2) * self.taper)  # (frames, 4, 129)
        x = (spectrum.real.square() + spectrum.imag.square()).sqrt()
        for layer, stride in zip(self.encoder, (1, 2, 2, 1), strict=True):
            # A padded convolution of width 3; over 4, 2 and 1 steps a matrix product is three times as fast.
            x = layer(functional.pad(x, (0, 0, 1, 1)).unfold(1, 3, stride).flatten(2)).relu()
        return x.squeeze(1)

    def inputs_for(self, outputs: int) -> int:
        """Whole frames."""
        return outputs * FRAME


def _published_name(name: str) -> str:
    """Where the checkpoint keeps our parameter ``name``."""
    module, _, rest = name.partition(".")
    if module == "encoder":
        index, _, parameter = rest.partition(".")
        return f"_model.encoder.{index}.reparam_conv.{parameter}"
    return f"_model.decoder.{'rnn' if module == 'lstm' else 'decoder.2'}.{rest}"


def _packaged_weights() -> Path:
    # Importing the package would load ONNX Runtime and set torch's number of threads; only its data is needed.
    package = importlib.util.find_spec("silero_vad")
    for folder in (package.submodule_search_locations or []) if package else []:
        path = Path(folder, "data", "silero_vad.jit")
        if path.is_file():
            return path
    raise FileNotFoundError("silero_vad.jit is in the package silero-vad 6, missing here: pip install 'silero-vad>=6'")
