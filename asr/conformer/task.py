"""Streaming recognition with a Conformer: one chunk of audio, features, encoder, search, words.

Files go the same way in longer steps: what a stream says does not depend on how its audio is cut.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor

from loquent.asr.conformer.adaptive import AdaptiveConformerEncoder
from loquent.asr.conformer.encoder import SUBSAMPLING, ConformerState
from loquent.asr.conformer.model import ConformerModel
from loquent.asr.conformer.tokenizer import SubwordTokenizer
from loquent.asr.search.biasing import Biasing
from loquent.asr.search.ctc import CTCBeamSearch, CTCGreedySearch
from loquent.asr.search.language_model import Fusion
from loquent.asr.search.tokens import Advance, BeamOptions, SearchMemo, Token, TokenSearch
from loquent.asr.search.transducer_beam import TransducerBeamSearch
from loquent.asr.search.transducer_greedy import TransducerGreedySearch
from loquent.speech.audio.endpoint import (
    DEFAULT_RULES,
    Endpoint,
    Endpointer,
    EndpointMemory,
    EndpointRule,
    SpeechOptions,
)
from loquent.speech.nn.state import State
from loquent.speech.nn.streaming import ChainState, Chunk
from loquent.speech.runtime.events import Endpoint as EndpointEvent
from loquent.speech.runtime.events import Event, Final, Partial, Word
from loquent.speech.text.languages import language_code

FRAME_S = 0.01 * SUBSAMPLING
FRAME_MS = 10 * SUBSAMPLING
MAX_PHRASES, MAX_PHRASE, MAX_PHRASE_TOKENS = 1000, 200, 10_000  # of one stream; characters of each; in all
MAX_BOOST = 100.0  # nats

# Tokens take the place of speech: a frame has speech if a token was found in it.
TOKENS = SpeechOptions(frame_s=FRAME_S, min_speech_s=0.0, min_silence_s=FRAME_S, padding_s=0.0)
CONFORMER_RULES = (
    *(rule for rule in DEFAULT_RULES if rule.name != "long utterance"),
    EndpointRule("long utterance", silence_s=0.4, utterance_s=20.0),  # tokens are further apart than sounds
    EndpointRule("longest utterance", silence_s=0.0, utterance_s=30.0),
)

Head = Literal["ctc", "transducer"]


@dataclass(frozen=True)
class ConformerOptions:
    """How audio is turned into text.

    language:  code or English name; it has to be the model's.
    head:      "transducer" or "ctc"; the first that the model has.
    chunk_ms:  audio that is encoded together, 80 ms · (look-ahead + 1); one of the latencies that the model was made
               for, by default its first. A stream may choose another.
    beam_size: hypotheses that are followed; 1 is greedy.
    rules:     when an utterance ends; silence is what brings no tokens.
    """

    language: str | None = None
    head: Head | None = None
    chunk_ms: int | None = None
    beam_size: int = 1
    rules: tuple[EndpointRule, ...] = CONFORMER_RULES

    def __post_init__(self) -> None:
        if self.head not in (None, "ctc", "transducer"):
            raise ValueError(f"unknown head {self.head!r}; expected 'ctc' or 'transducer'")
        if not 1 <= self.beam_size <= 64:
            raise ValueError(f"beam_size must be from 1 to 64, got {self.beam_size}")


@dataclass
class ConformerMemo:
    """What the recogniser remembers of a stream besides tensors.

    lookahead, following: of the chunk under way and of those after it, in encoder frames.
    search:    the search's own memo.
    samples:   of audio heard.
    frames:    encoder frames searched.
    word:      tokens of the word under way.
    utterance: committed text since the last `Final`, and when it began and ended in seconds.
    shown:     the last `Partial`, not to be repeated.
    """

    lookahead: int
    following: int
    search: SearchMemo
    samples: int = 0
    frames: int = 0
    endpoint: EndpointMemory = field(default_factory=EndpointMemory)
    word: list[Token] = field(default_factory=list)
    utterance: str = ""
    utterance_start: float = 0.0
    utterance_end: float = 0.0
    shown: tuple[str, str] = ("", "")

    def to_dict(self) -> dict[str, Any]:
        """JSON-able values."""
        values = vars(self) | {"endpoint": vars(self.endpoint), "search": self.search.to_dict()}
        return values | {"word": [list(token) for token in self.word]}


@dataclass
class ConformerStreamState(State):
    """Pool of streams."""

    features: ChainState
    encoder: Any  # ConformerState or AdaptiveState
    search: State


class ConformerStreamingTask:
    """A `StreamingTask` that recognises speech (see `loquent.speech.runtime.session`)."""

    sample_rate = 16_000

    def __init__(
        self,
        model: ConformerModel,
        tokenizer: SubwordTokenizer,
        options: ConformerOptions | None = None,
        fusion: Fusion | None = None,
    ) -> None:
        """A task of its own for one choice of options.

        Args:
            fusion: a language model that joins the beam.

        Raises:
            ValueError: the model has no such head or latency, or there is no beam to join.
        """
        self.model, self.tokenizer, self.options = model, tokenizer, options or ConformerOptions()
        self.search = _search(model, self.options, fusion)
        self.lookaheads = offered_lookaheads(model)
        self.lookahead = self._lookahead(self.options.chunk_ms)
        self.fingerprint = _fingerprint(model, tokenizer, self.options)

    def initial_state(self, slots: int) -> ConformerStreamState:
        """Pool of ``slots`` streams."""
        return ConformerStreamState(
            self.model.features.initial_state(slots),
            self.model.encoder.initial_state(slots),
            self.search.initial_state(slots),
        )

    def start(
        self,
        language: str | None = None,
        task: str = "transcribe",
        chunk_ms: int | None = None,
        phrases: Sequence[str] = (),
        phrase_boost: float = 2.0,
    ) -> ConformerMemo:
        """Options of one stream.

        Args:
            language: code or English name; it has to be the model's.
            task: "transcribe": these models do not translate.
            chunk_ms: as `ConformerOptions.chunk_ms`, for this stream.
            phrases: names and terms to prefer, at most 1000.
            phrase_boost: what a matching token gains, in nats.

        Raises:
            ValueError: an option is wrong, or the model cannot do what is asked.
        """
        language = language or self.options.language
        if language and (not isinstance(language, str) or language_code(language) != self.model.config.language):
            raise ValueError(f"this model recognises {self.model.config.language!r} only, not {language!r}")
        if task != "transcribe":
            raise ValueError(f"this model can only 'transcribe', not {task!r}")
        lookahead = self.lookahead if chunk_ms is None else self._lookahead(chunk_ms)
        return ConformerMemo(lookahead, lookahead, self.search.start(self._biasing(phrases, phrase_boost)))

    def configure(self, memo: ConformerMemo, chunk_ms: int | None = None) -> None:
        """Change the latency of a stream from its next chunk on.

        Raises:
            ValueError: the model was not made for it.
        """
        if chunk_ms is not None:
            memo.following = self._lookahead(chunk_ms)

    def restore(self, values: dict[str, Any]) -> ConformerMemo:
        """Inverse of ``ConformerMemo.to_dict``.

        Raises:
            ValueError: the values are not those of such a stream.
        """
        try:
            values = dict(values)
            values["endpoint"] = EndpointMemory(**values["endpoint"])
            values["word"] = [Token(*token) for token in values["word"]]
            values["shown"] = tuple(values["shown"])
            values["search"] = SearchMemo.from_dict(values["search"])
            memo = ConformerMemo(**values)
            tokens = [*memo.word, *(token for one in memo.search.hypotheses for token in one.tokens)]
            sound = (
                {memo.lookahead, memo.following} <= set(self.lookaheads)
                and all(type(count) is int and count >= 0 for count in (memo.frames, memo.samples))
                and all(0 <= token.id < self.tokenizer.vocab_size for token in tokens)
                and len(memo.search.hypotheses) <= self.options.beam_size
                and all(isinstance(text, str) for text in (memo.utterance, *memo.shown))
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"not the memo of a Conformer's stream: {error}") from error
        if not sound:
            raise ValueError("not the memo of a stream of this Conformer: its values are out of range")
        return memo

    def samples_wanted(self, memo: ConformerMemo) -> int:
        """Samples that complete the next chunk."""
        first, period = self._samples_until(1), self._samples_until(2) - self._samples_until(1)
        heard = max((memo.samples - first) // period + 1, 0)  # frames; an adaptive encoder may not have given all
        return self._samples_until(heard + memo.lookahead + 1) - memo.samples

    def step(
        self, samples: Chunk, state: ConformerStreamState, rows: Tensor, memos: list[ConformerMemo]
    ) -> list[list[Event]]:
        """Advance every stream by its next samples: one chunk of a live stream, many of a file."""
        model, device = self.model, self.model.encoder.subsampling.out.weight.device
        for memo, length in zip(memos, samples.length.tolist(), strict=True):
            memo.samples += length
        samples = samples.to(device)
        rows = rows.to(device)
        if isinstance(state.encoder, ConformerState):
            chosen = [self.lookaheads.index(memo.lookahead) for memo in memos]
            state.encoder.following[rows] = torch.tensor(chosen, device=device)
        mel = model.features.step(samples, state.features, rows)
        encoded = model.encoder.step(mel.with_data(model.normalize(mel.data)), state.encoder, rows)

        events: list[list[Event]] = [[] for _ in memos]
        # Where an endpoint changes nothing for the search, it may run ahead of them; else it goes chunk by chunk.
        ahead = isinstance(self.search, CTCGreedySearch) and not any(memo.search.biasing for memo in memos)
        size = max(memo.lookahead for memo in memos) + 1
        whole = self.search.step(encoded, state.search, rows, [memo.search for memo in memos]) if ahead else []
        lengths, lasts = encoded.length.tolist(), encoded.last.tolist()
        for begin in range(0, max(*lengths, 1), size):
            part = _part(encoded, begin, size)
            if not ahead:
                whole = self.search.step(part, state.search, rows, [memo.search for memo in memos])
            for row, memo in enumerate(memos):
                end = memo.frames + min(max(lengths[row] - begin, 0), size)
                last = lasts[row] and begin + size >= lengths[row]
                advance = _until(whole[row], end, last) if ahead else whole[row]
                self._follow(memo, advance, end, last, state, rows[row : row + 1], events[row])
        for memo in memos:
            memo.lookahead = memo.following
        return events

    # --------------------------------------------------------------------------------------------------------- the text

    def _follow(
        self,
        memo: ConformerMemo,
        advance: Advance,
        end: int,
        last: bool,
        state: ConformerStreamState,
        row: Tensor,
        events: list[Event],
    ) -> None:
        """Take up what the search found up to frame ``end``; finish the utterance if it is over."""
        found = {token.frame for token in (*advance.committed, *advance.open)}
        waiting = list(advance.committed)
        endpointer = Endpointer(TOKENS, self.options.rules, memo.endpoint)
        for frame in range(memo.frames, end):
            while waiting and waiting[0].frame <= frame:  # or before this chunk: a beam makes up its mind late
                self._take(memo, waiting.pop(0), events)
            for decision in endpointer.feed(float(frame in found)):
                if isinstance(decision, Endpoint) and not any(token.frame > frame for token in advance.open):
                    for token in self.search.flush(state.search, row, [memo.search])[0].committed:
                        self._take(memo, token, events)
                    if self._finalise(memo, events):
                        events.append(EndpointEvent(rule=decision.rule, time=decision.time_s))
                    advance = Advance(advance.committed, [])
        memo.frames = end
        for token in waiting:  # of no new frames
            self._take(memo, token, events)
        if last:
            self._finalise(memo, events)
        else:
            self._show(memo, advance.open, events)

    def _take(self, memo: ConformerMemo, token: Token, events: list[Event]) -> None:
        """A token that will not change any more."""
        if memo.word and self.tokenizer.is_word_start(token.id):
            self._end_word(memo, events)
        memo.word.append(token)

    def _end_word(self, memo: ConformerMemo, events: list[Event]) -> None:
        tokens, memo.word = memo.word, []
        text = self._text(tokens)
        if not text:  # a word mark and nothing after it
            return
        # A frame hears the 80 ms before it.
        start = max((tokens[0].frame - 1) * FRAME_S, memo.utterance_end if memo.utterance else 0.0, 0.0)
        end = max(tokens[-1].frame * FRAME_S, start)
        memo.utterance_start = memo.utterance_start if memo.utterance else start
        memo.utterance_end = end
        memo.utterance += " " + text
        confidence = sum(token.probability for token in tokens) / len(tokens)
        events.append(Word(text=" " + text, start=start, end=end, confidence=confidence))

    def _show(self, memo: ConformerMemo, open: Sequence[Token], events: list[Event]) -> None:
        """Report the utterance so far if it reads differently now."""
        word, both = self._text(memo.word), self._text([*memo.word, *open])
        stable = memo.utterance + (" " + word if word else "")
        unstable = both.removeprefix(word) if word else " " + both if both else ""
        if (stable, unstable) != memo.shown:
            events.append(Partial(stable=stable, unstable=unstable))
            memo.shown = (stable, unstable)

    def _finalise(self, memo: ConformerMemo, events: list[Event]) -> bool:
        """Close the utterance; whether there was one."""
        if memo.word:
            self._end_word(memo, events)
        said = bool(memo.utterance.strip())
        if said:
            events.append(Final(text=memo.utterance.strip(), start=memo.utterance_start, end=memo.utterance_end))
        memo.utterance, memo.shown = "", ("", "")
        return said

    def _text(self, tokens: Sequence[Token]) -> str:
        return self.tokenizer.decode(token.id for token in tokens)

    # -------------------------------------------------------------------------------------------------------- the rest

    def _samples_until(self, frames: int) -> int:
        return self.model.features.inputs_for(self.model.encoder.subsampling.inputs_for(frames)) if frames else 0

    def _lookahead(self, chunk_ms: int | None) -> int:
        if chunk_ms is None:
            return self.lookaheads[0]
        for lookahead in self.lookaheads:
            if chunk_ms == (lookahead + 1) * FRAME_MS:
                return lookahead
        known = ", ".join(str((lookahead + 1) * FRAME_MS) for lookahead in sorted(self.lookaheads))
        raise ValueError(f"this model works on chunks of {known} ms, not {chunk_ms!r}")

    def _biasing(self, phrases: Sequence[str], boost: float) -> Biasing | None:
        if isinstance(phrases, str) or not all(isinstance(phrase, str) for phrase in phrases):
            raise ValueError(f"phrases must be a list of texts, got {phrases!r}")
        if len(phrases) > MAX_PHRASES or any(len(phrase) > MAX_PHRASE for phrase in phrases):
            raise ValueError(f"at most {MAX_PHRASES} phrases of {MAX_PHRASE} characters, got {len(phrases)}")
        if isinstance(boost, bool) or not isinstance(boost, int | float) or not 0 < boost <= MAX_BOOST:
            raise ValueError(f"phrase_boost must be above 0 and at most {MAX_BOOST} nats, got {boost!r}")
        tokens = [self._tokens_of(phrase) for phrase in phrases if phrase.strip()]
        if sum(map(len, tokens)) > MAX_PHRASE_TOKENS:
            raise ValueError(f"phrases may have {MAX_PHRASE_TOKENS} tokens in all, got {sum(map(len, tokens))}")
        return Biasing.of(tokens, boost) if tokens else None

    def _tokens_of(self, phrase: str) -> list[int]:
        """Tokens of a phrase, in small letters if the model writes no capitals."""
        for spelling in (phrase, phrase.lower()):
            tokens = self.tokenizer.encode(spelling)
            if self.tokenizer.unknown not in tokens:
                return tokens
        raise ValueError(f"the phrase {phrase!r} has characters that this model cannot write")


def offered_lookaheads(model: ConformerModel) -> tuple[int, ...]:
    """What streams can choose from, in encoder frames; an adaptive encoder takes one frame after the other."""
    return (0,) if isinstance(model.encoder, AdaptiveConformerEncoder) else model.encoder.config.lookaheads


def _search(model: ConformerModel, options: ConformerOptions, fusion: Fusion | None) -> TokenSearch:
    if fusion is not None and options.beam_size == 1:
        raise ValueError("a language model joins a beam: pass beam_size of 2 or more with it")
    head = options.head or ("transducer" if model.transducer else "ctc")
    beam = BeamOptions(options.beam_size)
    if head == "ctc" and model.ctc is not None:
        return CTCGreedySearch(model.ctc) if options.beam_size == 1 else CTCBeamSearch(model.ctc, beam, fusion)
    if head == "transducer" and model.transducer is not None:
        if options.beam_size == 1:
            return TransducerGreedySearch(model.transducer)
        return TransducerBeamSearch(model.transducer, beam, fusion)
    raise ValueError(f"this model has no {head} head")


def _part(encoded: Chunk, begin: int, size: int) -> Chunk:
    """Frames begin … begin + size - 1 of each row; a stream that ends does so with its last part."""
    length = (encoded.length - begin).clamp(0, size)
    last = encoded.last & (encoded.length <= begin + size)
    return encoded.with_data(encoded.data[:, begin : begin + size], length, last)


def _until(advance: Advance, frame: int, last: bool) -> Advance:
    """Take the committed tokens before ``frame`` out of an advance."""
    taken = [token for token in advance.committed if last or token.frame < frame]
    del advance.committed[: len(taken)]
    return Advance(taken, [])


def _fingerprint(model: ConformerModel, tokenizer: SubwordTokenizer, options: ConformerOptions) -> str:
    """Differs between models and options whose streams do not continue each other."""
    shared = replace(options, language=None)  # each stream knows its own
    digest = hashlib.sha256(repr((model.config, shared)).encode() + tokenizer.to_bytes())
    for name, weight in model.state_dict().items():
        if name.endswith(("norm_out.weight", "subsampling.out.bias", "ctc.out.bias", "joiner.out.bias")):
            digest.update(weight.detach().float().cpu().numpy().tobytes())
    return digest.hexdigest()
