"""A weaker adapter, between the model as it is and the model with the whole adapter.

    python -m loquent.recipes.whisper.scale_adapter runs/causal_tiny_en/best weaker --share 0.8

An adapter gets better at the kinds of speech that it was trained on and worse at others. With a part of its change a
model keeps most of the former and loses less of the latter. Source: WiSE-FT, Wortsman et al. 2022 (arXiv 2109.01903),
equation 1, whose start are the weights of the stock model.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from safetensors.torch import save_file

from loquent.asr.whisper.lora import CONFIG, WEIGHTS, load_adapter
from loquent.speech.hub import resolve_adapter
from loquent.speech.weight_files import read_weights


def main(arguments: Sequence[str] | None = None) -> None:
    """Write an adapter that changes a share of what another one does."""
    parser = argparse.ArgumentParser(prog="python -m loquent.recipes.whisper.scale_adapter", description=main.__doc__)
    parser.add_argument("adapter", metavar="ADAPTER", help="folder or hub id")
    parser.add_argument("output", metavar="FOLDER", type=Path, help="for the other one")
    parser.add_argument("--share", type=float, required=True, help="of its change, above 0 and at most 1")
    given = parser.parse_args(arguments)
    try:
        scale_adapter(given.adapter, given.output, given.share)
    except (ValueError, OSError) as error:
        sys.exit(str(error))


def scale_adapter(adapter: str, output: Path, share: float) -> None:
    """Multiply what an adapter adds to each weight.

    Args:
        adapter: folder or hub id.
        output: folder for the result, in PEFT's format and the precision of the original.
        share: above 0, at most 1.

    Raises:
        ValueError: the share is out of bounds, or the adapter is a DoRA, whose magnitudes are no sum.
    """
    if not 0 < share <= 1:
        raise ValueError(f"share: expected above 0 and at most 1, got {share}")
    if load_adapter(adapter).scales_weights:
        raise ValueError(f"{adapter} is a DoRA: a share of it is not defined")
    folder = resolve_adapter(adapter)
    file = folder / WEIGHTS
    if not file.is_file():
        raise ValueError(f"{folder} has no {WEIGHTS}; save the adapter with PEFT's save_pretrained")
    tensors = {
        name: (tensor.float() * share).to(tensor.dtype) if ".lora_B." in name else tensor
        for name, tensor in read_weights(file).items()
    }
    output.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(folder / CONFIG, output / CONFIG)
    save_file(tensors, output / WEIGHTS, metadata={"format": "pt"})


if __name__ == "__main__":
    main()
