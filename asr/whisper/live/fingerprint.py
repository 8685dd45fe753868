"""Which live recognisers continue each other's streams."""

from __future__ import annotations

import hashlib
from dataclasses import replace

from loquent.asr.whisper.live.options import StreamingOptions
from loquent.asr.whisper.model import Whisper


def fingerprint(model: Whisper, options: StreamingOptions) -> str:
    """Differs between models and options whose streams do not continue each other."""
    shared = replace(options, language=None)  # each stream knows its own
    settings = (model.config, model.decoder.int8_vocabulary is None, model.merged, shared)
    digest = hashlib.sha256(repr(settings).encode())
    for weight in (model.encoder.ln_post.weight, model.decoder.ln.weight):
        digest.update(weight.detach().float().cpu().numpy().tobytes())
    return digest.hexdigest()
