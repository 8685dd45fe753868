"""The fundamental frequency of a mel spectrogram, frame by frame."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from loquent.speech.nn.convolution import Conv1d
from loquent.speech.nn.streaming import ChainState, Chunk, StreamingModule, WindowState, as_chunk

LAYERS = 5


class F0Predictor(StreamingModule):
    """Log-mel frames (B, T, F) to their F0 in Hz (B, T): five convolutions with ELU, a linear layer, its magnitude.

    It computes in float64, as CosyVoice 3 does: errors of a frequency add up in the phase of the source. Parameters
    have the names of CosyVoice's `ConvRNNF0Predictor` and `CausalConvRNNF0Predictor`.

    Args:
        channels: of the layers.
        causal: whether only the first layer looks ahead, 3 frames; otherwise each of them looks one frame ahead.
    """

    def __init__(self, n_mels: int = 80, channels: int = 512, *, causal: bool) -> None:
        super().__init__()
        first = Conv1d(n_mels, channels, 4, right=3) if causal else Conv1d(n_mels, channels, 3, right=1)
        layers: list[nn.Module] = [first, nn.ELU()]
        for _ in range(LAYERS - 1):
            layers += [Conv1d(channels, channels, 3, right=0 if causal else 1), nn.ELU()]
        self.condnet = nn.Sequential(*layers)
        self.classifier = nn.Linear(channels, 1)
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        """Whole streams; float32."""
        return self._frequency(self.condnet(x.double()))

    def initial_state(self, batch: int) -> ChainState:
        """Nothing before the stream."""
        return ChainState(tuple(conv.initial_state(batch) for conv in self._convolutions))

    def step(self, x: Chunk | Tensor, state: ChainState, rows: Tensor | None = None, last: bool = False) -> Chunk:
        """Frames whose look-ahead has come."""
        chunk = as_chunk(x, last)
        chunk, caches = chunk.with_data(chunk.data.double()), iter(state.parts)
        for layer in self.condnet:
            if isinstance(layer, Conv1d):
                chunk = layer.step(chunk, cast("WindowState", next(caches)), rows)
            else:
                chunk = chunk.with_data(layer(chunk.data))
        return chunk.with_data(self._frequency(chunk.data))

    def inputs_for(self, outputs: int) -> int:
        """All look-aheads further."""
        for conv in reversed(self._convolutions):
            outputs = conv.inputs_for(outputs)
        return outputs

    def _frequency(self, x: Tensor) -> Tensor:
        return self.classifier(x).squeeze(-1).abs().to(torch.float32)

    @property
    def _convolutions(self) -> list[Conv1d]:
        return [layer for layer in self.condnet if isinstance(layer, Conv1d)]
