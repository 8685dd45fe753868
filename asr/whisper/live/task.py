"""Streaming recognition with Whisper: one task, three policies, any number of streams in a batch.

Every chunk of audio goes the same way: features and voice activity for all streams at once, then, for the streams in
which somebody speaks, encoder, decoder and commit rule. `Hearing` says how the encoder is used: afresh on the whole
window for stock weights, or incrementally on cached keys and values.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from loquent.asr.whisper.adapter_bank import NONE, AdapterBank
from loquent.asr.whisper.live.draft_decoding import LOOP, Draft, DraftDecoder, Hypothesis
from loquent.asr.whisper.live.encoding import Heard, Hearing, IncrementalHearing, Reencoding
from loquent.asr.whisper.live.memo import Segment, StreamMemo, TimedWord
from loquent.asr.whisper.live.options import StreamingOptions
from loquent.asr.whisper.live.word_timing import word_spans
from loquent.asr.whisper.model import Whisper
from loquent.asr.whisper.tokenizer import Task, WhisperTokenizer
from loquent.speech.audio.endpoint import (
    Endpoint,
    Endpointer,
    EndpointMemory,
    SpeechStart,
)
from loquent.speech.audio.features import WhisperLogMel
from loquent.speech.audio.vad import SileroVad, VadState
from loquent.speech.nn.state import State
from loquent.speech.nn.streaming import Chunk, WindowState
from loquent.speech.runtime.events import Endpoint as EndpointEvent
from loquent.speech.runtime.events import Event, Final, Partial, Word
from loquent.speech.text.languages import language_code

FRAMES_PER_SECOND = 100  # mel frames, the clock of a stream
ENCODER_RATE = 50  # encoder frames per second
INCREMENTAL_SHARE = 5 / 6  # of the model's 30 s: adapters have heard few longer windows, and add words at their end
LANGUAGE_FRAMES = 200  # mel frames since speech was noticed that make the choice of language final


@dataclass
class StreamState(State):
    """Pool of streams: front end, the last 30 s of log-mel frames, and what hearing needs."""

    features: WindowState
    vad: VadState
    mel: Tensor  # (S, 3000, F), frame t in entry t mod 3000
    hearing: State


class WhisperStreamingTask:
    """A `StreamingTask` that recognises speech (see `loquent.speech.runtime.session`).

    Args:
        adapters: that streams may choose from; they may come and go.
    """

    sample_rate = 16_000

    def __init__(
        self,
        model: Whisper,
        tokenizer: WhisperTokenizer,
        options: StreamingOptions | None = None,
        adapters: AdapterBank | None = None,
    ) -> None:
        self.model, self.tokenizer, self.options = model, tokenizer, options or StreamingOptions()
        self.adapters = AdapterBank(model) if adapters is None else adapters
        device = model.decoder.ln.weight.device
        config = model.config
        self.fingerprint = _fingerprint(model, self.options)
        self.chunk = self.options.step_ms // 10
        incremental = self.options.policy == "incremental"
        self.ring = 2 * config.n_audio_ctx
        self.window = int(self.ring * INCREMENTAL_SHARE) if incremental else self.ring
        self.longest_open = self.window * 2 // 3  # audio that a new window may have to hear again
        self.preroll = -(-self.options.preroll_ms // self.options.step_ms) * self.chunk
        longest = max(self.longest_open, self.preroll + self.chunk, int(self.options.overlap_s * FRAMES_PER_SECOND))
        if longest + self.chunk + 2 > self.window:
            raise ValueError(
                "chunk_ms, preroll_ms or overlap_s is too long for windows of "
                f"{self.window / FRAMES_PER_SECOND} s, which this model has"
            )
        self.features = WhisperLogMel(config.n_mels).to(device)
        self.vad = SileroVad.from_pretrained().to(device)
        self.rule = self.options.rule
        self.hearing: Hearing = IncrementalHearing(model, self.options.block) if incremental else Reencoding(model)
        timestamps = range(tokenizer.timestamp_begin, tokenizer.n_vocab)
        languages = tokenizer.language_tokens.values()
        self.decode = DraftDecoder(
            model.decoder,
            tokenizer.eot,
            (*tokenizer.suppressed_tokens, tokenizer.no_timestamps, *languages, *timestamps),
            config.alignment_heads,
            lenient=incremental,
            beam_size=self.options.beam_size,
        )

    # ------------------------------------------------------------------------------------------- what the engine calls

    def initial_state(self, slots: int) -> StreamState:
        """Pool of ``slots`` streams."""
        device = self.model.decoder.ln.weight.device
        return StreamState(
            self.features.initial_state(slots),
            self.vad.initial_state(slots),
            torch.zeros(slots, self.ring, self.model.config.n_mels, device=device),
            self.hearing.initial_state(slots),
        )

    def start(
        self, language: str | None = None, task: Task = "transcribe", prompt: str = "", adapter: str | None = None
    ) -> StreamMemo:
        """Options of one stream.

        Args:
            language: code or English name; by default that of the task or of the adapter, else detected from the first
                speech.
            task: "transcribe", or "translate" into English.
            prompt: text that precedes the speech: names and spellings to expect.
            adapter: name of one in the bank, by default what the bank has for the language; "none" is the model as it
                is.

        Raises:
            ValueError: the model does not know the language or the task, or the bank has not the adapter, or none for
                live audio in this language.
        """
        given = {"language": language or "", "task": task, "prompt": prompt, "adapter": adapter or ""}
        for name, value in given.items():
            if not isinstance(value, str):
                raise ValueError(f"{name} must be text, got {value!r}")
        language = language or self.options.language
        language = language_code(language) if language else None
        self.tokenizer.sot_sequence(language or "en", task)
        if adapter is None:
            adapter = self.adapters.default_for(language, live=self.options.policy == "incremental")
        adapter = None if adapter == NONE else adapter
        chosen = None if adapter is None else self.adapters[adapter]
        if not self.tokenizer.is_multilingual:
            language = language or "en"
        elif chosen is not None:
            language = language or chosen.info.language
        context = self.tokenizer.encode(" " + prompt.strip())[-self._context :] if prompt.strip() else []
        memo = StreamMemo(language, task, context, EndpointMemory(), adapter, chosen.digest if chosen else "")
        self.adapters.lend(memo)
        return memo

    def configure(self, memo: StreamMemo, **options: Any) -> None:
        """Refuse: a Whisper stream keeps the options it began with.

        Raises:
            ValueError: always.
        """
        raise ValueError(f"the options of a Whisper stream are fixed at its start, {', '.join(options)} included")

    def restore(self, values: dict[str, Any]) -> StreamMemo:
        """Inverse of ``StreamMemo.to_dict``.

        Raises:
            ValueError: the stream's adapter is not in the bank, or is another one under its name.
        """
        memo = StreamMemo.from_dict(values)
        self.adapters.lend(memo)
        if memo.adapter is not None and self.adapters[memo.adapter].digest != memo.adapter_digest:
            raise ValueError(f"the stream began with another adapter of the name {memo.adapter!r}; load that one")
        return memo

    def end(self, memo: StreamMemo) -> None:
        """Give the stream's adapter back."""
        self.adapters.give_back(memo)

    def samples_wanted(self, memo: StreamMemo) -> int:
        """Samples of the next chunk: the frames of a chunk, plus one frame of look-ahead in front of all."""
        before = self.features.inputs_for(memo.steps * self.chunk + 1) if memo.steps else 0
        return self.features.inputs_for((memo.steps + 1) * self.chunk + 1) - before

    def step(self, samples: Chunk, state: StreamState, rows: Tensor, memos: list[StreamMemo]) -> list[list[Event]]:
        """Advance every stream by one chunk."""
        device = state.mel.device
        samples = samples.to(device)
        rows = rows.to(device)
        mel = self.features.step(samples, state.features, rows)
        speech = self.vad.step(samples, state.vad, rows)
        self._remember(mel, state, rows, memos)

        events: list[list[Event]] = [[] for _ in memos]
        ends: list[Endpoint | None] = []
        for memo, probabilities, last in zip(memos, speech.rows(), samples.last.tolist(), strict=True):
            ends.append(self._follow_speech(memo, probabilities.tolist(), last))
            memo.steps += 1

        talking = [i for i, memo in enumerate(memos) if memo.segment is not None]
        if talking:
            lasts = samples.last.tolist()
            index = torch.tensor(talking, device=device)
            self._transcribe(
                [memos[i] for i in talking],
                [lasts[i] or ends[i] is not None for i in talking],
                state,
                rows[index],
                [events[i] for i in talking],
            )
        for memo, end, last, out in zip(memos, ends, samples.last.tolist(), events, strict=True):
            if end is not None or last:
                self._finalise(memo, out)
                memo.segment, memo.context = None, []
                spoken_s = max(memo.endpoint.last_end_s, memo.utterance_end)
                memo.barrier = min(memo.frames, round(spoken_s * FRAMES_PER_SECOND))
            if end is not None:
                out.append(EndpointEvent(rule=end.rule, time=end.time_s))
        return events

    # --------------------------------------------------------------------------------------------- audio and utterances

    def _remember(self, mel: Chunk, state: StreamState, rows: Tensor, memos: list[StreamMemo]) -> None:
        """Write new frames into the rings."""
        valid = mel.mask
        start = torch.tensor([memo.frames for memo in memos], device=rows.device)
        entry = (start[:, None] + torch.arange(valid.shape[1], device=rows.device)) % self.ring
        state.mel[rows[:, None].expand_as(valid)[valid], entry[valid]] = mel.data[valid]
        for memo, length in zip(memos, mel.length.tolist(), strict=True):
            memo.frames += length

    def _follow_speech(self, memo: StreamMemo, probabilities: list[float], last: bool) -> Endpoint | None:
        """Open a segment when somebody begins to speak; tell whether the utterance has ended."""
        begin = memo.steps * self.chunk
        if not self.options.vad:
            heard, ended = memo.frames > begin, None
        else:
            heard, ended = self._endpointing(memo, probabilities, last)
        if memo.segment is None and heard:
            finished = -(-memo.barrier // self.chunk) * self.chunk
            memo.segment = self._segment(memo, max(min(finished, begin), begin - self.preroll), [])
        return ended if memo.segment else None

    def _endpointing(self, memo: StreamMemo, probabilities: list[float], last: bool) -> tuple[bool, Endpoint | None]:
        """Whether there was speech in a chunk, and whether the utterance ended in it.

        Who speaks again in the same chunk has not finished. While it is not clear whether a sound is speech, the
        endpoint is held back.
        """
        endpointer = Endpointer(self.options.speech, self.options.rules, memo.endpoint)
        heard, ended = endpointer.speaking, memo.held and Endpoint(*memo.held)
        for probability in probabilities:
            for event in endpointer.feed(probability):
                if isinstance(event, SpeechStart):
                    heard, ended = True, None
                elif isinstance(event, Endpoint):
                    ended = event
        begun = memo.endpoint.onset is not None
        if last:  # a sound too short to tell is given the benefit of the doubt
            heard |= begun
        memo.held = (ended.time_s, ended.rule) if begun and ended else None
        return heard, None if begun else ended

    def _segment(self, memo: StreamMemo, start: int, committed: list[int]) -> Segment:
        """A new window that begins with words known already, prompted with what was said before it."""
        context = (memo.prompt + memo.context)[-self._context :]
        before = [self.tokenizer.sot_prev, *context] if context else []
        sot = self.tokenizer.sot_sequence(memo.language or "en", memo.task, timestamps=False)
        return Segment(start, memo.steps * self.chunk, start, [*before, *sot], committed)

    @property
    def _context(self) -> int:
        return self.model.config.n_text_ctx // 4  # leaves room for a window of text

    # --------------------------------------------------------------------------------------------------------- the text

    def _transcribe(
        self,
        memos: list[StreamMemo],
        flush: list[bool],
        state: StreamState,
        rows: Tensor,
        events: list[list[Event]],
    ) -> None:
        """Hear, decode, commit and report for streams that have a segment."""
        segments = [memo.segment for memo in memos if memo.segment is not None]
        frames = [memo.frames for memo in memos]
        adapters = self.adapters.choose(memos)
        heard = self.hearing.hear(state.mel, state.hearing, rows, segments, frames, flush, adapters)
        self._detect_languages(memos, segments, heard)
        hypotheses = self.decode(self._drafts(memos, segments, flush, heard), *heard)
        for memo, segment, hypothesis, final, out in zip(memos, segments, hypotheses, flush, events, strict=True):
            full = memo.frames - segment.start + self.chunk + 2 > self.window and not final
            count = len(hypothesis.tokens)
            if not final:
                certain = count if full and self._overdue(memo, segment) else self._certain(memo, segment, hypothesis)
                count = self._whole_words(memo, hypothesis, certain)
            self._commit(memo, segment, hypothesis, count, out)
            if full:
                self._finalise(memo, out)
                memo.segment = self._hand_over(memo, segment)
            else:
                self._show(memo, segment, out)

    def _drafts(self, memos: list[StreamMemo], segments: list[Segment], flush: list[bool], heard: Heard) -> list[Draft]:
        """What each decoder row already knows, after taking back what it must look at again."""
        drafts, known = [], []
        for memo, segment, final in zip(memos, segments, flush, strict=True):
            certain = segment.control + segment.committed
            known.append(len(certain) - 1 if self.hearing.keeps_tokens and segment.primed else 0)
            segment.primed = True
            limit = min(
                self.model.config.n_text_ctx - len(certain) - 1,
                self._tokens_in(memo, memo.frames - segment.start) + 8 - len(segment.committed),
            )
            if not final:  # who is behind catches up with the next chunks
                limit = min(limit, len(segment.open) + self._tokens_in(memo, self.chunk) + 1)
            origin = segment.start / FRAMES_PER_SECOND
            said = [round((word.end - origin) * ENCODER_RATE) for word in segment.words for _ in range(word.tokens)]
            past = segment.committed[-LOOP:]
            drafts.append(
                Draft(certain[known[-1] :], segment.open, segment.open_scores, max(limit, 0), past, said[-LOOP:])
            )
        heard.decoder.position[heard.rows] = torch.tensor(known, device=heard.rows.device)
        return drafts

    def _tokens_in(self, memo: StreamMemo, frames: int) -> int:
        """Most tokens that somebody may say in so many mel frames."""
        rate = self.options.tokens_per_second or (8.0 if memo.language == "en" else 25.0)
        return int(frames / FRAMES_PER_SECOND * rate)

    def _certain(self, memo: StreamMemo, segment: Segment, hypothesis: Hypothesis) -> int:
        """Number of tokens that the rule allows to commit."""
        return self.rule(segment.open, hypothesis, (memo.frames - segment.start) // 2)

    def _whole_words(self, memo: StreamMemo, hypothesis: Hypothesis, count: int) -> int:
        """``count``, cut to where a word of the hypothesis ends."""
        tokens, language = hypothesis.tokens, memo.language or "en"
        if count == len(tokens) and hypothesis.complete:
            return count
        while count and (count == len(tokens) or not self.tokenizer.is_word_start(tokens[count], language)):
            count -= 1
        return count

    def _commit(
        self, memo: StreamMemo, segment: Segment, hypothesis: Hypothesis, count: int, events: list[Event]
    ) -> None:
        """Make the first ``count`` tokens of a hypothesis final and report their words."""
        runs: list[list[int]] = []
        for token in hypothesis.tokens[:count]:
            if not runs or self.tokenizer.is_word_start(token, memo.language or "en"):
                runs.append([])
            runs[-1].append(token)
        origin = segment.start / FRAMES_PER_SECOND
        after = round((segment.words[-1].end - origin) * ENCODER_RATE) if segment.words else 0
        spans = word_spans(
            hypothesis.attention, [len(run) for run in runs], (memo.frames - segment.start) // 2, max(after, 0)
        )
        first = 0
        for run, (begin, end) in zip(runs, spans, strict=True):
            probabilities = hypothesis.probabilities[first : first + len(run)]
            first += len(run)
            word = TimedWord(origin + begin / ENCODER_RATE, origin + end / ENCODER_RATE, len(run))
            segment.words.append(word)
            text = self.tokenizer.decode(run)
            confidence = sum(probabilities) / len(run)
            events.append(Word(text=text, start=word.start, end=word.end, confidence=confidence))
            memo.utterance_start = memo.utterance_start if memo.utterance else word.start
            memo.utterance_end = word.end
            memo.utterance += text
        segment.committed = segment.committed + hypothesis.tokens[:count]
        segment.open, segment.open_scores = hypothesis.tokens[count:], hypothesis.scores[count:]

    def _show(self, memo: StreamMemo, segment: Segment, events: list[Event]) -> None:
        """Report the utterance so far if it reads differently now."""
        shown = (memo.utterance, self.tokenizer.decode(segment.open))
        if shown != memo.shown:
            events.append(Partial(stable=shown[0], unstable=shown[1]))
            memo.shown = shown

    def _finalise(self, memo: StreamMemo, events: list[Event]) -> None:
        """Close the utterance."""
        if memo.utterance.strip():
            events.append(Final(text=memo.utterance.strip(), start=memo.utterance_start, end=memo.utterance_end))
        memo.utterance, memo.shown = "", ("", "")

    # ------------------------------------------------------------------------------------------------ windows that fill

    def _overdue(self, memo: StreamMemo, segment: Segment) -> bool:
        """Whether so little was committed of late that the next window could not hold what is still open."""
        end = segment.words[-1].end if segment.words else segment.start / FRAMES_PER_SECOND
        return memo.frames - end * FRAMES_PER_SECOND > self.longest_open

    def _hand_over(self, memo: StreamMemo, segment: Segment) -> Segment:
        """The window that follows a full one.

        It hears the last seconds again, from the beginning of a committed word, or of the last one if that is longer
        ago. That word and those after it are given to its decoder, which goes on behind them: nothing is said twice,
        and nothing between two windows is lost.
        """
        recent = memo.frames / FRAMES_PER_SECOND - self.options.overlap_s
        begin = next((word.start for word in segment.words if word.start >= recent), recent)
        if segment.words:  # after its end, of which the attention knows little, one might hear the rest of a word
            begin = min(begin, segment.words[-1].start)
        start = int(begin * FRAMES_PER_SECOND)
        start -= start % self.chunk
        earliest = max(segment.start + 1, memo.frames - self.longest_open)
        if start < earliest:
            start = -(-earliest // self.chunk) * self.chunk
            begin = start / FRAMES_PER_SECOND
        kept = [word for word in segment.words if word.start >= begin]
        split = len(segment.committed) - sum(word.tokens for word in kept)
        memo.context = (memo.context + segment.committed[:split])[-self._context :]
        following = self._segment(memo, start, segment.committed[split:])
        following.words = kept
        return following

    # -------------------------------------------------------------------------------------------------------- language

    def _detect_languages(self, memos: list[StreamMemo], segments: list[Segment], heard: Heard) -> None:
        """Choose the language of streams that have none yet, from the first speech they bring."""
        unknown = [i for i, memo in enumerate(memos) if memo.language is None]
        if not unknown:
            return
        index = torch.tensor(unknown, device=heard.rows.device)
        rows = heard.rows[index]
        heard.decoder.position[rows] = 0
        sot = torch.full((len(unknown), 1), self.tokenizer.sot, device=heard.rows.device)
        memory_rows, adapters = heard.memory_rows[index], heard.adapters and heard.adapters.select(index)
        hidden, _ = self.model.decoder.step(
            Chunk.of(sot), heard.decoder, rows, heard.memory, memory_rows, adapters=adapters
        )
        codes = list(self.tokenizer.language_tokens)
        scores = self.model.decoder.logits(hidden[:, 0])[:, list(self.tokenizer.language_tokens.values())]
        for i, best in zip(unknown, scores.argmax(-1).tolist(), strict=True):
            memo, segment = memos[i], segments[i]
            sequence = self.tokenizer.sot_sequence(codes[best], memo.task, timestamps=False)
            segment.control = [*segment.control[: -len(sequence)], *sequence]
            segment.primed = False  # what the decoder knows was written under another language
            if memo.frames - segment.opened >= LANGUAGE_FRAMES:
                memo.language = codes[best]


def _fingerprint(model: Whisper, options: StreamingOptions) -> str:
    """Differs between models and options whose streams do not continue each other."""
    shared = replace(options, language=None)  # each stream knows its own
    settings = (model.config, model.decoder.int8_vocabulary is None, model.merged, shared)
    digest = hashlib.sha256(repr(settings).encode())
    for weight in (model.encoder.ln_post.weight, model.decoder.ln.weight):
        digest.update(weight.detach().float().cpu().numpy().tobytes())
    return digest.hexdigest()
