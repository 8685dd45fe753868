"""The model as streams go through it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch

from loquent.asr.whisper.adapter_bank import AdapterBank
from loquent.asr.whisper.live.draft_decoding import DraftDecoder
from loquent.asr.whisper.live.encoding import AudioEncoding, EncodedAudio, IncrementalEncoding, Reencoding
from loquent.asr.whisper.live.memo import WhisperMemo
from loquent.asr.whisper.live.options import StreamingOptions
from loquent.asr.whisper.live.token_runs import RunningDecoder
from loquent.asr.whisper.model import Whisper
from loquent.asr.whisper.tokenizer import WhisperTokenizer
from loquent.speech.nn.streaming import Chunk

WORTHWHILE = 250_000_000  # weights times streams of a step that keep a thread busy: 15 streams of tiny


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
        decode: DraftDecoder = DraftDecoder(
            model.decoder,
            tokenizer.eot,
            (*tokenizer.suppressed_tokens, tokenizer.no_timestamps, *languages, *timestamps),
            model.config.alignment_heads,
            lenient=incremental,
            beam_size=settings.beam_size,
            normalize=not incremental,
        )
        if model.decoder.ln.weight.device.type != "cpu" and settings.beam_size == 1:
            decode = RunningDecoder(decode, spare=incremental)
        return cls(IncrementalEncoding(model, settings.block) if incremental else Reencoding(model), decode)

    def languages(self, encoded: EncodedAudio, tokenizer: WhisperTokenizer) -> list[dict[str, float]]:
        """The score of each language in each stream, by code; what its decoder had in its cache is lost."""
        state, rows, memory, memory_rows, adapters = encoded
        state.position[rows] = 0
        sot = torch.full((len(rows), 1), tokenizer.sot, device=rows.device)
        decoder = self.decode.decoder
        hidden, _ = decoder.step(Chunk.of(sot), state, rows, memory, memory_rows, adapters=adapters)
        codes = list(tokenizer.language_tokens)
        scores = decoder.logits(hidden[:, 0])[:, list(tokenizer.language_tokens.values())]
        return [dict(zip(codes, row, strict=True)) for row in scores.tolist()]


class Networks:
    """The networks of a task: each stream goes through one of them, whoever else there is.

    Attributes:
        stock: of the model as it is, with adapters beside its weights.
    """

    def __init__(
        self, model: Whisper, tokenizer: WhisperTokenizer, settings: StreamingOptions, adapters: AdapterBank
    ) -> None:
        incremental = settings.policy == "incremental"
        self.stock = Network.of(model, tokenizer, settings)
        merged = adapters.merged() if incremental else None
        self._merged = merged and (merged[0], Network.of(merged[1], tokenizer, settings))
        layers = (*model.encoder.blocks.parameters(), *model.decoder.blocks.parameters())
        self._weights = sum(one.numel() for one in layers) if incremental else None

    def of_streams(self, some: Sequence[int], memos: Sequence[WhisperMemo]) -> Iterator[tuple[Network, list[int]]]:
        """Each network and those of the streams ``some`` that go through it, if any: through the one that has an
        adapter in its weights the streams with this adapter."""
        digest, merged = self._merged or (None, self.stock)
        for network, having in ((merged, True), (self.stock, False)):
            if mine := [i for i in some if (memos[i].adapter_digest == digest) is having]:
                yield network, mine

    def threads(self, streams: int) -> int:
        """Threads that a step of so many streams is worth: another one may have to be woken for every operation."""
        return torch.get_num_threads() if self._weights is None else 1 + streams * self._weights // WORTHWHILE
