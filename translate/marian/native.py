"""Models in Marian's own files: their options become a `MarianConfig`, their matrices the weights of the network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from loquent.translate.marian.config import MarianConfig
from loquent.translate.marian.containers import OPTIONS, Container, read_container

ATTENTION = {"query": "q", "key": "k", "value": "v", "out": "o"}
UNUSED = "_QuantMultA"  # ends the names of multipliers of inputs, which int8 arithmetic needs and floats do not


def read_native(file: Path) -> tuple[MarianConfig, dict[str, Tensor]]:
    """The configuration and the weights of a ``.npz`` or ``.bin`` file, by the names of `MarianNetwork`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, or holds a network of another kind; the message names it.
    """
    container = read_container(file)
    try:
        weights = _Weights(container)
        config = _config(container.options, weights)
        return config, weights.all_of(config)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error


def _config(options: Mapping[str, object], weights: _Weights) -> MarianConfig:
    def text(name: str, default: str) -> str:
        value = options.get(name, default)
        return value if isinstance(value, str) and value != "~" else default

    def size(name: str) -> int:
        value = options.get(name)
        if not isinstance(value, str) or not value.isdecimal() or len(value) > 9:
            raise ValueError(f"{name} in {OPTIONS} is {str(value)[:40]!r}, expected a whole number")
        return int(value)

    def one_of(name: str, default: str, *choices: str) -> Any:
        value = text(name, default)
        if value not in choices:
            raise ValueError(f"{name} in {OPTIONS} is {value[:40]!r}, but only {' and '.join(choices)} can be run")
        return value

    one_of("type", "transformer", "transformer")
    one_of("transformer-ffn-depth", "2", "2")
    one_of("transformer-decoder-ffn-depth", "0", "0", "2")
    one_of("transformer-pool", "false", "false")
    one_of("right-left", "false", "false")
    recurrent = one_of("transformer-decoder-autoreg", "self-attention", "self-attention", "rnn") == "rnn"
    if recurrent:
        one_of("dec-cell", "gru", "ssru")
    if "n" in text("transformer-postprocess-emb", "d"):
        raise ValueError(f"transformer-postprocess-emb in {OPTIONS} normalises embeddings, which cannot be run")
    heads, hidden = size("transformer-heads"), size("transformer-dim-ffn")
    return MarianConfig(
        source_vocabulary=len(weights.source_embedding),
        target_vocabulary=len(weights.target_embedding),
        channels=size("dim-emb"),
        encoder_layers=size("enc-depth"),
        decoder_layers=size("dec-depth"),
        encoder_heads=heads,
        decoder_heads=heads,
        encoder_hidden=hidden,
        decoder_hidden=(size("transformer-decoder-dim-ffn") if "transformer-decoder-dim-ffn" in options else 0)
        or hidden,
        decoder="ssru" if recurrent else "attention",
        activation=one_of("transformer-ffn-activation", "swish", "relu", "swish"),
        before=text("transformer-preprocess", ""),
        after=text("transformer-postprocess", "dan"),
        top=text("transformer-postprocess-top", ""),
    )


class _Weights:
    """Matrices of a file that are taken one after the other, until none is left."""

    def __init__(self, container: Container) -> None:
        self.left = {name: value for name, value in container.weights.items() if not name.endswith(UNUSED)}
        shared = self.left.pop("Wemb", None)
        self.source_embedding = self._embedding("encoder_Wemb", shared)
        self.target_embedding = self._embedding("decoder_Wemb", shared)

    def all_of(self, config: MarianConfig) -> dict[str, Tensor]:
        """Name in `MarianNetwork` -> weight; tied ones share their memory."""
        found = dict(self._layers(config))
        source = torch.tensor(self.source_embedding)
        tied = self.target_embedding is self.source_embedding
        found["source_embedding"] = source
        found["target_embedding"] = target = source if tied else torch.tensor(self.target_embedding)
        if "decoder_ff_logit_out_Wt" in self.left:
            found["output"] = self._take("decoder_ff_logit_out_Wt")
        elif "decoder_ff_logit_out_W" in self.left:
            found["output"] = self._matrix("decoder_ff_logit_out_W")
        else:
            found["output"] = target
        found["output_bias"] = self._take("decoder_ff_logit_out_b").flatten()
        if self.left:
            raise ValueError(f"it has weights for which this network has no place, such as {next(iter(self.left))!r}")
        return found

    def _layers(self, config: MarianConfig) -> Iterator[tuple[str, Tensor]]:
        for side, layers in (("encoder", config.encoder_layers), ("decoder", config.decoder_layers)):
            for layer in range(layers):
                here, theirs = f"{side}.{layer}", f"{side}_l{layer + 1}"
                if side == "encoder":
                    yield from self._attention(
                        config, f"{here}.attention", f"{theirs}_self", f"{here}.around_attention"
                    )
                elif config.decoder == "ssru":
                    yield from self._ssru(config, here, f"{theirs}_rnn")
                else:
                    yield from self._attention(config, f"{here}.past", f"{theirs}_self", f"{here}.around_past")
                if side == "decoder":
                    yield from self._attention(config, f"{here}.cross", f"{theirs}_context", f"{here}.around_cross")
                for own, number in (("first", 1), ("second", 2)):
                    yield f"{here}.feed.{own}.weight", self._matrix(f"{theirs}_ffn_W{number}")
                    yield f"{here}.feed.{own}.bias", self._vector(f"{theirs}_ffn_b{number}")
                yield from self._norms(config, f"{here}.around_feed", f"{theirs}_ffn_ffn", f"{theirs}_ffn_ffn")
            if "n" in config.top:
                yield from self._norm(f"{side}_top.norm_after", f"{side}_top", "")

    def _attention(self, config: MarianConfig, own: str, theirs: str, around: str) -> Iterator[tuple[str, Tensor]]:
        for name, letter in ATTENTION.items():
            yield f"{own}.{name}.weight", self._matrix(f"{theirs}_W{letter}")
            yield f"{own}.{name}.bias", self._vector(f"{theirs}_b{letter}")
        yield from self._norms(config, around, f"{theirs}_Wo", f"{theirs}_Wo")

    def _ssru(self, config: MarianConfig, own: str, theirs: str) -> Iterator[tuple[str, Tensor]]:
        """marian-dev, src/rnn/cells.h: candidates W x without a bias, and gates σ(Wf x + bf) of what is kept."""
        forget = self._vector(f"{theirs}_bf")
        candidate, gate = self._matrix(f"{theirs}_W"), self._matrix(f"{theirs}_Wf")
        yield f"{own}.past.gates.weight", torch.cat([candidate, gate])
        yield f"{own}.past.gates.bias", torch.cat([torch.zeros_like(forget), forget])
        yield from self._norms(config, f"{own}.around_past", theirs, f"{theirs}_ffn")

    def _norms(self, config: MarianConfig, own: str, before: str, after: str) -> Iterator[tuple[str, Tensor]]:
        if "n" in config.before:
            yield from self._norm(f"{own}.norm_before", before, "_pre")
        if "n" in config.after:
            yield from self._norm(f"{own}.norm_after", after, "")

    def _norm(self, own: str, theirs: str, suffix: str) -> Iterator[tuple[str, Tensor]]:
        yield f"{own}.weight", self._vector(f"{theirs}_ln_scale{suffix}")
        yield f"{own}.bias", self._vector(f"{theirs}_ln_bias{suffix}")

    def _matrix(self, name: str) -> Tensor:
        """As torch has it, (out, in)."""
        value = self._take(name)
        if value.ndim != 2:
            raise ValueError(f"{name!r} has shape {list(value.shape)}, expected a matrix")
        return value.T.contiguous()

    def _vector(self, name: str) -> Tensor:
        return self._take(name).flatten()

    def _take(self, name: str) -> Tensor:
        value = self.left.pop(name, None)
        if value is None:
            raise ValueError(f"it has no weight {name!r}, which {OPTIONS} asks for")
        return torch.tensor(value)

    def _embedding(self, name: str, shared: NDArray[np.float32] | None) -> NDArray[np.float32]:
        value = self.left.pop(name, shared)
        if value is None or value.ndim != 2:
            raise ValueError(f"it has no matrix of embeddings, {name!r} or 'Wemb'")
        return value
