"""Reads the weights of a speech tokenizer from its ONNX file, where they are known by the nodes that use them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

# Nodes are named after the modules that they come from: "/blocks.0/attn/query/MatMul".
_MODULE = re.compile(
    r"/?(?:encoders?/)?(conv[12]|blocks\.\d{1,4}/(?:attn/(?:query|key|value|out|fsmn_block)|attn_ln|mlp_ln|mlp/mlp\.[02]))/"
)


def read_onnx_weights(file: Path) -> dict[str, Tensor]:
    """Weights under s3tokenizer's names, float32; the file's graph is not run.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, or a weight lies outside of it.
        ImportError: the package `onnx` is not installed.
    """
    try:
        import onnx
        from onnx import numpy_helper
    except ImportError as error:
        raise ImportError(
            'reading .onnx files needs the package onnx: in a checkout of loquent, pip install ".[cosyvoice]"'
        ) from error
    if not file.is_file():
        raise FileNotFoundError(f"no such file: {file}")
    weights = {}
    try:
        for name, constant in _weights(onnx.load(str(file), load_external_data=False).graph):
            array = numpy_helper.to_array(constant)
            # A MatMul has its matrix as (in, out).
            weights[name] = torch.from_numpy((array.T if array.ndim == 2 else array).copy()).float()
    except Exception as error:  # protobuf's own kinds, and whatever sizes that are not true lead to
        raise ValueError(f"not a sound ONNX file: {error}") from error
    return weights


def _weights(graph: Any) -> Iterator[tuple[str, Any]]:
    """(name, constant) of every weight that a node uses."""
    constants = {one.name: one for one in graph.initializer}
    spelt_out = [node for node in graph.node if node.op_type == "Constant"]
    constants |= {node.output[0]: one.t for node in spelt_out for one in node.attribute if one.name == "value"}
    for node in graph.node:
        # What is a single number is an epsilon or a scale.
        used = [one for name in node.input if (one := constants.get(name)) and list(one.dims) not in ([], [1])]
        if not used:
            continue
        if "quantizer" in node.name or "project_in" in node.name:
            if node.op_type in ("MatMul", "Add"):
                yield f"quantizer.project_down.{'weight' if node.op_type == 'MatMul' else 'bias'}", used[0]
        elif match := _MODULE.match(node.name):
            module = "encoder." + match[1].replace("mlp/mlp.", "mlp.").replace("/", ".")
            if node.op_type in ("Conv", "LayerNormalization"):
                yield from zip((f"{module}.weight", f"{module}.bias"), used, strict=False)
            elif node.op_type in ("MatMul", "Mul"):  # Mul: of a layer norm that is spelt out
                yield f"{module}.weight", used[0]
            elif node.op_type == "Add":
                yield f"{module}.bias", used[0]
