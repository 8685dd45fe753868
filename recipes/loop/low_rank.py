"""A low-rank adapter on the frozen linear layers of a model, put there and switched off by PEFT.

Importing PEFT takes seconds, so this module is imported where it is used.
Source: Hu et al. 2021 (arXiv 2106.09685).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import Linear
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn
from torch.nn import functional as F

NAME = "default"  # of the adapter within PEFT


class WeightLinear(Linear):
    """PEFT's layer, but its forward pass adds the product to the weight, W + s B A, and multiplies once.

    PEFT adds the product to the outputs, which takes several passes over all frames. Over the thousands of frames of a
    training batch one small product for each layer and step is cheaper. Whatever is not plain LoRA is left to PEFT.
    """

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """x (..., K) to (..., M)."""
        plain = self.active_adapters == [NAME] and not self.lora_variant and not self.lora_bias[NAME]
        dropout = isinstance(self.lora_dropout[NAME], nn.Dropout)
        if args or kwargs or self.disable_adapters or self.merged or dropout or not plain:
            return super().forward(x, *args, **kwargs)
        base = self.get_base_layer()
        assert isinstance(base, nn.Linear)
        a, b = self.lora_A[NAME].get_parameter("weight"), self.lora_B[NAME].get_parameter("weight")
        weight = torch.addmm(base.weight.float(), b, a, alpha=self.scaling[NAME])
        return F.linear(x, weight.to(base.weight.dtype), base.bias)


def add_adapter(model: nn.Module, config: LoraConfig) -> PeftModel:
    """Freeze a model, in any precision, and put an adapter in float32 on its linear layers, in place.

    Args:
        model: its linear layers are replaced by layers of PEFT.
        config: which layers, their ranks and scales.

    Returns:
        PEFT's view of the model.
    """
    config._register_custom_module({nn.Linear: WeightLinear})
    return get_peft_model(model, config)


def adapted_layers(model: nn.Module) -> dict[str, Linear]:
    """The layers of a model with an adapter, by the names that they had without."""
    return {name: module for name, module in model.named_modules() if isinstance(module, Linear)}


@contextmanager
def without_adapter(model: nn.Module) -> Iterator[None]:
    """While the block runs, the model computes what it did before `add_adapter`."""
    layers = [module for module in model.modules() if isinstance(module, BaseTunerLayer)]
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)
