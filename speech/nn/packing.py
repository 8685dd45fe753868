"""The valid steps of a ragged batch, one after the other."""

from __future__ import annotations

from torch import Tensor

from loquent.speech.nn.low_rank import Adapters
from loquent.speech.nn.streaming import Chunk


class Packing:
    """Leaves out what lies beyond each row's length, for layers that see one step at a time.

    In static mode, and where every row is full, no step is left out and nothing is copied.

    Attributes:
        length: (B,) int64, steps of each row.
    """

    def __init__(self, chunk: Chunk) -> None:
        self.shape, self.length = chunk.data.shape[:2], chunk.length
        full = chunk.static or int(chunk.length.sum()) == self.shape.numel()
        self._places = None if full else chunk.mask.flatten().nonzero()[:, 0]  # (N,)

    def pack(self, x: Tensor) -> Tensor:
        """(B, T, ...) to (N, ...)."""
        flat = x.flatten(0, 1)
        return flat if self._places is None else flat.index_select(0, self._places)

    def unpack(self, x: Tensor) -> Tensor:
        """(N, ...) to (B, T, ...), zero beyond a row's length."""
        if self._places is not None:
            x = x.new_zeros(self.shape.numel(), *x.shape[1:]).index_copy_(0, self._places, x)
        return x.unflatten(0, self.shape)

    def adapters(self, adapters: Adapters | None) -> Adapters | None:
        """The adapters of B rows as those of what is packed."""
        if adapters is None or self._places is None:
            return adapters
        return adapters.select(self._places // self.shape[1])
