"""Low-rank factors on the frozen layers of a Whisper, for training: weights W + s B A.

The product is added to the weight, not to the layer's outputs. That is one small product for each layer and step, and
the layer stays the single matrix product it was; over thousands of frames that is cheaper than passing over all outputs
again. Source: Hu et al. 2021 (arXiv 2106.09685).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from loquent.asr.whisper.lora import LoraFactors


class LowRankLinear(nn.Linear):
    """A frozen linear layer, in any precision, with factors in float32 that are trained.

    Args:
        layer: whose weight and bias it shares.
        rank: of the product.
        scale: of the product.
    """

    def __init__(self, layer: nn.Linear, rank: int, scale: float) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self.weight, self.bias, self.scale, self.enabled = layer.weight, layer.bias, scale, True
        self.lora_a = nn.Parameter(torch.empty(rank, layer.in_features))
        self.lora_b = nn.Parameter(torch.zeros(layer.out_features, rank))
        nn.init.kaiming_uniform_(self.lora_a, a=math.sqrt(5))

    def forward(self, x: Tensor) -> Tensor:
        """x (..., K) to (..., M)."""
        if not self.enabled:
            return F.linear(x, self.weight, self.bias)
        weight = torch.addmm(self.weight.float(), self.lora_b, self.lora_a, alpha=self.scale)
        return F.linear(x, weight.to(self.weight.dtype), self.bias)


def add_factors(model: nn.Module, targets: Sequence[str], rank: int, scale: float) -> dict[str, LowRankLinear]:
    """Freeze a model and put factors on its linear layers whose names end in one of ``targets``; returns them."""
    model.requires_grad_(False)
    chosen = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and any(name.endswith(f".{target}") for target in targets)
    ]
    layers = {name: LowRankLinear(module, rank, scale) for name, module in chosen}
    for name, layer in layers.items():
        parent, _, attribute = name.rpartition(".")
        setattr(model.get_submodule(parent), attribute, layer)
    return layers


def factors(layers: Mapping[str, LowRankLinear]) -> dict[str, LoraFactors]:
    """What has been trained, as copies on the CPU."""
    return {
        name: LoraFactors(layer.lora_a.detach().cpu().clone(), layer.lora_b.detach().cpu().clone(), layer.scale)
        for name, layer in layers.items()
    }


@torch.no_grad()
def start_from(layers: Mapping[str, LowRankLinear], given: Mapping[str, LoraFactors]) -> None:
    """Begin with the factors of an adapter.

    Raises:
        ValueError: it changes other layers, or its rank is another.
    """
    if layers.keys() != given.keys():
        raise ValueError("it changes other layers")
    for name, layer in layers.items():
        if layer.lora_a.shape != given[name].a.shape:
            raise ValueError(f"its rank is {len(given[name].a)}, not adapter.rank")
        layer.lora_a.copy_(given[name].a)
        layer.lora_b.copy_(given[name].b * (given[name].scale / layer.scale))


@contextmanager
def without_factors(model: nn.Module) -> Iterator[None]:
    """While the block runs, the model is as it was."""
    layers = [module for module in model.modules() if isinstance(module, LowRankLinear)]
    for layer in layers:
        layer.enabled = False
    try:
        yield
    finally:
        for layer in layers:
            layer.enabled = True
