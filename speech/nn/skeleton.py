"""Modules without weights, for a checkpoint's tensors to be put into."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.overrides import TorchFunctionMode


class Skeletons(TorchFunctionMode):
    """Within a block of it modules are built at once: their weights have shapes, but no memory and no numbers.

    Weights are what modules take from `torch.empty`: they go to torch's meta device, and no initial numbers are drawn
    for them. ``load_state_dict(..., assign=True)`` puts real ones in their place. All other tensors, such as tables
    that a constructor computes, are what they always are: computed on the meta device, they would have torch load its
    compiler, a second of work.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__module__", None) == "torch.nn.init":
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        if func is torch.empty and kwargs.get("device") is None:
            kwargs["device"] = "meta"
        return func(*args, **kwargs)
