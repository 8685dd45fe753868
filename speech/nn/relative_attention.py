"""Self-attention with relative positions, in which every step has its own span of visible steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from loquent.kernels.relative_attention import relative_attention
from loquent.speech.nn.attention import RingState
from loquent.speech.nn.linear import Linear
from loquent.speech.nn.positions import sinusoids
from loquent.speech.nn.streaming import Chunk


@dataclass(frozen=True)
class Sight:
    """Which steps each query sees.

    query: (B, Q) int64, its own place in its stream.
    first, end: (B, Q) int64, it sees the steps first … end - 1; with first ≥ end it is no query at all.
    """

    query: Tensor
    first: Tensor
    end: Tensor


class RelativeAttention(nn.Module):
    """Multi-head self-attention with Transformer-XL's relative positions (arXiv 1901.02860), as in FastConformer.

    Args:
        dim, heads: channels of a step; heads that share them.
        past, future: largest distances, in steps, at which a query sees a step before and after its own.
        memory: steps before the new ones of a call that its queries may still see.
        bias: whether the projections have one (that of distances never has).
    """

    def __init__(
        self, dim: int, heads: int, *, past: int, future: int, memory: int, bias: bool = True, dropout: float = 0.0
    ) -> None:
        super().__init__()
        if dim % heads:
            raise ValueError(f"heads={heads} must divide dim={dim}")
        self.heads, self.past, self.future, self.memory, self.dropout = heads, past, future, max(memory, 1), dropout
        self.query, self.key = Linear(dim, dim, bias), Linear(dim, dim, bias)
        self.value, self.out = Linear(dim, dim, bias), Linear(dim, dim, bias)
        self.distance = Linear(dim, dim, bias=False)
        self.content_bias = nn.Parameter(torch.zeros(heads, dim // heads))  # u
        self.distance_bias = nn.Parameter(torch.zeros(heads, dim // heads))  # v
        self._table: tuple[object, Tensor] | None = None

    def forward(self, x: Tensor, sight: Sight) -> Tensor:
        """Attend within the whole input (B, T, C); queries that see nothing, as padding does, give arbitrary values."""
        return self.compare(x, [sight])[0]

    def compare(self, x: Tensor, sights: Sequence[Sight]) -> list[Tensor]:
        """`forward` under each of several sights, which share all but the weighing."""
        steps = x.shape[1]
        q, k, v = (project(x).unflatten(-1, (self.heads, -1)) for project in (self.query, self.key, self.value))
        # Row i of the shifted matrix has the distances i, i - 1, …, i - T + 1.
        distance = torch.arange(steps - 1, -steps, -1, device=x.device)
        table = self._project_distances(distance, x.dtype)
        by_distance = torch.einsum("bthd,nhd->bhtn", q + self.distance_bias, table)
        scores = _shift(by_distance) * q.shape[-1] ** -0.5
        key = torch.arange(steps, device=x.device)
        own = torch.eye(steps, dtype=torch.bool, device=x.device)  # padding must not become NaN
        q, k, v = (q + self.content_bias).transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
        dropout = self.dropout if self.training else 0.0
        results = []
        for sight in sights:
            seen = (key >= sight.first[:, :, None]) & (key < sight.end[:, :, None]) | own
            masked = scores.masked_fill(~seen[:, None], -torch.inf)
            y = F.scaled_dot_product_attention(q, k, v, masked, dropout_p=dropout)
            results.append(self.out(y.transpose(1, 2).flatten(2)))
        return results

    def initial_state(self, batch: int) -> RingState:
        """Empty rings."""
        weight = self.key.weight
        shape = batch, self.heads, self.memory, weight.shape[0] // self.heads
        return RingState(
            weight.new_zeros(shape), weight.new_zeros(shape), torch.zeros(batch, dtype=torch.long, device=weight.device)
        )

    def step(self, x: Chunk, state: RingState, rows: Tensor, sight: Sight, queries: Tensor | None = None) -> Tensor:
        """Take in the new steps, and attend from ``queries`` (B, Q, C), which are the new steps unless given.

        Returns:
            (B, Q, C).
        """
        q = self.query(x.data if queries is None else queries).unflatten(-1, (self.heads, -1))
        k, v = (project(x.data).unflatten(-1, (self.heads, -1)) for project in (self.key, self.value))
        position = state.position[rows]
        y = relative_attention(
            *(q, k, v, state.k, state.v, rows, position, x.length),
            query=sight.query,
            first=sight.first,
            end=sight.end,
            table=self._distances(x.data.dtype),
            future=self.future,
            content_bias=self.content_bias,
            distance_bias=self.distance_bias,
        )
        state.position[rows] = position + x.length
        return self.out(y.flatten(2))

    def _distances(self, dtype: torch.dtype) -> Tensor:
        """Projections of all distances from -future to past: the same for every call while the weight is."""
        weight = self.distance.weight
        version = None if weight.is_inference() else weight._version  # tensors made in inference mode have none
        key = weight.data_ptr(), version, weight.device, dtype
        if self._table is None or self._table[0] != key or torch.is_grad_enabled():
            distance = torch.arange(-self.future, self.past + 1, device=weight.device)
            table = self._project_distances(distance, dtype)
            if torch.is_grad_enabled():
                return table
            self._table = key, table
        return self._table[1]

    def _project_distances(self, distance: Tensor, dtype: torch.dtype) -> Tensor:
        dim = self.distance.weight.shape[1]
        return self.distance(sinusoids(distance, dim).to(dtype)).unflatten(-1, (self.heads, -1))


def _shift(x: Tensor) -> Tensor:
    """(B, H, T, 2T - 1) to (B, H, T, T): y[i, j] = x[i, T - 1 - i + j] (arXiv 1901.02860, appendix B)."""
    steps, wide = x.shape[2:]
    if steps == 1:
        return x
    return x.flatten(2)[:, :, steps - 1 : steps - 1 + steps * (wide - 1)].unflatten(2, (steps, -1))[..., :steps]
