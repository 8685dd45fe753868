"""The model as streams go through it."""

from __future__ import annotations

from typing import NamedTuple

import torch

from loquent.asr.whisper.live.draft_decoding import DraftDecoder
from loquent.asr.whisper.live.encoding import AudioEncoding, EncodedAudio, IncrementalEncoding, Reencoding
from loquent.asr.whisper.live.options import StreamingOptions
from loquent.asr.whisper.model import Whisper
from loquent.asr.whisper.tokenizer import WhisperTokenizer
from loquent.speech.nn.streaming import Chunk


class Network(NamedTuple):
    """How audio reaches the decoder, and how that writes."""

    encoding: AudioEncoding
    decode: DraftDecoder

    @classmethod
    def of(cls, model: Whisper, tokenizer: WhisperTokenizer, settings: StreamingOptions) -> Network:
        """The network of a model under these settings."""
        incremental = settings.policy == "incremental"
        timestamps = range(tokenizer.timestamp_begin, tokenizer.timestamp_end)
        languages = tokenizer.language_tokens.values()
        decode = DraftDecoder(
            model.decoder,
            tokenizer.eot,
            (*tokenizer.suppressed_tokens, tokenizer.no_timestamps, *languages, *timestamps),
            model.config.alignment_heads,
            lenient=incremental,
            beam_size=settings.beam_size,
        )
        return cls(IncrementalEncoding(model, settings.block) if incremental else Reencoding(model), decode)

    def languages(self, encoded: EncodedAudio, tokenizer: WhisperTokenizer) -> list[str]:
        """The most probable language of each stream, by code; what its decoder had in its cache is lost."""
        state, rows, memory, memory_rows, adapters = encoded
        state.position[rows] = 0
        sot = torch.full((len(rows), 1), tokenizer.sot, device=rows.device)
        decoder = self.decode.decoder
        hidden, _ = decoder.step(Chunk.of(sot), state, rows, memory, memory_rows, adapters=adapters)
        codes = list(tokenizer.language_tokens)
        scores = decoder.logits(hidden[:, 0])[:, list(tokenizer.language_tokens.values())]
        return [codes[best] for best in scores.argmax(-1).tolist()]
