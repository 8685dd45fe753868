"""Finite scalar quantisation: a frame becomes a few numbers, each rounded to one of a few levels (arXiv 2309.15505)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from loquent.kernels.finite_scalar import Digits, bounded, code_of, finite_scalar_codes
from loquent.speech.nn.linear import Linear

MOST_CODES = 2**31
MARGIN = 1e-3  # how far the largest level stays from saturation; CosyVoice's 0.999 with three levels


class FiniteScalarQuantizer(nn.Module):
    """Frames to codes and back; a frame depends on no other, so any stream of frames may go through.

    With h = project_down(x), each of the K numbers is bounded and rounded to one of its L levels, and they are the
    digits of the code, the first one the lowest::

        z_j = round(tanh(h_j + s_j) · (L_j - 1) / 2 · 0.999 - o_j)
        code = Σ_j (z_j + ⌊L_j / 2⌋) · Π_{i<j} L_i

    o is ½ where the number of levels is even, and s such that h = 0 gives z = 0. With three levels this is CosyVoice
    2's: tanh(h) · 0.999, round, + 1, Σ h_j 3^j. The eight default dimensions make 6561 codes. There is no codebook to
    collapse and no loss: gradients pass the rounding straight through.

    Args:
        dim: channels of a frame.
        levels: of each number, at least 3.
        up: whether there is a projection back to ``dim`` channels; the released tokenizers of CosyVoice have none.

    Raises:
        ValueError: a number has fewer than three levels, or there are more than 2**31 codes.
    """

    half_width: Tensor  # (K,) float32, (L - 1) / 2 less the margin
    offset: Tensor  # (K,) float32
    shift: Tensor  # (K,) float32
    lowest: Tensor  # (K,) float32, ⌊L / 2⌋
    powers: Tensor  # (K,) int64
    counts: Tensor  # (K,) int64

    def __init__(self, dim: int, levels: Sequence[int] = (3,) * 8, *, up: bool = False) -> None:
        super().__init__()
        if not levels or min(levels) < 3 or math.prod(levels) > MOST_CODES:
            raise ValueError(f"expected at least 3 levels each and at most {MOST_CODES} codes, got levels={levels}")
        self.codebook_size = math.prod(levels)
        counts = torch.tensor(levels)
        half_width = (counts - 1) * (1 - MARGIN) / 2
        offset = torch.where(counts % 2 == 0, 0.5, 0.0)
        constants = {
            "half_width": half_width,
            "offset": offset,
            "shift": (offset / half_width).atanh(),
            "lowest": (counts // 2).float(),
            "powers": torch.cat([torch.ones(1, dtype=torch.long), counts[:-1].cumprod(0)]),
            "counts": counts,
        }
        for name, value in constants.items():
            self.register_buffer(name, value, persistent=False)
        self.project_down = Linear(dim, len(levels))
        self.project_up = Linear(len(levels), dim) if up else None

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Quantise for training: frames (..., dim) to values as of `decode`, with a gradient, and codes (...)."""
        bound = self._bound(x)
        levels = bound + (bound.round() - bound).detach()
        return self._expand(levels).to(x.dtype), code_of(bound.round(), self._digits)

    def encode(self, x: Tensor) -> Tensor:
        """Frames (..., dim) to codes (...), int64 from 0 to codebook_size - 1."""
        return finite_scalar_codes(x, self.project_down.weight, self.project_down.bias, self._digits)

    def decode(self, codes: Tensor) -> Tensor:
        """Codes (...) to levels from -1 to 1 (..., K), projected to (..., dim) if there is a projection."""
        digits = codes[..., None] // self.powers % self.counts
        return self._expand(digits - self.lowest)

    def _bound(self, x: Tensor) -> Tensor:
        return bounded(self.project_down(x).float(), self._digits)

    @property
    def _digits(self) -> Digits:
        return Digits(self.shift, self.half_width, self.offset, self.lowest, self.powers)

    def _expand(self, levels: Tensor) -> Tensor:
        scaled = levels / self.lowest
        return scaled if self.project_up is None else self.project_up(scaled)
