"""The text encoder: phones to a feature of each."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from loquent.kernels.cross_attention import attention
from loquent.tts.hibari.config import TextEncoderConfig
from loquent.tts.vocoder.convnext import ConvNeXtBlock


class TextEncoder(nn.Module):
    """Phones of a window to features.

    There are no positions: order is seen by the convolutions alone. All passes of the transformer share one layer's
    weights (as in Universal Transformers).

    Linear layers are torch's own here and in `Prosody`: windows are all of different lengths, and a library that
    prepares for each shape takes longer for that than for the product.
    """

    def __init__(self, config: TextEncoderConfig) -> None:
        super().__init__()
        self.passes = config.passes
        self.embedding = nn.Embedding(config.phones, config.dim)
        self.convolutions = nn.Sequential(
            *(
                ConvNeXtBlock(config.dim, config.hidden, config.kernel, linear=nn.Linear)
                for _ in range(config.convolutions)
            )
        )
        self.layer = TransformerLayer(config.dim, config.hidden, config.heads)
        self.norm = nn.LayerNorm(config.dim)

    def forward(self, phones: Tensor) -> Tensor:
        """(B, P) int64 to (B, P, C), each phone seeing all others."""
        x = self.convolutions(self.embedding(phones))
        for _ in range(self.passes):
            x = self.layer(x)
        y: Tensor = self.norm(x)
        return y


class TransformerLayer(nn.Module):
    """Self-attention and a feed-forward part, each behind a norm and added to its input."""

    def __init__(self, dim: int, hidden: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.qkv, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.expand, self.contract = nn.Linear(dim, hidden), nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, P, C) to (B, P, C)."""
        q, k, v = self.qkv(self.norm1(x)).unflatten(-1, (3, self.heads, -1)).unbind(2)
        x = x + self.out(attention(q, k, v).flatten(2))
        y: Tensor = x + self.contract(F.gelu(self.expand(self.norm2(x))))
        return y
