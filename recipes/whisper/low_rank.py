"""The low-rank adapter of a Whisper: begun with another one, exported and saved as PEFT does.

Importing PEFT takes seconds, so this module is imported where it is used.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

import torch
from peft import PeftModel, get_peft_model_state_dict
from torch import nn

from loquent.asr.whisper.lora import AdapterInfo, LoraAdapter, LoraFactors, adapter_of, write_info
from loquent.recipes.loop.low_rank import NAME, adapted_layers


@torch.no_grad()
def start_from(model: nn.Module, given: Mapping[str, LoraFactors]) -> None:
    """Begin with the factors of an adapter.

    Raises:
        ValueError: it changes other layers, or with other ranks.
    """
    layers = adapted_layers(model)
    if layers.keys() != given.keys():
        raise ValueError("it changes other layers")
    for name, layer in layers.items():
        if layer.r[NAME] != len(given[name].a):
            raise ValueError(f"its rank is {len(given[name].a)} at {name}, here it is {layer.r[NAME]}")
        layer.lora_A[NAME].get_parameter("weight").copy_(given[name].a)
        layer.lora_B[NAME].get_parameter("weight").copy_(given[name].b * (given[name].scale / layer.scaling[NAME]))


def trained_adapter(model: PeftModel, info: AdapterInfo) -> LoraAdapter:
    """What has been trained, as copies on the CPU."""
    tensors = get_peft_model_state_dict(model, save_embedding_layers=False)
    copies = {name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}
    return adapter_of(copies, model.peft_config[NAME].to_dict(), info)


def save(model: PeftModel, folder: Path, info: AdapterInfo) -> None:
    """Write what has been trained as PEFT does, its model card included, with ``info`` in the configuration."""
    model.peft_config[NAME].base_model_name_or_path = info.base
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as unfinished:  # moved, so that no reader sees half a file
        model.save_pretrained(unfinished, save_embedding_layers=False)
        write_info(unfinished, info)
        for file in Path(unfinished).iterdir():
            os.replace(file, folder / file.name)
