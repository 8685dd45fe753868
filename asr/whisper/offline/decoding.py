"""Decode windows of up to 30 s: greedy, sampling or beam search over many windows at once.

A window's result does not depend on the windows it shares a batch with: every hypothesis is a slot of the decoder's
pool, hypotheses of a window share its slot of audio, sampling draws from a generator of the window's own, and a window
that is done leaves the batch. Semantics are those of openai/whisper `decoding.py` and, where that differs, of
faster-whisper.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from loquent.asr.whisper.beam_search import BeamSearch, DecodingOptions
from loquent.asr.whisper.model import Whisper
from loquent.asr.whisper.offline.logit_filters import logit_filters
from loquent.asr.whisper.states import AudioMemory
from loquent.asr.whisper.tokenizer import WhisperTokenizer
from loquent.kernels.best_tokens import top_tokens
from loquent.speech.nn.streaming import Chunk
from loquent.speech.text.languages import language_code


@dataclass(frozen=True)
class DecodingResult:
    """What was decoded from one window."""

    tokens: tuple[int, ...]  # without the prompt and the end token; the prefix and timestamps included
    text: str
    language: str
    avg_logprob: float  # per token, the end included
    no_speech_prob: float  # that the window holds no speech
    temperature: float
    compression_ratio: float  # of the text under zlib; above 2.4 it repeats itself
    logprobs: tuple[float, ...]  # of each token; those of a prefix were given and have 0


class WindowDecoder:
    """Encodes and decodes windows with one model."""

    def __init__(self, model: Whisper, tokenizer: WhisperTokenizer) -> None:
        tokenizer.check_model(model.config.n_vocab)
        self.model, self.tokenizer = model, tokenizer
        self.window = 2 * model.config.n_audio_ctx  # log-mel frames, 3000 for 30 s

    def encode(self, windows: Sequence[Tensor]) -> AudioMemory:
        """Normalised log-mel windows, each (T, F), to the keys and values that the decoder reads, a slot a window.

        They are encoded one by one: a window keeps all cores busy, and more would only take more memory.
        """
        decoder = self.model.decoder
        capacity = max(-(-len(mel) // 2) for mel in windows)
        memory = decoder.initial_memory(len(windows), capacity)
        for slot, mel in enumerate(windows):
            decoder.set_audio(self.model.encoder(mel[None].to(memory.frames.device))[0], memory, slot)
        return memory

    def detect_language(self, memory: AudioMemory, rows: Sequence[int]) -> list[dict[str, float]]:
        """Probability of each language, by code, in the windows of the given slots, most probable first.

        English-only models know one: {"en": 1.0}.
        """
        languages = self.tokenizer.language_tokens
        if not languages:
            return [{"en": 1.0} for _ in rows]
        decoder = self.model.decoder
        state = decoder.initial_state(len(rows), capacity=1)
        chunk = Chunk.of(torch.full((len(rows), 1), self.tokenizer.sot, device=state.position.device))
        hidden, _ = decoder.step(chunk, state, _index(range(len(rows)), state), memory, _index(rows, state))
        scores = decoder.logits(hidden[:, 0])[:, list(languages.values())].softmax(-1)
        return [dict(sorted(zip(languages, row, strict=True), key=lambda pair: -pair[1])) for row in scores.tolist()]

    def decode(
        self, memory: AudioMemory, rows: Sequence[int], options: Sequence[DecodingOptions]
    ) -> list[DecodingResult]:
        """Decode windows.

        Args:
            memory: as `encode` returned it.
            rows: the windows' slots in ``memory``.
            options: of each window. What concerns the search (beam, temperature, suppression, timestamps) must be the
                same for all; language, mode, prompt, prefix and seed are each window's own.

        Raises:
            ValueError: a language is unknown, a prefix is too long, or options that must agree differ.
        """
        options = self._with_languages(memory, rows, options)
        shared = {_shared(one) for one in options}
        if len(shared) > 1:
            raise ValueError("windows decoded together differ in more than language, mode, prompt, prefix and seed")
        searches = [self._search(one, index) for index, one in enumerate(options)]
        no_speech = self._run(searches, memory, rows, options[0]) if searches else []
        return [
            self._result(search, one, silence)
            for search, one, silence in zip(searches, options, no_speech, strict=True)
        ]

    def _with_languages(
        self, memory: AudioMemory, rows: Sequence[int], options: Sequence[DecodingOptions]
    ) -> list[DecodingOptions]:
        unknown = [index for index, one in enumerate(options) if one.language is None]
        found = self.detect_language(memory, [rows[index] for index in unknown]) if unknown else []
        detected = {index: next(iter(table)) for index, table in zip(unknown, found, strict=True)}
        return [
            replace(one, language=detected.get(index) or language_code(one.language or "en"))
            for index, one in enumerate(options)
        ]

    @property
    def longest_prefix(self) -> int:
        """Tokens that a prefix may have."""
        return self.model.config.n_text_ctx // 2 - 1

    def _search(self, options: DecodingOptions, index: int) -> BeamSearch:
        """The search of one window, and what the decoder is given before it.

        With timestamps, a prefix begins where the window does, as in faster-whisper: it is text that has been written.
        """
        tokenizer, capacity = self.tokenizer, self.model.decoder.capacity
        prefix = list(options.prefix)
        if len(prefix) > self.longest_prefix:
            raise ValueError(f"prefix: expected at most {self.longest_prefix} tokens, got {len(prefix)}; shorten it")
        if prefix and not options.without_timestamps:
            prefix.insert(0, tokenizer.timestamp_begin)
        sot = tokenizer.sot_sequence(options.language or "en", options.mode, timestamps=not options.without_timestamps)
        most = capacity // 2 - 1
        if prefix:  # the window's own text needs room behind both
            most = min(most, capacity - capacity // 4 - len(sot) - len(prefix) - 1)
        before = [tokenizer.sot_prev, *options.prompt[-most:]] if options.prompt else []
        return BeamSearch([*before, *sot, *prefix], options, index, prefix)

    def _run(
        self, searches: list[BeamSearch], memory: AudioMemory, rows: Sequence[int], options: DecodingOptions
    ) -> list[float]:
        """Decode all windows to their ends; returns each one's probability of no speech."""
        decoder, tokenizer = self.model.decoder, self.tokenizer
        longest = max(len(search.prompt) for search in searches)
        most = options.sample_len or decoder.capacity // 2
        capacity = min(decoder.capacity, longest + min(most, 48))
        state = decoder.initial_state(len(searches) * options.hypotheses, capacity)
        filters = logit_filters(tokenizer, options, state.position.device)

        # The prompts go through one row a window.
        lengths = torch.tensor([len(search.prompt) for search in searches], device=state.position.device)
        prompts = torch.full((len(searches), longest), tokenizer.eot, device=lengths.device)
        for row, search in zip(prompts, searches, strict=True):
            row[: len(search.prompt)] = torch.tensor(search.prompt)
        chunk = Chunk(prompts, lengths, torch.zeros_like(lengths, dtype=torch.bool))
        first = _index([search.hypotheses[0].slot for search in searches], state)
        hidden, _ = decoder.step(chunk, state, first, memory, _index(rows, state))
        window = torch.arange(len(searches), device=lengths.device)
        start = _index([search.prompt.index(tokenizer.sot) for search in searches], state)
        no_speech = decoder.logits(hidden[window, start]).softmax(-1)[:, tokenizer.no_speech].tolist()
        hidden = hidden[window, lengths - 1]

        active = list(enumerate(searches))
        while True:
            written = [search.prefix + one.tokens for _, search in active for one in search.hypotheses]
            logits = decoder.logits(hidden)
            for logit_filter in filters:
                logit_filter(logits, written)
            if not options.without_timestamps:
                # A text that ends with its prefix says when, so that what is said after it is not lost.
                prefixed = [bool(search.prefix) and not one.tokens for _, search in active for one in search.hypotheses]
                logits[prefixed, tokenizer.eot] = -torch.inf
            scores, tokens = self._candidates(logits, [search for _, search in active], options)
            copies, at = [], 0
            for _, search in active:
                count = len(search.hypotheses)
                copies += search.advance(
                    scores[at : at + count], tokens[at : at + count], tokenizer.eot, most, decoder.capacity
                )
                at += count
            active = [(index, search) for index, search in active if not search.done]
            if not active:
                return no_speech
            position = max(len(search.prompt) + search.length for _, search in active)
            state.copy(copies, position - 1)
            if position > state.capacity:
                state = state.resized(min(decoder.capacity, 2 * state.capacity))
            hypotheses = [hypothesis for _, search in active for hypothesis in search.hypotheses]
            newest = torch.tensor([[hypothesis.tokens[-1]] for hypothesis in hypotheses], device=lengths.device)
            slots = _index([hypothesis.slot for hypothesis in hypotheses], state)
            audio = _index([rows[index] for index, search in active for _ in search.hypotheses], state)
            hidden = decoder.step(Chunk.of(newest), state, slots, memory, audio)[0][:, 0]

    def _candidates(
        self, logits: Tensor, searches: list[BeamSearch], options: DecodingOptions
    ) -> tuple[np.ndarray, np.ndarray]:
        """Log-probability and token of each hypothesis' continuations, (B, N) each, best first at temperature 0."""
        if options.temperature == 0:
            scores, tokens = top_tokens(logits, 2 * options.beam_size if options.beam_size > 1 else 1)
        else:
            cumulative = (logits / options.temperature).softmax(-1).cumsum(-1)
            draws = torch.cat([search.draw() for search in searches]).to(logits.device)
            tokens = torch.searchsorted(cumulative, draws * cumulative[:, -1:]).clamp(max=logits.shape[1] - 1)
            scores = logits.gather(1, tokens) - logits.logsumexp(-1, keepdim=True)
        return scores.cpu().numpy().astype(np.float64), tokens.cpu().numpy()

    def _result(self, search: BeamSearch, options: DecodingOptions, no_speech_prob: float) -> DecodingResult:
        written, logprobs, score = search.best()
        tokens = search.prefix + written
        text = self.tokenizer.decode(tokens).strip()
        return DecodingResult(
            tokens=tuple(tokens),
            text=text,
            language=options.language or "en",
            avg_logprob=score / (len(written) + 1),
            no_speech_prob=no_speech_prob,
            temperature=options.temperature,
            compression_ratio=compression_ratio(text),
            logprobs=(*(0.0 for _ in search.prefix), *logprobs),
        )


def compression_ratio(text: str) -> float:
    """Bytes of a text over its bytes under zlib."""
    data = text.encode()
    return len(data) / len(zlib.compress(data))


def _shared(options: DecodingOptions) -> DecodingOptions:
    return replace(options, language="en", mode="transcribe", prompt=(), prefix=(), seed=0)


def _index(values: Sequence[int], state: object) -> Tensor:
    return torch.tensor(list(values), dtype=torch.long, device=state.position.device)  # type: ignore[attr-defined]
