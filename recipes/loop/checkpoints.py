"""Checkpoints of a training run: folders that are complete or not there at all."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from loquent.recipes.loop.schedule import AveragedWeights

KEPT = 2


class Checkpoints:
    """Folders ``step-N`` with weights, averaged weights, the optimizer and a place in the data; the last two stay."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def save(
        self, step: int, module: nn.Module, average: AveragedWeights, optimizer: dict[str, Any], place: dict[str, Any]
    ) -> None:
        """Write a checkpoint under another name and rename it: a crash leaves the ones before."""
        unfinished = self.folder / f"step-{step:08d}.part"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        weights = {name: value.contiguous() for name, value in changing(module).items()}
        save_file(weights, unfinished / "module.safetensors")
        save_file(average.weights, unfinished / "average.safetensors")
        torch.save(optimizer, unfinished / "optimizer.pt")
        place = place | {"updates": average.updates}
        (unfinished / "place.json").write_text(json.dumps(place), encoding="utf-8")
        final = unfinished.with_suffix("")
        shutil.rmtree(final, ignore_errors=True)
        unfinished.replace(final)
        for old in self._found()[:-KEPT]:
            shutil.rmtree(old)

    def load(
        self, module: nn.Module, average: AveragedWeights, device: torch.device
    ) -> tuple[dict[str, Any], dict[str, Any]] | None:
        """Put the newest checkpoint into module and average; returns the optimizer's state and the place, or None."""
        found = self._found()
        if not found:
            return None
        folder = found[-1]
        place = json.loads((folder / "place.json").read_text(encoding="utf-8"))
        weights = load_file(folder / "module.safetensors")
        with torch.no_grad():
            for name, value in changing(module).items():
                value.copy_(weights[name])
        average.load(load_file(folder / "average.safetensors"), place["updates"])
        return torch.load(folder / "optimizer.pt", map_location=device, weights_only=True), place

    def _found(self) -> list[Path]:
        return sorted(path for path in self.folder.glob("step-*") if not path.name.endswith(".part"))


def changing(module: nn.Module) -> dict[str, torch.Tensor]:
    """What training changes: parameters with gradients, and buffers, such as running statistics."""
    trained = {name: p.detach() for name, p in module.named_parameters() if p.requires_grad}
    return trained | {name: b for name, b in module.named_buffers() if name in module.state_dict()}
