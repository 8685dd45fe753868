"""Streaming recognition with a Conformer: one chunk of audio, features, encoder, search, words.

Files go the same way in longer steps: what a stream says does not depend on how its audio is cut.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from loquent.asr.conformer.adaptive import AdaptiveConformerEncoder
from loquent.asr.conformer.device_step import Arrived, ConformerStep, ConformerStreamState, DeviceStep, frames_of
from loquent.asr.conformer.encoder import SUBSAMPLING
from loquent.asr.conformer.memo import ConformerMemo
from loquent.asr.conformer.model import ConformerModel
from loquent.asr.conformer.options import ConformerOptions, ConformerStreamOptions
from loquent.asr.conformer.restoring import check_memo
from loquent.asr.conformer.tokenizer import SubwordTokenizer
from loquent.asr.options import MAX_PHRASE_TOKENS, checked_options
from loquent.asr.search.biasing import Biasing
from loquent.asr.search.ctc import CTCBeamSearch, CTCGreedySearch
from loquent.asr.search.language_model import Fusion
from loquent.asr.search.tokens import Advance, BeamOptions, SearchMemo, Token, TokenSearch
from loquent.asr.search.transducer_beam import TransducerBeamSearch
from loquent.asr.search.transducer_greedy import TransducerGreedySearch
from loquent.asr.utterance import OpenUtterance
from loquent.speech.audio.endpoint import Endpointer, EndpointMemory, SpeechOptions, UtteranceEnd
from loquent.speech.nn.streaming import Chunk
from loquent.speech.nn.transfer import staged
from loquent.speech.runtime.events import Endpoint, Event, Word
from loquent.speech.runtime.task import Offer, Port, Turn, check_fixed
from loquent.speech.runtime.turns import Turns
from loquent.speech.text.languages import language_codes

FRAME_S = 0.01 * SUBSAMPLING
FRAME_MS = 10 * SUBSAMPLING

# Tokens take the place of speech: a frame has speech if a token was found in it.
TOKENS = SpeechOptions(frame_s=FRAME_S, min_speech_s=0.0, min_silence_s=FRAME_S, padding_s=0.0)


class ConformerStreamingTask:
    """A `Task` that recognises speech (see `loquent.speech.runtime.task`)."""

    takes = Port("audio", 16_000)
    gives = Port("text")
    Options = ConformerStreamOptions

    def __init__(
        self,
        model: ConformerModel,
        tokenizer: SubwordTokenizer,
        settings: ConformerOptions | None = None,
        fusion: Fusion | None = None,
    ) -> None:
        """A task of its own for one choice of settings.

        Args:
            settings: how audio is turned into text, the same for all streams.
            fusion: a language model that joins the beam.

        Raises:
            ValueError: the model has no such head or latency, or there is no beam to join.
        """
        self.model, self.tokenizer, self.settings = model, tokenizer, settings or ConformerOptions()
        self.search = _search(model, self.settings, fusion)
        self.lookaheads = offered_lookaheads(model)
        self.lookahead = self._lookahead(self.settings.chunk_ms)
        first, period = self._samples_until(1), self._samples_until(2) - self._samples_until(1)
        self.widths = tuple(max(first, period) + lookahead * period for lookahead in sorted(self.lookaheads))
        self._step = DeviceStep(model, self.search, self.widths)
        self.fingerprint = _fingerprint(model, tokenizer, self.settings)

    def offer(self) -> Offer:
        """See `loquent.speech.runtime.task.Offering`."""
        others = sorted(set(self.lookaheads) - {self.lookahead})
        latencies = tuple(FRAME_MS * (lookahead + 1) for lookahead in (self.lookahead, *others))
        return Offer((self.model.config.language,), latencies)

    def initial_state(self, slots: int) -> ConformerStreamState:
        """Pool of ``slots`` streams."""
        return ConformerStreamState(
            self.model.features.initial_state(slots),
            self.model.encoder.initial_state(slots),
            self.search.initial_state(slots),
        )

    def start(self, options: ConformerStreamOptions) -> ConformerMemo:
        """Begin a stream.

        Raises:
            ValueError: the model cannot do what is asked.
        """
        language = options.language or self.settings.language
        if language and self.model.config.language not in language_codes(language):
            raise ValueError(f"this model recognises {self.model.config.language!r} only, not {language!r}")
        if options.mode != "transcribe":
            raise ValueError(f"this model can only 'transcribe', not {options.mode!r}")
        lookahead = self.lookahead if options.chunk_ms is None else self._lookahead(options.chunk_ms)
        return ConformerMemo(options, lookahead, lookahead, self.search.start(self._biasing(options)))

    def restore(self, values: dict[str, Any]) -> ConformerMemo:
        """Inverse of ``ConformerMemo.to_dict``.

        Raises:
            ValueError: the values are not those of such a stream.
        """
        try:
            values = dict(values)
            values["options"] = checked_options(ConformerStreamOptions, values["options"])
            values["endpoint"] = EndpointMemory.from_dict(values["endpoint"])
            values["utterance"] = OpenUtterance.from_dict(values["utterance"])
            values["word"] = [Token(*token) for token in values["word"]]
            values["search"] = SearchMemo.from_dict(values["search"])
            memo = ConformerMemo(**values)
        except (AttributeError, KeyError, TypeError) as error:
            raise ValueError(f"not the memo of a Conformer's stream: {error}") from error
        check_memo(
            memo,
            lookaheads=self.lookaheads,
            vocabulary=self.tokenizer.vocab_size,
            beam=self.settings.beam_size,
            has_language_model=getattr(self.search, "fusion", None) is not None,
        )
        return memo

    def check_restored(self, memo: ConformerMemo, state: ConformerStreamState) -> None:
        """See `loquent.speech.runtime.task.Restorable`."""
        frames = int(state.search.frames[0])
        if frames != memo.frames:
            raise ValueError(f"the stream has had {memo.frames} frames, but the state of its search {frames}")

    def configure(self, memo: ConformerMemo, options: ConformerStreamOptions) -> None:
        """Change the latency of a stream from its next chunk on.

        Raises:
            ValueError: the model was not made for it, or another option differs.
        """
        check_fixed(memo.options, options, changeable=("chunk_ms",))
        memo.following = self.lookahead if options.chunk_ms is None else self._lookahead(options.chunk_ms)
        memo.options = options

    def relaxed(self, options: ConformerStreamOptions) -> list[ConformerStreamOptions]:
        """See `loquent.speech.runtime.task.Relaxing`."""
        asked = self.lookahead if options.chunk_ms is None else self._lookahead(options.chunk_ms)
        larger = sorted(lookahead for lookahead in self.lookaheads if lookahead > asked)
        return [replace(options, chunk_ms=(lookahead + 1) * FRAME_MS) for lookahead in larger]

    def wants(self, memo: ConformerMemo) -> int:
        """Samples that complete the next chunk."""
        first, period = self._samples_until(1), self._samples_until(2) - self._samples_until(1)
        frames = max((memo.samples - first) // period + 1, 0)  # an adaptive encoder may not have given all of them
        return self._samples_until(frames + memo.lookahead + 1) - memo.samples

    def launch(
        self, inputs: Chunk, state: ConformerStreamState, rows: Tensor, memos: list[ConformerMemo]
    ) -> ConformerStep:
        """Encode every stream's next samples, one chunk of a live stream, many of a file, and search them if the device
        can."""
        device = self.model.encoder.subsampling.out.weight.device
        return self._step(inputs.to(device), state, rows.to(device), memos)

    def read(self, pending: ConformerStep) -> list[Turn]:
        """Make tokens and words of the encoded frames."""
        memos, turns = pending.memos, Turns(len(pending.memos))
        arrived = pending.arrived()
        for i, (memo, samples, finite) in enumerate(zip(memos, arrived.samples, arrived.finite, strict=True)):
            memo.samples += samples
            with turns.of(i):
                if not finite:
                    raise FloatingPointError("the encoder's output for this stream is not finite numbers")
        if turns.sound:
            self._search_tokens(pending, arrived, turns)
        for memo in memos:
            memo.lookahead = memo.following
        return turns.finish(arrived.last)

    def interrupt(self, memo: ConformerMemo, played_s: float | None = None) -> list[Event]:
        """Nothing: a recogniser does not speak."""
        return []

    def end(self, memo: ConformerMemo) -> None:
        """Nothing is held for a stream."""

    # --------------------------------------------------------------------------------------------------------- the text

    def _search_tokens(self, pending: ConformerStep, arrived: Arrived, turns: Turns) -> None:
        """Search for tokens in all sound streams, and follow each one up.

        Where an endpoint changes nothing for the search, it runs ahead of them; else it goes chunk by chunk.
        """
        encoded, state, rows, sound = pending.encoded, pending.state, pending.rows, turns.sound
        found = self._step.found(pending, arrived)
        if len(sound) < len(rows):
            index = staged(sound, rows.device)
            encoded, rows = Chunk(encoded.data[index], encoded.length[index], encoded.last[index]), rows[index]
        memos = [pending.memos[i] for i in sound]
        searches = [memo.search for memo in memos]
        ahead = isinstance(self.search, CTCGreedySearch) and not any(search.biasing for search in searches)
        size = pending.size
        lengths, lasts = [arrived.lengths[i] for i in sound], [arrived.last[i] for i in sound]
        for begin in range(0, max(*lengths, 1), size):
            if begin == 0 and found is not None:
                whole = [found[i] for i in sound]
            elif begin == 0 or not ahead:
                part = encoded if ahead else frames_of(encoded, begin, size)
                whole = self.search.step(part, state.search, rows, searches)
            for n, (i, memo) in enumerate(zip(sound, memos, strict=True)):
                if turns.errors[i] is not None:
                    continue
                with turns.of(i) as events:
                    end = memo.frames + min(max(lengths[n] - begin, 0), size)
                    last = lasts[n] and begin + size >= lengths[n]
                    advance = _until(whole[n], end, last) if ahead else whole[n]
                    _check_scores(memo.search, advance)
                    self._follow(memo, advance, end, last, state, rows[n : n + 1], events)

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
        endpointer = Endpointer(TOKENS, self.settings.rules, memo.endpoint)
        for frame in range(memo.frames, end):
            while waiting and waiting[0].frame <= frame:  # or before this chunk: a beam makes up its mind late
                self._take(memo, waiting.pop(0), events)
            for decision in endpointer.feed(float(frame in found)):
                if isinstance(decision, UtteranceEnd) and not any(token.frame > frame for token in advance.open):
                    for token in self.search.flush(state.search, row, [memo.search])[0].committed:
                        self._take(memo, token, events)
                    if self._finalise(memo, events):
                        events.append(Endpoint(rule=decision.rule, time=decision.time_s))
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
        # A frame stands for the 80 ms before it.
        start = max((tokens[0].frame - 1) * FRAME_S, memo.utterance.end if memo.utterance.text else 0.0, 0.0)
        end = max(tokens[-1].frame * FRAME_S, start)
        confidence = sum(token.probability for token in tokens) / len(tokens)
        word = Word(text=" " + text, start=start, end=end, confidence=confidence)
        memo.utterance.add(word)
        events.append(word)

    def _show(self, memo: ConformerMemo, open: Sequence[Token], events: list[Event]) -> None:
        """Report the utterance so far if it reads differently now."""
        word, both = self._text(memo.word), self._text([*memo.word, *open])
        unstable = both.removeprefix(word) if word else " " + both if both else ""
        events += memo.utterance.show(" " + word if word else "", unstable)

    def _finalise(self, memo: ConformerMemo, events: list[Event]) -> bool:
        """Close the utterance; whether there was one."""
        if memo.word:
            self._end_word(memo, events)
        final = memo.utterance.finish()
        events += final
        return bool(final)

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

    def _biasing(self, options: ConformerStreamOptions) -> Biasing | None:
        tokens = [self._tokens_of(phrase) for phrase in options.phrases if phrase.strip()]
        if sum(map(len, tokens)) > MAX_PHRASE_TOKENS:
            raise ValueError(f"phrases may have {MAX_PHRASE_TOKENS} tokens in all, got {sum(map(len, tokens))}")
        return Biasing.of(tokens, options.phrase_boost) if tokens else None

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


def _until(advance: Advance, frame: int, last: bool) -> Advance:
    """Take the committed tokens before ``frame`` out of an advance."""
    taken = [token for token in advance.committed if last or token.frame < frame]
    del advance.committed[: len(taken)]
    return Advance(taken, [])


def _check_scores(search: SearchMemo, advance: Advance) -> None:
    probabilities = [token.probability for token in (*advance.committed, *advance.open)]
    if not all(map(math.isfinite, [*probabilities, *(hypothesis.total for hypothesis in search.hypotheses)])):
        raise FloatingPointError("the scores of tokens in this stream are not finite numbers")


def _fingerprint(model: ConformerModel, tokenizer: SubwordTokenizer, options: ConformerOptions) -> str:
    """Differs between models and options whose streams do not continue each other."""
    shared = replace(options, language=None)  # each stream knows its own
    digest = hashlib.sha256(repr((model.config, shared)).encode() + tokenizer.to_bytes())
    for name, weight in model.state_dict().items():
        if name.endswith(("norm_out.weight", "subsampling.out.bias", "ctc.out.bias", "joiner.out.bias")):
            digest.update(weight.detach().float().cpu().numpy().tobytes())
    return digest.hexdigest()
