"""Whisper in 8 bits, for the CPU: the vocabulary, all layers for recordings, and with an adapter for live audio."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Literal, cast

import torch
from torch import Tensor, nn

from loquent.asr.whisper.lora import LoraAdapter
from loquent.asr.whisper.model import MultiHeadAttention, ResidualAttentionBlock, Whisper
from loquent.kernels.int8_linear import int8_linear, pack_int8
from loquent.speech.nn.linear import Linear
from loquent.speech.nn.low_rank import Adapters


def quantize_int8(model: Whisper) -> Whisper:
    """Compute the scores over the vocabulary in int8, in place, and return the model.

    That product takes most of a decoder's time: a step reads the whole embedding, tens of megabytes, for every few
    tokens. The embedding itself is then only there to look up tokens, in any floating-point type. The other layers stay
    in float32, and adapters can be put on them.
    """
    model.decoder.int8_vocabulary = pack_int8(model.decoder.token_embedding.weight)
    return model


def int8_layers(model: Whisper, adapter: LoraAdapter | None = None) -> Whisper:
    """The model with all layers of its blocks in int8, a quarter of their size, and perhaps an adapter in its weights.

    The model itself is left as it is, and shares its convolutions, normalisation and embeddings. The other one takes no
    adapters any more. Layers with the same input are one product, which normalises this input, too.
    """
    factors_of = {} if adapter is None else adapter.factors

    def layer(*parts: tuple[str, nn.Module], norm: nn.LayerNorm | None = None, gelu: bool = False) -> Int8Linear:
        weights, biases = [], []
        for name, part in parts:
            own, factors = cast(Linear, part), factors_of.get(name)
            weight = own.weight.detach()
            weights.append(weight if factors is None else factors.applied(weight))
            biases.append(weight.new_zeros(len(weight)) if own.bias is None else own.bias.detach())
        return Int8Linear(torch.cat(weights), torch.cat(biases), norm, gelu)

    def attention(name: str, whole: MultiHeadAttention, norm: nn.LayerNorm, crossing: bool) -> JointAttention:
        query, key, value = (f"{name}.query", whole.query), (f"{name}.key", whole.key), (f"{name}.value", whole.value)
        out = layer((f"{name}.out", whole.out))
        if crossing:
            return JointAttention(whole.heads, layer(key, value), out, layer(query, norm=norm))
        return JointAttention(whole.heads, layer(query, key, value, norm=norm), out)

    def block(name: str, whole: ResidualAttentionBlock) -> nn.Module:
        widen, _, narrow = whole.mlp
        wide = layer((f"{name}.mlp.0", widen), norm=whole.mlp_ln, gelu=True)
        parts: dict[str, nn.Module] = {
            "attn": attention(f"{name}.attn", whole.attn, whole.attn_ln, crossing=False),
            "mlp": nn.Sequential(wide, nn.Identity(), layer((f"{name}.mlp.2", narrow))),
            **dict.fromkeys(("attn_ln", "mlp_ln"), nn.Identity()),
        }
        if whole.cross_attn is not None and whole.cross_attn_ln is not None:
            crossing = attention(f"{name}.cross_attn", whole.cross_attn, whole.cross_attn_ln, crossing=True)
            parts |= {"cross_attn": crossing, "cross_attn_ln": nn.Identity()}
        return _with_parts(whole, parts)

    def blocks(name: str, stack: nn.Module) -> nn.Module:
        inner = cast(Sequence[ResidualAttentionBlock], stack.blocks)
        made = [block(f"{name}.blocks.{number}", one) for number, one in enumerate(inner)]
        return _with_parts(stack, {"blocks": nn.ModuleList(made)})

    stacks = {name: blocks(name, stack) for name, stack in (("encoder", model.encoder), ("decoder", model.decoder))}
    made = cast(Whisper, _with_parts(model, stacks))
    if adapter is not None:
        made.merged = (*model.merged, adapter.digest)
    return made


class Int8Linear(nn.Module):
    """A linear layer with 8-bit weights, and what surrounds it (see `int8_linear`)."""

    def __init__(self, weight: Tensor, bias: Tensor, norm: nn.LayerNorm | None, gelu: bool) -> None:
        super().__init__()
        self.packed = pack_int8(weight, bias, None if norm is None else (norm.weight.detach(), norm.bias.detach()))
        self.activation: Literal["none", "gelu"] = "gelu" if gelu else "none"

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) to (..., out)."""
        return int8_linear(x, self.packed, self.activation)


class JointAttention(MultiHeadAttention):
    """Attention whose projections of the same input are one layer.

    Args:
        joint: queries, keys and values side by side, or keys and values where another input asks.
        query: of the other input.
    """

    def __init__(self, heads: int, joint: nn.Module, out: nn.Module, query: nn.Module | None = None) -> None:
        nn.Module.__init__(self)
        self.heads, self.joint, self.out = heads, joint, cast(Linear, out)
        if query is not None:
            self.query = cast(Linear, query)

    def inputs(self, x: Tensor, adapters: Adapters | None = None) -> Sequence[Tensor]:
        """See `MultiHeadAttention`; adapters are in the weights."""
        return cast(Tensor, self.joint(x)).chunk(3, -1)

    def memory(self, source: Tensor, adapters: Adapters | None = None) -> tuple[Tensor, Tensor]:
        """See `MultiHeadAttention`."""
        k, v = cast(Tensor, self.joint(source)).chunk(2, -1)
        return self.split(k), self.split(v)


def _with_parts(module: nn.Module, parts: dict[str, nn.Module]) -> nn.Module:
    """The same module with some others inside it; everything else is shared."""
    view = copy.copy(module)
    view._modules = {**module._modules, **parts}
    return view
