"""Makes `tts/assets/english` from the package hibari-tts: python tests/tts/frontend/make_english_assets.py

The lexicons and the tagger become sorted lines, which load in a tenth of the time of JSON and are read entry by entry;
the weights of the net for unknown words become half precision.
"""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import hibari
import numpy as np
import onnx
import safetensors.numpy
from onnx import numpy_helper

SOURCE = Path(hibari.__file__).parent / "assets"
TARGET = Path(__file__).parents[3] / "tts" / "assets" / "english"


def main() -> None:
    TARGET.mkdir(parents=True, exist_ok=True)
    for name in ("gold", "silver"):
        lexicon = read(f"lexicon_us_{name}.json.gz")
        write(f"{name}.tsv.gz", {word: entry(value) for word, value in lexicon.items()})
    tagger = read("tagger.json.gz")
    known = {word: tagger["tagdict"].get(word, "") for word in {*tagger["tagdict"], *tagger["vocab"]}}
    vocabulary = set(tagger["vocab"])
    write("words.tsv.gz", {word: f"{tag}\t{'*' if word in vocabulary else ''}" for word, tag in known.items()})
    write("tags.tsv.gz", {feature: weights(votes) for feature, votes in tagger["weights"].items()})
    exceptions = read("tokenizer_exceptions.json")
    write("exceptions.tsv.gz", {text: "\t".join(parts) for text, parts in exceptions.items() if text.split() == [text]})
    settings = json.loads((SOURCE / "oov.json").read_text("utf-8"))
    metadata = {"characters": "".join(settings["in"]), "phonemes": "".join(settings["out"])}
    safetensors.numpy.save_file(net(onnx.load(SOURCE / "oov.onnx")), TARGET / "unknown_words.safetensors", metadata)


def read(name: str) -> dict[str, Any]:
    data = (SOURCE / name).read_bytes()
    return json.loads(gzip.decompress(data) if name.endswith(".gz") else data)


def write(name: str, table: dict[str, str]) -> None:
    lines = sorted(f"{key}\t{value}" for key, value in table.items())
    assert not any("\n" in line for line in lines)
    (TARGET / name).write_bytes(gzip.compress("\n".join(lines).encode("utf-8"), mtime=0))


def entry(value: str | dict[str, str | None]) -> str:
    """The phonemes, or by part of speech "DEFAULT=jˈuzd VBD=jˈust"."""
    return value if isinstance(value, str) else " ".join(f"{tag}={ps or ''}" for tag, ps in sorted(value.items()))


def weights(votes: dict[str, float]) -> str:
    """In tenths, which they are multiples of: "NN=71 VB=-38"."""
    return " ".join(f"{tag}={round(10 * weight)}" for tag, weight in sorted(votes.items()))


def net(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    """Half-precision weights by the names of `unknown_words.UnknownWords`."""
    arrays = {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}
    products = [array.T for name, array in arrays.items() if "MatMul" in name]  # stored as (in, out), in order of use
    named = {
        "positions": arrays["m.pos"],
        "embedding.weight": arrays["m.emb.weight"],
        "norm.weight": arrays["m.norm.weight"],
        "norm.bias": arrays["m.norm.bias"],
        "head.weight": products[-1],
        "head.bias": arrays["m.head.bias"],
    }
    for layer in range(4):
        parts = {
            "qkv": "self_attn.in_proj_",
            "out": "self_attn.out_proj.",
            "expand": "linear1.",
            "contract": "linear2.",
        }
        for index, (ours, theirs) in enumerate(parts.items()):
            named[f"layers.{layer}.{ours}.weight"] = products[4 * layer + index]
            named[f"layers.{layer}.{ours}.bias"] = arrays[f"m.layers.{layer}.{theirs}bias"]
        for ours, theirs in (("attention_norm", "norm1"), ("feed_forward_norm", "norm2")):
            for kind in ("weight", "bias"):
                named[f"layers.{layer}.{ours}.{kind}"] = arrays[f"m.layers.{layer}.{theirs}.{kind}"]
    return {name: np.ascontiguousarray(array, dtype=np.float16) for name, array in named.items()}


if __name__ == "__main__":
    main()
