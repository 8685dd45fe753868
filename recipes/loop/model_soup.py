"""The mean of several models trained from the same start: on unseen speakers it makes fewer errors than any of them.

Each run loses some of what the start had learnt, each another part, and the mean restores most of it.
Source: model soups (Wortsman et al. 2022, arXiv 2203.05482).
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from loquent.recipes.loop.config import ConfigError


def write_mean(models: Mapping[str, float], folder: Path) -> None:
    """Write the weighted mean of models as a model of its own. Other files are the first model's, and weights that
    some of them lack, such as auxiliary losses, are the mean of the others'.

    Args:
        models: folders, and how much each counts.
        folder: for the mean; if it is there already, it stays.

    Raises:
        ConfigError: a folder has no model, or another kind of one than the first.
    """
    if folder.is_dir():
        return
    sources = [Path(name) for name in models]
    for source in sources:
        if not (source / "model.safetensors").is_file():
            raise ConfigError(f"mean_of: no model in {str(source)!r}")
    unfinished = folder.with_name(folder.name + ".part")
    shutil.rmtree(unfinished, ignore_errors=True)
    shutil.copytree(sources[0], unfinished)
    for file in unfinished.glob("*.safetensors"):
        parts = {one / file.name: share for one, share in zip(sources, models.values(), strict=True)}
        save_file(_mean({part: share for part, share in parts.items() if part.is_file()}), file)
    for file in unfinished.glob("tokenizer*"):
        if any((one / file.name).read_bytes() != file.read_bytes() for one in sources):
            raise ConfigError(f"mean_of: {', '.join(models)} have different tokens")
    unfinished.rename(folder)


def _mean(files: Mapping[Path, float]) -> dict[str, Tensor]:
    parts = {file: load_file(file) for file in files}
    (name_of_first, first), total = next(iter(parts.items())), sum(files.values())
    for file, weights in parts.items():
        if {name: one.shape for name, one in weights.items()} != {name: one.shape for name, one in first.items()}:
            raise ConfigError(f"mean_of: {file} is of another shape than {name_of_first}")
    return {
        name: torch.stack([parts[file][name].float() * (share / total) for file, share in files.items()]).sum(0)
        if one.is_floating_point()
        else one
        for name, one in first.items()
    }
