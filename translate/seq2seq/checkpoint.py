"""A model's folder: ``config.json``, ``model.safetensors`` and ``pieces.model``."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import save_file
from torch import Tensor

from loquent.speech.json_files import read_json_object
from loquent.speech.weight_files import read_weights
from loquent.translate.pieces import Pieces
from loquent.translate.seq2seq.config import Seq2SeqConfig
from loquent.translate.seq2seq.network import Seq2Seq

FAMILY = "seq2seq"


class Model(NamedTuple):
    """A network with its pieces and the languages that it translates between."""

    network: Seq2Seq
    pieces: Pieces
    source: str
    target: str


class Content(NamedTuple):
    """What is in a model's folder; ``network`` is the configuration of the network."""

    network: dict[str, Any]
    weights: dict[str, Tensor]
    pieces: Pieces
    source: str
    target: str


def save_model(folder: Path, network: Seq2Seq, pieces: Pieces, source: str, target: str) -> None:
    """Write a model's folder; the weights are kept in half precision."""
    write_folder(folder, FAMILY, Content(asdict(network.config), network.state_dict(), pieces, source, target))


def load_model(folder: Path) -> Model:
    """Read a model's folder.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: one is damaged, or of another kind of model.
    """
    content = read_folder(folder, FAMILY)
    network = Seq2Seq(Seq2SeqConfig(**content.network))
    network.load_state_dict(content.weights)
    return Model(network.eval(), content.pieces, content.source, content.target)


def write_folder(folder: Path, family: str, content: Content) -> None:
    """Write the folder of a model of a family."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {"family": family, "source": content.source, "target": content.target, "network": content.network}
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    (folder / "pieces.model").write_bytes(content.pieces.content)
    weights = {name: value.detach().to("cpu", torch.float16) for name, value in content.weights.items()}
    save_file(weights, folder / "model.safetensors")


def read_folder(folder: Path, family: str) -> Content:
    """Read the folder of a model of a family; the errors are those of `load_model`."""
    config = read_json_object(folder / "config.json")
    if config.get("family") != family:
        raise ValueError(f"{folder} holds a model of the family {config.get('family')!r}, expected {family!r}")
    pieces = Pieces.load(folder / "pieces.model")
    weights = {name: value.float() for name, value in read_weights(folder / "model.safetensors").items()}
    return Content(config["network"], weights, pieces, config["source"], config["target"])


def is_of_family(folder: Path, family: str) -> bool:
    """Whether a folder holds a model of a family."""
    try:
        return read_json_object(folder / "config.json").get("family") == family
    except (OSError, ValueError):
        return False
