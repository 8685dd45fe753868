"""A model's folder: ``config.json``, ``model.safetensors`` and ``pieces.model``."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import save_file

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


def save_model(folder: Path, network: Seq2Seq, pieces: Pieces, source: str, target: str) -> None:
    """Write a model's folder; the weights are kept in half precision."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {"family": FAMILY, "source": source, "target": target, "network": asdict(network.config)}
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    (folder / "pieces.model").write_bytes(pieces.content)
    weights = {name: value.detach().to("cpu", torch.float16) for name, value in network.state_dict().items()}
    save_file(weights, folder / "model.safetensors")


def load_model(folder: Path) -> Model:
    """Read a model's folder.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: one is damaged, or of another kind of model.
    """
    config = read_json_object(folder / "config.json")
    if config.get("family") != FAMILY:
        raise ValueError(f"{folder} holds a model of the family {config.get('family')!r}, expected {FAMILY!r}")
    pieces = Pieces.load(folder / "pieces.model")
    network = Seq2Seq(Seq2SeqConfig(**config["network"]))
    weights = read_weights(folder / "model.safetensors")
    network.load_state_dict({name: value.float() for name, value in weights.items()})
    return Model(network.eval(), pieces, config["source"], config["target"])
