"""Position of a step in its stream, as attention sees it; unbounded, so nothing here is a table of fixed size."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Rotary(nn.Module):
    """Rotary position embedding: rotates pairs of channels by an angle proportional to the position (arXiv 2104.09864).

    Args:
        dim: channels of a head.
        base: wavelengths grow from 2π to 2π · base.
        interleaved: pairs are channels (2i, 2i + 1) as in the paper; otherwise (i, i + dim / 2) as in LLaMA and Qwen.
    """

    def __init__(self, dim: int, base: float = 10_000.0, *, interleaved: bool = False) -> None:
        super().__init__()
        if dim % 2:
            raise ValueError(f"rotary positions need an even number of channels per head, got {dim}")
        self.dim, self.base, self.interleaved = dim, base, interleaved

    def forward(self, x: Tensor, position: Tensor) -> Tensor:
        """Rotate x (B, T, H, dim), whose steps stand at ``position`` (B, T) or (T,), int64."""
        angle = _angles(position, self.dim, self.base)[..., None, :]
        cos, sin = angle.cos().to(torch.float32), angle.sin().to(torch.float32)
        a, b = x.float().unflatten(-1, (-1, 2)).unbind(-1) if self.interleaved else x.float().chunk(2, dim=-1)
        turned = a * cos - b * sin, b * cos + a * sin
        y = torch.stack(turned, dim=-1).flatten(-2) if self.interleaved else torch.cat(turned, dim=-1)
        return y.to(x.dtype)


def sinusoids(position: Tensor, dim: int, base: float = 10_000.0) -> Tensor:
    """Sine and cosine of each wavelength in turn: (...,) int64 to (..., dim) float32 (arXiv 1706.03762, section 3.5).

    Negative positions are distances to later steps, as the relative attention of Transformer-XL needs them.
    """
    angle = _angles(position, dim, base)
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(-2).to(torch.float32)


def _angles(position: Tensor, dim: int, base: float) -> Tensor:
    # In float32 an hour of frames would already lose the fast wavelengths.
    exponent = torch.arange(0, dim, 2, device=position.device, dtype=torch.float64) / dim
    return position[..., None].double() * base**-exponent
