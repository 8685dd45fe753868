"""Streaming recognition with Whisper: one task, three policies, any number of streams in a batch.

Every chunk of audio goes the same way: features and voice activity for all streams at once, then, for the streams in
which somebody speaks, encoder, decoder and commit rule. `AudioEncoding` says how the encoder is used: afresh on the
whole window for stock weights, or incrementally on cached keys and values.
"""

from __future__ import annotations

import math
import unicodedata
from typing import Any

import torch
from torch import Tensor

from loquent.asr.whisper.adapter_bank import NONE, AdapterBank
from loquent.asr.whisper.live.draft_decoding import LOOP, Draft, StreamingHypothesis
from loquent.asr.whisper.live.encoding import IncrementalEncoding, IncrementalState
from loquent.asr.whisper.live.fingerprint import fingerprint
from loquent.asr.whisper.live.languages import detect_languages
from loquent.asr.whisper.live.listening import Listening
from loquent.asr.whisper.live.memo import AudioWindow, CommittedWord, WhisperMemo
from loquent.asr.whisper.live.network import Network, Networks
from loquent.asr.whisper.live.options import StreamingOptions, WhisperStreamOptions
from loquent.asr.whisper.live.overlap import next_begin
from loquent.asr.whisper.live.restoring import check_encoding, check_memo
from loquent.asr.whisper.live.state import StreamState, WhisperStep
from loquent.asr.whisper.live.word_timing import word_spans
from loquent.asr.whisper.model import Whisper
from loquent.asr.whisper.phrases import phrase_biasing
from loquent.asr.whisper.tokenizer import WhisperTokenizer
from loquent.speech.audio.endpoint import Endpointer, SpeechStart, UtteranceEnd
from loquent.speech.audio.features import WhisperLogMel
from loquent.speech.audio.vad import SileroVad
from loquent.speech.devices import few_threads
from loquent.speech.nn.streaming import Chunk
from loquent.speech.runtime.events import Endpoint, Event, Word
from loquent.speech.runtime.task import Offer, Port, Turn, check_fixed
from loquent.speech.runtime.turns import Turns
from loquent.speech.text.languages import language_codes

FRAMES_PER_SECOND = 100  # mel frames, the clock of a stream
ENCODER_RATE = 50  # encoder frames per second
INCREMENTAL_SHARE = 5 / 6  # of the model's 30 s: adapters saw few longer windows in training, and add words there
LONGEST_SILENCE = 400  # mel frames of an utterance that may bring no word


class WhisperStreamingTask:
    """A `Task` that recognises speech (see `loquent.speech.runtime.task`).

    Args:
        settings: how audio is turned into text, the same for all streams.
        adapters: that streams may choose from; they may come and go. The default one as it is now is merged into
            weights of their own, see `AdapterBank.merged`.
    """

    takes = Port("audio", 16_000)
    gives = Port("text")
    Options = WhisperStreamOptions

    def __init__(
        self,
        model: Whisper,
        tokenizer: WhisperTokenizer,
        settings: StreamingOptions | None = None,
        adapters: AdapterBank | None = None,
    ) -> None:
        tokenizer.check_model(model.config.n_vocab)
        self.model, self.tokenizer, self.settings = model, tokenizer, settings or StreamingOptions()
        self.adapters = AdapterBank(model) if adapters is None else adapters
        device = model.decoder.ln.weight.device
        config = model.config
        self.fingerprint = fingerprint(model, self.settings)
        self.chunk = self.settings.step_ms // 10
        incremental = self.settings.policy == "incremental"
        self.ring = 2 * config.n_audio_ctx
        self.longest_window = int(self.ring * INCREMENTAL_SHARE) if incremental else self.ring
        self.longest_open = self.longest_window * 2 // 3  # audio that a new window may have to begin with again
        self.preroll = -(-self.settings.preroll_ms // self.settings.step_ms) * self.chunk
        longest = max(self.longest_open, self.preroll + self.chunk, int(self.settings.overlap_s * FRAMES_PER_SECOND))
        if longest + self.chunk + 2 > self.longest_window:
            raise ValueError(
                "chunk_ms, preroll_ms or overlap_s is too long for windows of "
                f"{self.longest_window / FRAMES_PER_SECOND} s, which this model has"
            )
        self.features = WhisperLogMel(config.n_mels).to(device)
        self.vad = SileroVad.from_pretrained().to(device)
        self._listen = Listening(self.features, self.vad, self.chunk)
        self.widths = (self._listen.width,)
        self.rule = self.settings.rule
        self.networks = Networks(model, tokenizer, self.settings, self.adapters)

    def offer(self) -> Offer:
        """See `loquent.speech.runtime.task.Offering`. All streams have the same latency, that of the settings."""
        spoken, incremental = tuple(self.tokenizer.languages), self.settings.policy == "incremental"
        translating = self.tokenizer.is_multilingual and not incremental
        return Offer(spoken, (self.settings.step_ms,), to_english=translating)

    # ------------------------------------------------------------------------------------------- what the engine calls

    def initial_state(self, slots: int) -> StreamState:
        """Pool of ``slots`` streams."""
        return StreamState(
            self.features.initial_state(slots),
            self.vad.initial_state(slots),
            torch.zeros(slots, self.ring, self.model.config.n_mels, device=self.model.decoder.ln.weight.device),
            self.networks.stock.encoding.initial_state(slots),
        )

    def start(self, options: WhisperStreamOptions) -> WhisperMemo:
        """Begin a stream.

        Raises:
            ValueError: the model does not know the language or the mode, or the bank has not the adapter, or none for
                live audio in this language.
        """
        languages = language_codes(options.language or self.settings.language)
        for code in languages or ("en",):
            self.tokenizer.sot_sequence(code, options.mode)
        language = languages[0] if len(languages) == 1 else None
        adapter = options.adapter
        if adapter is None:
            adapter = self.adapters.default_for(language, live=self.settings.policy == "incremental")
        adapter = None if adapter == NONE else adapter
        chosen = None if adapter is None else self.adapters[adapter]
        if not self.tokenizer.is_multilingual:
            language = language or "en"
        elif chosen is not None and not languages:
            language = chosen.info.language
        prompt = _closed(options.prompt.strip())
        context = self.tokenizer.encode(" " + prompt)[-self._context :] if prompt else []
        memo = WhisperMemo(options, language, list(languages), context, adapter, chosen.digest if chosen else "")
        memo.biasing = phrase_biasing(self.tokenizer, options.phrases, options.phrase_boost)
        self.adapters.acquire(memo)
        return memo

    def restore(self, values: dict[str, Any]) -> WhisperMemo:
        """Inverse of ``WhisperMemo.to_dict``.

        Raises:
            ValueError: the values are not those of such a stream, or its adapter is not in the bank, or is another one
                under its name.
        """
        memo = WhisperMemo.from_dict(values)
        memo.biasing = phrase_biasing(self.tokenizer, memo.options.phrases, memo.options.phrase_boost)
        check_memo(
            memo,
            self.tokenizer,
            chunk=self.chunk,
            longest_window=self.longest_window,
            capacity=self.model.config.n_text_ctx,
            longest_context=self._context,
        )
        self.adapters.acquire(memo)
        if memo.adapter is not None and self.adapters[memo.adapter].digest != memo.adapter_digest:
            raise ValueError(f"the stream began with another adapter of the name {memo.adapter!r}; load that one")
        return memo

    def check_restored(self, memo: WhisperMemo, state: StreamState) -> None:
        """See `loquent.speech.runtime.task.Restorable`."""
        received = self.features.inputs_for(memo.frames)
        if not received == int(state.features.received[0]) == int(state.vad.samples.received[0]):
            raise ValueError(
                f"the stream has had {memo.frames} frames, but its state is not that of {received} samples"
            )
        encoding = self.networks.stock.encoding
        if isinstance(encoding, IncrementalEncoding) and isinstance(state.encoding, IncrementalState):
            check_encoding(memo, encoding, state.encoding)

    def configure(self, memo: WhisperMemo, options: WhisperStreamOptions) -> None:
        """Refuse any change: a stream keeps the options that it began with.

        Raises:
            ValueError: an option differs.
        """
        check_fixed(memo.options, options)

    def wants(self, memo: WhisperMemo) -> int:
        """Samples of the next chunk: the frames of a chunk, plus one frame of look-ahead in front of all."""
        before = self.features.inputs_for(memo.steps * self.chunk + 1) if memo.steps else 0
        return self.features.inputs_for((memo.steps + 1) * self.chunk + 1) - before

    def launch(self, inputs: Chunk, state: StreamState, rows: Tensor, memos: list[WhisperMemo]) -> WhisperStep:
        """Extract the features of every stream's next chunk, and detect speech in it."""
        with few_threads(self.networks.threads(len(memos))):
            fetched = self._listen(inputs, state, rows, [memo.frames for memo in memos])
        return WhisperStep(memos, state, rows[: len(memos)], range(len(memos)), fetched)

    def read(self, pending: WhisperStep) -> list[Turn]:
        """Recognise what was said in the chunks. This is most of the work: the host decides token by token."""
        memos, state, rows = pending.memos, pending.state, pending.rows
        turns, last = Turns(len(memos)), list[bool]()
        ends: list[UtteranceEnd | None] = [None] * len(memos)
        for i, (frames, probabilities, ended) in enumerate(pending.heard()):
            memos[i].frames += frames
            last.append(ended)
            with turns.of(i):
                ends[i] = self._follow_speech(memos[i], probabilities, ended)
                memos[i].steps += 1
        talking = [i for i in turns.sound if memos[i].window is not None]
        with few_threads(self.networks.threads(len(talking))):
            for network, some in self.networks.of_streams(talking, memos):
                flush = [last[i] or ends[i] is not None for i in some]
                self._transcribe(network, some, memos, flush, state, rows, turns)
        for i in turns.sound:
            with turns.of(i) as events:
                self._end_utterance(memos[i], ends[i], last[i], events)
        return turns.finish(last)

    def interrupt(self, memo: WhisperMemo, played_s: float | None = None) -> list[Event]:
        """Nothing: a recogniser does not speak."""
        return []

    def end(self, memo: WhisperMemo) -> None:
        """Release the stream's adapter."""
        self.adapters.release(memo)

    # --------------------------------------------------------------------------------------------- audio and utterances

    def _follow_speech(self, memo: WhisperMemo, probabilities: list[float], last: bool) -> UtteranceEnd | None:
        """Open a window when somebody begins to speak; returns the end of the utterance, if it has ended.

        Raises:
            FloatingPointError: a probability is not a number.
        """
        if not all(map(math.isfinite, probabilities)):
            raise FloatingPointError("the probabilities of speech in this stream are not finite numbers")
        begin = memo.steps * self.chunk
        if not self.settings.vad:
            speech, ended = memo.frames > begin, None
        else:
            speech, ended = self._endpointing(memo, probabilities, last)
        if memo.window is None and speech:
            finished = -(-memo.barrier // self.chunk) * self.chunk
            memo.window = self._new_window(memo, max(min(finished, begin), begin - self.preroll), [])
        return ended if memo.window else None

    def _endpointing(
        self, memo: WhisperMemo, probabilities: list[float], last: bool
    ) -> tuple[bool, UtteranceEnd | None]:
        """Whether there was speech in a chunk, and the end of the utterance if it ended there.

        Speech that begins again in the same chunk goes on with the utterance. While it is not clear whether a sound is
        speech, the end is held back.
        """
        endpointer = Endpointer(self.settings.speech, self.settings.rules, memo.endpoint)
        speech, ended = endpointer.speaking, memo.held and UtteranceEnd(*memo.held)
        for probability in probabilities:
            for decision in endpointer.feed(probability):
                if isinstance(decision, SpeechStart):
                    speech, ended = True, None
                elif isinstance(decision, UtteranceEnd):
                    ended = decision
        begun = memo.endpoint.onset is not None
        if last:  # a sound too short to tell counts as speech
            speech |= begun
        memo.held = (ended.time_s, ended.rule) if begun and ended else None
        return speech, None if begun else ended

    def _end_utterance(self, memo: WhisperMemo, end: UtteranceEnd | None, last: bool, events: list[Event]) -> None:
        """Finish the utterance if it or the stream has ended."""
        if end is not None or last:
            events += memo.utterance.finish()
            memo.window, memo.context = None, []
            spoken_s = max(memo.endpoint.last_end_s, memo.utterance.end)
            memo.barrier = min(memo.frames, round(spoken_s * FRAMES_PER_SECOND))
        if end is not None:
            events.append(Endpoint(rule=end.rule, time=end.time_s))

    def _new_window(self, memo: WhisperMemo, start: int, committed: list[int]) -> AudioWindow:
        """A new window that begins with words known already, prompted with what was said before it."""
        context = (memo.prompt + memo.context)[-self._context :]
        before = [self.tokenizer.sot_prev, *context] if context else []
        sot = self.tokenizer.sot_sequence(memo.language or "en", memo.options.mode, timestamps=False)
        return AudioWindow(start, memo.steps * self.chunk, start, [*before, *sot], committed)

    @property
    def _context(self) -> int:
        return self.model.config.n_text_ctx // 4  # leaves room for a window of text

    # --------------------------------------------------------------------------------------------------------- the text

    def _transcribe(
        self,
        network: Network,
        talking: list[int],
        memos: list[WhisperMemo],
        flush: list[bool],
        state: StreamState,
        rows: Tensor,
        turns: Turns,
    ) -> None:
        """Encode, decode, commit and report for the streams that have a window.

        Args:
            network: that they go through.
            talking: their places in the batch.
            memos, rows: of the whole batch.
            flush: whether the utterance ends, of each of ``talking``.
        """
        own = [memos[i] for i in talking]
        windows = [memo.window for memo in own if memo.window is not None]
        frames = [memo.frames for memo in own]
        chosen = rows[torch.tensor(talking, device=rows.device)]
        adapters = self.adapters.choose(own) if network is self.networks.stock else None
        encoded = network.encoding.encode(state.mel, state.encoding, chosen, windows, frames, flush, adapters)
        detect_languages(network, self.tokenizer, talking, memos, flush, encoded, turns)
        drafts, known, sound = list[Draft](), list[int](), list[int]()
        for n, i in enumerate(talking):
            with turns.of(i):
                draft, position = self._draft(own[n], windows[n], flush[n])
                drafts.append(draft)
                known.append(position)
                sound.append(n)
        if not sound:
            return
        if len(sound) < len(talking):
            encoded = encoded.select(sound)
        encoded.decoder.position[encoded.rows] = torch.tensor(known, device=rows.device)
        for n, hypothesis in zip(sound, network.decode(drafts, *encoded), strict=True):
            with turns.of(talking[n]) as events:
                if not hypothesis.finite:
                    raise FloatingPointError("the decoder's scores of this stream are not finite numbers")
                self._take(own[n], windows[n], hypothesis, flush[n], events)
                if not flush[n] and self._is_lost(own[n], windows[n], hypothesis):
                    self._begin_afresh(own[n], windows[n])
        self._begin_next_windows([talking[n] for n in sound if not flush[n]], memos, rows, turns)

    def _draft(self, memo: WhisperMemo, window: AudioWindow, final: bool) -> tuple[Draft, int]:
        """What the decoder is to verify and write on, and how many tokens before it its cache has already."""
        certain = window.control + window.committed
        known = len(certain) - 1 if self.networks.stock.encoding.keeps_tokens and window.primed else 0
        window.primed = True
        limit = min(
            self.model.config.n_text_ctx - len(certain) - 1,
            self._tokens_in(memo, memo.frames - window.start) + 8 - len(window.committed),
        )
        if not final:  # a stream that is behind catches up with the next chunks
            limit = min(limit, len(window.open) + self._tokens_in(memo, self.chunk) + 1)
        origin = window.start / FRAMES_PER_SECOND
        said = [round((word.end - origin) * ENCODER_RATE) for word in window.words for _ in range(word.tokens)]
        past, heard = window.committed[-LOOP:], (memo.frames - window.start) // 2
        fed, most = certain[known:], max(limit, 0)
        return Draft(fed, window.open, window.open_scores, most, past, said[-LOOP:], heard, memo.biasing), known

    def _take(
        self, memo: WhisperMemo, window: AudioWindow, hypothesis: StreamingHypothesis, final: bool, events: list[Event]
    ) -> None:
        """Commit what is certain of a hypothesis, and report it."""
        full = self._is_full(memo, window) and not final
        count = len(hypothesis.tokens)
        if not final:
            certain = count if full and self._overdue(memo, window) else self._certain(memo, window, hypothesis)
            count = self._whole_words(memo, hypothesis, certain)
        self._commit(memo, window, hypothesis, count, events)
        if full:
            events += memo.utterance.finish()
        else:
            events += memo.utterance.show("", self.tokenizer.decode(window.open))

    def _tokens_in(self, memo: WhisperMemo, frames: int) -> int:
        """Most tokens that somebody may say in so many mel frames."""
        rate = self.settings.tokens_per_second or (8.0 if memo.written == "en" else 25.0)
        return int(frames / FRAMES_PER_SECOND * rate)

    def _certain(self, memo: WhisperMemo, window: AudioWindow, hypothesis: StreamingHypothesis) -> int:
        """Number of tokens that the rule allows to commit; none while the language may turn out to be another."""
        if memo.language is None:
            return 0
        return self.rule([window.open], hypothesis, (memo.frames - window.start) // 2)

    def _whole_words(self, memo: WhisperMemo, hypothesis: StreamingHypothesis, count: int) -> int:
        """``count``, cut to where a word of the hypothesis ends."""
        tokens, language = hypothesis.tokens, memo.written or "en"
        if count == len(tokens) and hypothesis.complete:
            return count
        while count and (count == len(tokens) or not self.tokenizer.is_word_start(tokens[count], language)):
            count -= 1
        return count

    def _commit(
        self, memo: WhisperMemo, window: AudioWindow, hypothesis: StreamingHypothesis, count: int, events: list[Event]
    ) -> None:
        """Make the first ``count`` tokens of a hypothesis final and report their words."""
        runs: list[list[int]] = []
        for token in hypothesis.tokens[:count]:
            if not runs or self.tokenizer.is_word_start(token, memo.written or "en"):
                runs.append([])
            runs[-1].append(token)
        origin = window.start / FRAMES_PER_SECOND
        after = round((window.words[-1].end - origin) * ENCODER_RATE) if window.words else 0
        spans = word_spans(
            hypothesis.attention, [len(run) for run in runs], (memo.frames - window.start) // 2, max(after, 0)
        )
        first, attended = 0, hypothesis.attended
        for run, (begin, end) in zip(runs, spans, strict=True):
            probabilities = hypothesis.probabilities[first : first + len(run)]
            earliest = min(*attended[first : first + len(run)], end)
            first += len(run)
            start_s, end_s, earliest_s = (origin + frame / ENCODER_RATE for frame in (begin, end, earliest))
            committed = CommittedWord(start_s, end_s, len(run), earliest_s)
            window.words.append(committed)
            word = Word(
                text=self.tokenizer.decode(run),
                start=committed.start,
                end=committed.end,
                confidence=sum(probabilities) / len(run),
            )
            memo.utterance.add(word)
            events.append(word)
        window.committed = window.committed + hypothesis.tokens[:count]
        window.open, window.open_scores = hypothesis.tokens[count:], hypothesis.scores[count:]

    # ------------------------------------------------------------------------------------------------ windows that fill

    def _is_full(self, memo: WhisperMemo, window: AudioWindow) -> bool:
        """Whether the next chunk would not fit."""
        return memo.frames - window.start + self.chunk + 2 > self.longest_window

    def _overdue(self, memo: WhisperMemo, window: AudioWindow) -> bool:
        """Whether so little was committed of late that the next window could not hold what is still open."""
        end = window.words[-1].end if window.words else window.start / FRAMES_PER_SECOND
        return memo.frames - end * FRAMES_PER_SECOND > self.longest_open

    def _begin_next_windows(self, going: list[int], memos: list[WhisperMemo], rows: Tensor, turns: Turns) -> None:
        """Hand over the full windows of some streams of a batch; memos that share a slot go on sharing their audio."""
        full: dict[int, list[tuple[int, AudioWindow]]] = {}
        for i in going:
            window = memos[i].window
            if turns.errors[i] is None and window is not None and self._is_full(memos[i], window):
                full.setdefault(int(rows[i]), []).append((i, window))
        for sharing in full.values():
            recent = memos[sharing[0][0]].frames / FRAMES_PER_SECOND - self.settings.overlap_s
            begin = min(
                next_begin(window.words, recent, memos[i].options.mode == "transcribe") for i, window in sharing
            )
            for i, window in sharing:
                memos[i].window = self._hand_over(memos[i], window, begin)

    def _is_lost(self, memo: WhisperMemo, window: AudioWindow, hypothesis: StreamingHypothesis) -> bool:
        """Whether the words so far make the model repeat itself, or say nothing while somebody talks."""
        silent = not window.open and memo.frames - _said_until(window) > LONGEST_SILENCE
        return (hypothesis.looped or silent) and bool(window.committed or memo.context)

    def _begin_afresh(self, memo: WhisperMemo, window: AudioWindow) -> None:
        """Go on behind the last word, in a window that knows nothing of what was said before."""
        memo.context = []
        memo.window = self._new_window(memo, min(_said_until(window), memo.frames), [])

    def _hand_over(self, memo: WhisperMemo, window: AudioWindow, begin: float) -> AudioWindow:
        """The window that follows a full one, from about ``begin``.

        The words from there on are given to its decoder, which goes on behind them: nothing is written twice, and
        nothing between two windows is lost.
        """
        start = int(begin * FRAMES_PER_SECOND)
        start -= start % self.chunk
        earliest = max(window.start + 1, memo.frames - self.longest_open)
        if start < earliest:
            start = -(-earliest // self.chunk) * self.chunk
        kept = [word for word in window.words if word.start >= start / FRAMES_PER_SECOND]
        split = len(window.committed) - sum(word.tokens for word in kept)
        memo.context = (memo.context + window.committed[:split])[-self._context :]
        following = self._new_window(memo, start, window.committed[split:])
        following.words = kept
        return following


def _said_until(window: AudioWindow) -> int:
    """Mel frame at which the last committed word of a window ends."""
    return math.ceil(window.words[-1].end * FRAMES_PER_SECOND) if window.words else window.start


def _closed(prompt: str) -> str:
    """A prompt as a sentence of its own: the text would go on with one that is left open, as with ", and then"."""
    return prompt if unicodedata.category((prompt or ".")[-1]).startswith("P") else prompt + "."
