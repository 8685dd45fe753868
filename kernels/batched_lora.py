"""Low-rank adapters of a linear layer, a different one for every row of a batch."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from loquent.kernels.registry import LANES, TILE, Operation


@dataclass(frozen=True)
class LoraPool:
    """The adapters of one linear layer, K inputs to M outputs, side by side.

    down:  (N, K, R): the first factor, transposed; R is a multiple of LANES.
    up:    (N, R, M): the second factor, transposed and scaled.
    ranks: (N,) int64 on the CPU: of each what is not zero, a multiple of LANES; 0 where it leaves the layer alone.
    """

    down: Tensor
    up: Tensor
    ranks: Tensor

    @classmethod
    def empty(cls, slots: int, inputs: int, rank: int, outputs: int, like: Tensor) -> LoraPool:
        """Room for ``slots`` adapters of ranks up to ``rank``; all leave the layer alone."""
        rank = -(-rank // LANES) * LANES
        down, up = like.new_zeros(slots, inputs, rank), like.new_zeros(slots, rank, outputs)
        return cls(down, up, torch.zeros(slots, dtype=torch.long))

    def resized(self, slots: int, rank: int) -> LoraPool:
        """A copy with room for at least so many adapters of such a rank."""
        count, inputs, room = self.down.shape
        pool = LoraPool.empty(max(slots, count), inputs, max(rank, room), self.up.shape[2], self.down)
        pool.down[:count, :, :room] = self.down
        pool.up[:count, :room] = self.up
        pool.ranks[:count] = self.ranks
        return pool

    def put(self, slot: int, a: Tensor, b: Tensor, scale: float) -> None:
        """Write an adapter, y += scale · B A x with A (r, K) and B (M, r), into a slot that no computation reads."""
        rank = len(a)
        self.clear(slot)
        self.down[slot, :, :rank] = a.T
        self.up[slot, :rank] = b.T * scale
        self.ranks[slot] = -(-rank // LANES) * LANES

    def clear(self, slot: int) -> None:
        """Leave the layer alone."""
        self.down[slot], self.up[slot], self.ranks[slot] = 0, 0, 0


@dataclass(frozen=True)
class AdapterRows:
    """Which adapter each row of a batch has, grouped by adapter.

    index: (B,) int64 on the CPU, -1 for none.
    order: rows that have one, those of the same adapter together.
    """

    index: Tensor
    order: Tensor
    _tiles: dict[int, Tensor] = field(default_factory=dict, repr=False, compare=False)
    _copies: dict[tuple[int, torch.device], tuple[Tensor, Tensor]] = field(
        default_factory=dict, repr=False, compare=False
    )

    @classmethod
    def of(cls, index: Tensor) -> AdapterRows:
        """Group the rows of an index (B,)."""
        order = torch.argsort(index, stable=True)
        return cls(index, order[int((index < 0).sum()) :])

    def tiles(self, steps: int) -> Tensor:
        """The rows in order, of ``steps`` each, in pieces of one adapter: (N, 3) int64 of adapter, start, length."""
        if steps not in self._tiles:
            adapters, counts = np.unique(self.index[self.order].numpy(), return_counts=True)
            table, start = [], 0
            for adapter, count in zip(adapters.tolist(), (counts * steps).tolist(), strict=True):
                pieces = -(-count // TILE)
                bounds = [start + count * piece // pieces for piece in range(pieces + 1)]
                table += [(adapter, a, b - a) for a, b in itertools.pairwise(bounds)]
                start += count
            self._tiles[steps] = torch.tensor(table, dtype=torch.long).reshape(-1, 3)
        return self._tiles[steps]

    def on_device(self, steps: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """The order (B,) and the tiles (N, 3) on a device, padded to sizes that the number of rows alone decides."""
        key = steps, device
        if key not in self._copies:
            tiles, batch = self.tiles(steps), len(self.index)
            most = batch * steps // TILE + batch  # an adapter has at most one tile that is not full
            padded = F.pad(tiles, (0, 0, 0, most - len(tiles)))
            order = F.pad(self.order, (0, batch - len(self.order)))
            if device.type == "cuda":  # from pinned memory, the only one whose copy waits for nothing
                order, padded = order.pin_memory(), padded.pin_memory()
            self._copies[key] = order.to(device, non_blocking=True), padded.to(device, non_blocking=True)
        return self._copies[key]


def batched_lora(y: Tensor, x: Tensor, pool: LoraPool, rows: AdapterRows) -> Tensor:
    """Add to a layer's outputs what each row's adapter makes of its inputs (arXiv 2106.09685, equation 3)::

        y[b, t] += scale[a] · B[a] (A[a] x[b, t])   with a = rows.index[b], nothing where a is -1

    Rows with the same adapter are computed together, whatever their order, so many adapters cost little more than one;
    a row's result does not depend on the others.

    Args:
        y: (B, T, M), changed in place.
        x: (B, T, K).
        pool: the layer's adapters.
        rows: who has which.

    Returns:
        y.
    """
    if len(rows.order):
        BATCHED_LORA.choose(y, x, pool.down, pool.up)(y, x, pool, rows)
    return y


def _reference(y: Tensor, x: Tensor, pool: LoraPool, rows: AdapterRows) -> None:
    order, adapter = rows.order.to(y.device), rows.index[rows.order].to(y.device)
    y[order] += x[order] @ pool.down[adapter] @ pool.up[adapter]


def _numba(y: Tensor, x: Tensor, pool: LoraPool, rows: AdapterRows) -> None:
    if x.shape[-1] == 0 or y.shape[-1] % LANES:
        return _reference(y, x, pool, rows)
    from loquent.kernels.cpu.runtime import fields_of, kernel, run

    _, steps, inputs = x.shape
    outputs, rank, tiles = y.shape[2], pool.up.shape[1], rows.tiles(steps)
    run(
        kernel("batched_lora", "batched_lora"),
        len(tiles),
        len(rows.order) * steps * rank * (inputs + outputs),
        *(steps, inputs, rank, outputs, tiles.data_ptr(), rows.order.data_ptr(), pool.ranks.data_ptr()),
        *(field for tensor in (x, y, pool.down, pool.up) for field in fields_of(tensor)),
    )


def _triton(y: Tensor, x: Tensor, pool: LoraPool, rows: AdapterRows) -> None:
    from loquent.kernels.gpu.batched_lora import batched_lora

    batched_lora(y, x, pool.down, pool.up, *rows.on_device(x.shape[1], x.device))


BATCHED_LORA = Operation("batched_lora", reference=_reference, numba=_numba, triton=_triton)
