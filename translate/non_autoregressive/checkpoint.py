"""A model's folder, with the files of a `Seq2Seq`'s; the encoder's weights are in it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

from loquent.translate.non_autoregressive.network import NonAutoregressive, NonAutoregressiveConfig
from loquent.translate.pieces import Pieces
from loquent.translate.seq2seq.checkpoint import Content, read_folder, write_folder
from loquent.translate.seq2seq.config import Seq2SeqConfig

FAMILY = "non-autoregressive"


class Model(NamedTuple):
    """A network with its pieces and the languages that it translates between."""

    network: NonAutoregressive
    pieces: Pieces
    source: str
    target: str


def save_model(folder: Path, network: NonAutoregressive, pieces: Pieces, source: str, target: str) -> None:
    """Write a model's folder; the weights are kept in half precision."""
    write_folder(folder, FAMILY, Content(asdict(network.config), network.state_dict(), pieces, source, target))


def load_model(folder: Path) -> Model:
    """Read a model's folder.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: one is damaged, or of another kind of model.
    """
    content = read_folder(folder, FAMILY)
    encoder = Seq2SeqConfig(**content.network["encoder"])
    network = NonAutoregressive(NonAutoregressiveConfig(**{**content.network, "encoder": encoder}))
    network.load_state_dict(content.weights)
    return Model(network.eval(), content.pieces, content.source, content.target)
