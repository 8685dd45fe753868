"""Adapters on the layers of a model for the length of a call: which layers have some, and which row has which."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from loquent.kernels.batched_lora import AdapterRows, LoraPool, batched_lora


@dataclass(frozen=True)
class Adapters:
    """What a batch passes down to the layers.

    pools: adapters of each layer that has any.
    rows:  the adapter of each row of the batch.
    """

    pools: Mapping[nn.Module, LoraPool]
    rows: AdapterRows

    def select(self, rows: Tensor) -> Adapters | None:
        """For a batch of some of the rows (N,), which may repeat; None when none of them has an adapter."""
        index = self.rows.index[rows.cpu()]
        return Adapters(self.pools, AdapterRows.of(index)) if bool((index >= 0).any()) else None


def project(layer: nn.Linear, x: Tensor, adapters: Adapters | None) -> Tensor:
    """A linear layer, adapted row by row: x (B, ..., K) to (B, ..., M)."""
    y = layer(x)
    pool = None if adapters is None else adapters.pools.get(layer)
    if adapters is None or pool is None:
        return y
    batch = len(adapters.rows.index)
    batched_lora(y.view(batch, -1, y.shape[-1]), x.reshape(batch, -1, x.shape[-1]), pool, adapters.rows)
    return y
