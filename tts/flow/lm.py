"""The estimator of TouchTTS: the architecture of a language model as the backbone of the flow."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from loquent.speech.nn.linear import Linear
from loquent.speech.nn.positions import Rotary
from loquent.tts.flow.attention import ChunkAttention
from loquent.tts.flow.estimator import TimeEmbedding
from loquent.tts.flow.incremental import Estimator, View


@dataclass(frozen=True)
class LanguageModelConfig:
    """Size of a `LanguageModelEstimator`; as in Qwen2-0.5B unless given, but for as many keys as queries.

    bins, conditions: M of a frame; C of what it depends on: what the encoder says, the speaker, the prompt.
    channels, layers, heads, inner: width, depth, heads of the attention, width of the feed-forward layers.
    rotary_base: of the rotary positions.
    """

    bins: int = 80
    conditions: int = 240
    channels: int = 896
    layers: int = 24
    heads: int = 14
    inner: int = 4864
    rotary_base: float = 1_000_000.0


class LanguageModelEstimator(Estimator):
    """The layers of Llama and Qwen between two linear layers, under a chunk mask instead of a causal one.

    The time is added to every frame, so that the layers are just those of a language model, which engines made for such
    models can run.

    Source: TouchTTS, arXiv 2412.08237, whose flow has the architecture of its language model.
    """

    def __init__(self, config: LanguageModelConfig) -> None:
        super().__init__()
        self.config, self.bins, self.conditions = config, config.bins, config.conditions
        self.time = TimeEmbedding(config.channels, config.channels)
        self.inputs = Linear(config.bins + config.conditions, config.channels)
        self.layers = nn.ModuleList(LanguageModelLayer(config) for _ in range(config.layers))
        self.norm = nn.RMSNorm(config.channels, eps=1e-6)
        self.out = Linear(config.channels, config.bins)

    def moment(self, t: Tensor) -> Tensor:
        """What is added to every frame; see `Estimator`."""
        return self.time(t)

    def estimate(self, x: Tensor, moment: Tensor, view: View) -> Tensor:
        """See `Estimator`."""
        x = self.inputs(x) + moment[:, None]
        for layer in self.layers:
            x = layer(x, view)
        return self.out(self.norm(x))


class LanguageModelLayer(nn.Module):
    """Attention with rotary positions and a gated feed-forward layer (SwiGLU), each with an RMS norm before it."""

    def __init__(self, config: LanguageModelConfig) -> None:
        super().__init__()
        channels = config.channels
        self.attention_norm = nn.RMSNorm(channels, eps=1e-6)
        rotary = Rotary(channels // config.heads, config.rotary_base)
        self.attention = ChunkAttention(channels, config.heads, rotary=rotary)
        self.norm = nn.RMSNorm(channels, eps=1e-6)
        self.gate, self.up = Linear(channels, config.inner, bias=False), Linear(channels, config.inner, bias=False)
        self.down = Linear(config.inner, channels, bias=False)

    def forward(self, x: Tensor, view: View) -> Tensor:
        """(B, T, C) to the same."""
        x = x + view.attend(self.attention, self.attention_norm(x))
        y = self.norm(x)
        return x + self.down(F.silu(self.gate(y)) * self.up(y))
