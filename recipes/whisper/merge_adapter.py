"""An adapter merged into its model, as a plain checkpoint for transformers, faster-whisper and loquent itself.

python -m loquent.recipes.whisper.merge_adapter tiny.en runs/mine/best merged
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from loquent.asr.whisper.checkpoint import load_whisper
from loquent.asr.whisper.hugging_face import save_hugging_face
from loquent.asr.whisper.lora import load_adapter, merge
from loquent.asr.whisper.model import Whisper
from loquent.speech.hub import resolve


def main(arguments: Sequence[str] | None = None) -> None:
    """Merge an adapter into a Whisper and write the result in the format of the Hugging Face hub."""
    parser = argparse.ArgumentParser(prog="python -m loquent.recipes.whisper.merge_adapter", description=main.__doc__)
    parser.add_argument("model", metavar="MODEL", help="that the adapter was trained on: name, folder or hub id")
    parser.add_argument("adapter", metavar="ADAPTER", help="folder or hub id")
    parser.add_argument("output", metavar="FOLDER", help="for the checkpoint")
    given = parser.parse_args(arguments)
    try:
        adapter = load_adapter(given.adapter)
        if adapter.info.chunk_ms:
            raise ValueError(
                f"{given.adapter} is for live audio, for which the encoder works differently; no other program could "
                "use the model. Merge the adapter for recordings, and serve this one with --adapter"
            )
        checkpoint = load_whisper(resolve(given.model).path)
        model = Whisper.from_weights(checkpoint.config, checkpoint.weights)
        merge(model, adapter)
        save_hugging_face(given.output, model.config, model.state_dict(), checkpoint.tokenizer_files)
    except (ValueError, OSError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
