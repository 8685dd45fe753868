"""Read a voice of hibari-tts, an ONNX graph with 8-bit weights."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from loquent.tts.hibari.config import DecoderConfig, HibariConfig, ProsodyConfig, TextEncoderConfig


def find_voice(path: Path) -> Path:
    """The voice's file: ``path`` itself, or the one in that folder.

    Raises:
        FileNotFoundError: there is none.
        ValueError: there are several.
    """
    if path.is_file():
        return path
    # Beside the voice there may be networks of its front end.
    files = [file for file in sorted(path.glob("*.onnx")) if not file.name.startswith("oov")]
    if not files:
        raise FileNotFoundError(f"{path} has no voice of hibari-tts: expected an .onnx file")
    if len(files) > 1:
        raise ValueError(f"{path} has {len(files)} voices, {', '.join(file.name for file in files)}; name one of them")
    return files[0]


def read_hibari(file: Path) -> tuple[HibariConfig, dict[str, Tensor]]:
    """Sizes and float32 weights of a voice, 8-bit ones multiplied out.

    Returns:
        The configuration and the weights, named as in `HibariVoice`: ``text.``, ``prosody.`` and ``decoder.``.

    Raises:
        ModuleNotFoundError: the package onnx is not installed.
        ValueError: the file is damaged or of another model.
    """
    import onnx

    try:
        graph = onnx.load(file, load_external_data=False).graph
        tensors = {one.name: onnx.numpy_helper.to_array(one) for one in graph.initializer}
    except Exception as error:  # protobuf's own, which is no dependency of ours
        raise ValueError(f"{file} is damaged or no ONNX file: {error}") from error
    found: dict[str, Tensor] = {}
    passes: Counter[str] = Counter()
    for name, value in (*_plain(tensors), *_products(graph, tensors, passes)):
        ours = _renamed(name)
        weight = torch.from_numpy(np.array(value, np.float32))
        if ours.endswith(_FLATTENED):
            weight = weight.flatten(1)
        if not bool(torch.isfinite(weight).all()):
            raise ValueError(f"{file}: weight {name!r} has values that are not finite")
        found[ours] = weight
    try:
        config = _config(found, passes, _dilations(graph))
    except KeyError as error:
        raise ValueError(f"{file} is no voice of hibari-tts: it has no weight {error}") from error
    return config, found


def _plain(tensors: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Weights that the file names."""
    return ((name, value) for name, value in tensors.items() if name.startswith(("m.", "pn.")))


def _products(graph: Any, tensors: dict[str, Any], passes: Counter[str]) -> Iterator[tuple[str, Any]]:
    """Weights of matrix products, which have the names of nodes: each is called after the bias that it comes with.

    A product is MatMulInteger, Cast and Mul; Add then adds the bias. ``passes`` counts the products of each weight.
    """
    maker = {output: node for node in graph.node for output in node.output}
    for node in graph.node:
        if node.op_type != "Add":
            continue
        bias = next((name for name in node.input if name.startswith(("m.", "pn.")) and "bias" in name), None)
        product = next((maker[name] for name in node.input if name in maker), None)
        if bias is None or product is None or product.op_type != "Mul":
            continue
        cast = next(maker[name] for name in product.input if maker[name].op_type == "Cast")
        values, zero = (maker[cast.input[0]].input[index] for index in (1, 3))
        scale = tensors[values.removesuffix("_quantized") + "_scale"]
        name = re.sub(r"[._]?bias$", lambda match: match[0].replace("bias", "weight"), bias)
        passes[name] += 1
        if passes[name] == 1:
            whole = tensors[values].astype(np.int32) - tensors[zero].astype(np.int32)
            yield name, (whole.astype(np.float32) * scale).T  # stored as (in, out)


def _dilations(graph: Any) -> tuple[int, ...]:
    """Of the convolutions over units, in order."""
    return tuple(
        attribute.ints[0]
        for node in graph.node
        if node.op_type == "Conv" and re.fullmatch(r"pn\.pro\.\d+\.dw\.weight", node.input[1])
        for attribute in node.attribute
        if attribute.name == "dilations"
    )


# Convolutions in the file, over one step or few, that are linear layers here.
_FLATTENED = ("duration_in.weight", "duration_out.weight", "curves_in.weight", "curves_out.weight")
_NAMES = (
    (r"^m\.text\.", "text."),
    (r"^pn\.text\.", "prosody.text."),
    (r"text\.emb\.", "text.embedding."),
    (r"text\.convs\.", "text.convolutions."),
    (r"text\.attn\.", "text.layer."),
    (r"self_attn\.in_proj_", "qkv."),
    (r"self_attn\.out_proj\.", "out."),
    (r"linear1\.", "expand."),
    (r"linear2\.", "contract."),
    (r"^pn\.dur\.0\.", "prosody.duration_in."),
    (r"^pn\.dur\.2\.", "prosody.duration_out."),
    (r"^pn\.pro_in\.", "prosody.curves_in."),
    (r"^pn\.pro\.", "prosody.curves."),
    (r"^pn\.pro_out\.", "prosody.curves_out."),
    (r"^m\.dec_in\.", "decoder.stages.1."),
    (r"^m\.dec\.", "decoder.stages.2.blocks."),
    (r"^m\.dec_norm\.", "decoder.stages.3."),
    (r"^m\.head\.", "decoder.stages.4."),
    (r"\.dw\.", ".depthwise."),
    (r"\.pw1\.", ".expand."),
    (r"\.pw2\.", ".contract."),
    (r"\.gamma$", ".scale"),
)


def _renamed(name: str) -> str:
    for pattern, replacement in _NAMES:
        name = re.sub(pattern, replacement, name)
    return name


def _config(weights: dict[str, Tensor], passes: Counter[str], dilations: tuple[int, ...]) -> HibariConfig:
    """Sizes that the weights tell. That they fit together is checked when they are loaded.

    Raises:
        KeyError: a weight is missing.
    """

    def text(prefix: str, file_prefix: str) -> TextEncoderConfig:
        embedding = weights[f"{prefix}embedding.weight"]
        return TextEncoderConfig(
            dim=embedding.shape[1],
            hidden=weights[f"{prefix}layer.expand.bias"].shape[0],
            passes=passes[f"{file_prefix}attn.linear1.weight"],
            phones=embedding.shape[0],
            convolutions=_count(weights, f"{prefix}convolutions."),
            kernel=weights[f"{prefix}convolutions.0.depthwise.weight"].shape[2],
        )

    prosody = ProsodyConfig(
        text("prosody.text.", "pn.text."),
        dilations,
        weights["prosody.curves.0.expand.bias"].shape[0],
        weights["prosody.curves.0.depthwise.weight"].shape[2],
    )
    dim, inputs, kernel = weights["decoder.stages.1.weight"].shape
    decoder = DecoderConfig(
        inputs,
        dim,
        weights["decoder.stages.2.blocks.0.expand.bias"].shape[0],
        _count(weights, "decoder.stages.2.blocks."),
        kernel,
        weights["decoder.stages.4.bias"].shape[0] // 5,
    )
    return HibariConfig(text("text.", "m.text."), prosody, decoder)


def _count(weights: dict[str, Tensor], prefix: str) -> int:
    return len({name.removeprefix(prefix).partition(".")[0] for name in weights if name.startswith(prefix)})
