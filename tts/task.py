"""Synthesis as a task of the runtime: words in, one at a time, and speech out, a chunk of frames at a time.

A word is spoken once the words that it is spoken in the light of are known. Its acoustics are computed once, and its
frames wait in a queue in the state. The renderer takes them out in chunks of one size, or what is left at the end of
an utterance, so what comes out depends on the text alone, however it arrives.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple
from unicodedata import category

import numpy as np
import torch
from torch import Tensor

from loquent.speech.nn.state import State
from loquent.speech.nn.transfer import sent
from loquent.speech.runtime.events import Event, Final, Skipped, Speech, Word
from loquent.speech.runtime.task import Offer, Port, Turn, check_fixed
from loquent.speech.runtime.turns import Turns
from loquent.speech.text.words import WordChunk
from loquent.tts.acoustics import PhoneWindow, VoiceModel, WordAcoustics
from loquent.tts.following import frames_to_word_end, holds, look_at_clock, pace, wait_for_clock
from loquent.tts.frontend.phonemizer import Phonemizer
from loquent.tts.frontend.reader import Reader, ReaderOptions
from loquent.tts.frontend.spoken import SkippedText, SpokenWord
from loquent.tts.heard import heard_of
from loquent.tts.memo import REMEMBERED, SpeechMemo, TimedText
from loquent.tts.opening import follow, frames_of, open_early
from loquent.tts.options import SpeechOptions, mixture
from loquent.tts.rendering import Rendering

WORDS_BEFORE, WORDS_AFTER = 8, 2  # context of a word
MOST_PAUSE_S = 10.0  # of silence that a text may ask for
MOST_SOURCE = 1 << 14  # characters of input text that are kept, to tell what was said
MOST_PHONES = 400  # of a window: the length of the sentences that voices are trained on
MOST_FRAMES = 1024  # of a word, 13 s; its phones share them where they would take more
LEAD_S = 0.1  # the most silence before the first word of a stream; sounds such as an S begin in it
PUNCTUATION = ' ;:,.!?—…"“”()'


@dataclass
class SpeechState(State):
    """The renderer's state, frames that wait for it, and what would follow the samples that were given early."""

    renderer: Any
    queue: Tensor  # (S, F, C + D), left-aligned
    ahead: Tensor  # (S, hop_length)


class SpeechStep(NamedTuple):
    """A step whose text has been read."""

    memos: list[SpeechMemo]
    turns: Turns
    state: SpeechState
    rows: Tensor  # (B,)


class SpeechTask:
    """A voice that speaks streams of text.

    Args:
        voice: the models.
        phonemizer: of the voice's language.
        chunk_ms: speech that is rendered at a time.
    """

    takes = Port("text")
    Options = SpeechOptions
    languages = ("en",)  # those of the phonemizer

    def __init__(self, voice: VoiceModel, phonemizer: Phonemizer, chunk_ms: int = 200) -> None:
        self.voice, self.phonemizer, self._rendering = voice, phonemizer, Rendering(voice.renderer)
        self.gives = Port("audio", voice.sample_rate)
        self.frames_per_second = voice.sample_rate / voice.hop_length
        self.chunk = round(chunk_ms * self.frames_per_second / 1000)
        if self.chunk < 1:
            raise ValueError(
                f"chunk_ms: expected at least one frame, {1000 / self.frames_per_second} ms, got {chunk_ms}"
            )
        needed = [voice.renderer.inputs_for(frames * voice.hop_length) - frames for frames in range(1, 257)]
        self.lookahead = max(needed)  # frames behind one that is given out
        self.fingerprint = f"speech-1 {voice.fingerprint} {phonemizer.fingerprint} {self.chunk}"

    def offer(self) -> Offer:
        """See `loquent.speech.runtime.task.Offering`."""
        return Offer(self.languages, voices=self.voice.speakers)

    # ------------------------------------------------------------------------------------------- what the engine calls

    def initial_state(self, slots: int) -> SpeechState:
        """Pool of ``slots`` streams."""
        renderer = self.voice.renderer.initial_state(slots)
        device = next(tensor.device for _, tensor, _ in renderer.leaves())
        size = self.voice.phone_size + self.voice.curve_size
        return SpeechState(
            renderer,
            torch.zeros(slots, self.chunk + MOST_FRAMES, size, device=device),
            torch.zeros(slots, self.voice.hop_length, device=device),
        )

    def start(self, options: SpeechOptions) -> SpeechMemo:
        """Begin a stream.

        Raises:
            ValueError: there is no such voice, or a pronunciation has phones that the voice has not.
        """
        mixture(options.voice, self.voice.speakers)
        for word, phonemes in options.lexicon.items():
            if len(phonemes) > MOST_PHONES // 4:
                raise ValueError(f"lexicon: {word!r} has {len(phonemes)} phonemes; expected at most {MOST_PHONES // 4}")
            if unknown := sorted({phone for phone in phonemes if phone not in self.voice.alphabet}):
                raise ValueError(f"lexicon: {word!r} has phonemes that the voice has not: {' '.join(unknown)}")
        return SpeechMemo(options, Reader(ReaderOptions(options.ssml, options.lexicon)))

    def restore(self, values: dict[str, Any]) -> SpeechMemo:
        """Inverse of ``SpeechMemo.to_dict``."""
        memo = SpeechMemo.from_dict(values)
        self.start(memo.options)
        if memo.queued > self.chunk + MOST_FRAMES:
            raise ValueError(f"expected at most {self.chunk + MOST_FRAMES} frames that wait, got {memo.queued}")
        if max(memo.pause, memo.silence) > round(MOST_PAUSE_S * self.frames_per_second):
            raise ValueError(f"expected a pause of at most {MOST_PAUSE_S} s")
        made = memo.offset + (memo.frame + memo.queued) * self.voice.hop_length
        if max([memo.samples, *(piece.last for piece in memo.said)]) > made:
            raise ValueError(f"expected speech up to sample {made}, the last one of the frames that there are")
        return memo

    def configure(self, memo: SpeechMemo, options: SpeechOptions) -> None:
        """Change the tempo of the words to come, or how the voice follows.

        Raises:
            ValueError: another option differs.
        """
        check_fixed(memo.options, options, {"speed", "most_lag_s", "fastest", "hold_s"})
        memo.options = options

    def wants(self, memo: SpeechMemo) -> int:
        """A word, unless there is something to say without it."""
        return 0 if memo.silence or memo.closing or self._renderable(memo) or self._speakable(memo) else 1

    def launch(
        self, inputs: Sequence[WordChunk], state: SpeechState, rows: Tensor, memos: list[SpeechMemo]
    ) -> SpeechStep:
        """Read a word of each stream: how long it takes to say, which the device tells, decides about the rest."""
        turns = Turns(len(memos))
        for i, chunk in enumerate(inputs):
            with turns.of(i) as events:
                self._read(memos[i], chunk, events)
        return SpeechStep(memos, turns, state, rows)

    def read(self, pending: SpeechStep) -> list[Turn]:
        """Queue the frames of words that can be spoken, render a chunk of them, and tell what was rendered and the
        words that ended with it."""
        memos, turns, state, rows = pending
        early = self._queue_words(memos, state, rows.tolist(), turns)
        rendering = [i for i in turns.sound if self._has_chunk(memos[i])]
        rendered = self._render([memos[i] for i in rendering], state, rows[rendering]) if rendering else []
        for i, said in early.items():  # samples that are given ahead of the renderer, where an utterance begins
            with turns.of(i) as events:
                self._tell(memos[i], _checked(said), False, events)
        for i in set(turns.sound) - set(rendering):
            with turns.of(i) as events:
                if memos[i].silence:
                    self._be_silent(memos[i], events)
                elif memos[i].closing:  # nothing of it could be spoken
                    self._close(memos[i], events)
        for i, (said, ahead, closes) in zip(rendering, rendered, strict=True):
            with turns.of(i) as events:
                self._tell(memos[i], follow(memos[i], _checked(said), ahead.numpy()), closes, events)
                if closes:
                    self._close(memos[i], events)
        return turns.finish([memo.ended and self.wants(memo) == 1 for memo in memos])

    def interrupt(self, memo: SpeechMemo, played_s: float | None = None) -> list[Event]:
        """Forget what was to be said; tells the words that were heard whole."""
        rate = self.voice.sample_rate
        played = memo.samples if played_s is None else min(memo.samples, round(played_s * rate))
        event = heard_of(memo.said, played, memo.told, rate)
        memo.told = event.span[1]
        frame = memo.frame + memo.queued
        memo.reader = Reader(ReaderOptions(memo.options.ssml, memo.options.lexicon))
        memo.source, memo.words, memo.said = "", [], []
        memo.at = memo.queued = memo.pause = memo.silence = memo.unbegun = memo.untold = memo.opened = memo.lent = 0
        memo.trimmed = memo.rendered = memo.fading = memo.closing = False
        memo.frame, memo.samples, memo.offset = frame, played, played - frame * self.voice.hop_length
        return [event]

    def end(self, memo: SpeechMemo) -> None:
        """Nothing is held."""

    # --------------------------------------------------------------------------------------------------- text to words

    def _read(self, memo: SpeechMemo, chunk: WordChunk, events: list[Event]) -> None:
        if not memo.source:
            memo.source_at = chunk.begin
        memo.source += "".join(word.text for word in chunk.words)
        if not (chunk.words or chunk.flush or chunk.last):
            return
        if chunk.words:
            made = memo.offset + (memo.frame + memo.queued) * self.voice.hop_length
            look_at_clock(memo, chunk.words[-1].time_s, made, self.voice.sample_rate)
            memo.since_s = memo.since_s if memo.words else memo.time_s
        for one in memo.reader.read(chunk):
            if isinstance(one, SkippedText):
                events.append(Skipped(text=one.text, span=(one.begin, one.end), reason=one.reason))
            else:
                memo.words.append(one)
        if chunk.flush or chunk.last:
            self._close_text(memo)
        memo.ended |= chunk.last
        if (surplus := len(memo.source) - MOST_SOURCE) > 0:
            memo.source, memo.source_at = memo.source[surplus:], memo.source_at + surplus

    def _close_text(self, memo: SpeechMemo) -> None:
        """What was read so far is spoken without waiting for more."""
        if len(memo.words) > memo.at:
            memo.words[-1] = replace(memo.words[-1], closes=True)

    def _speakable(self, memo: SpeechMemo) -> bool:
        """Whether the next word's context is known."""
        ahead = memo.words[memo.at :]
        known = memo.options.context == "words" and len(ahead) > WORDS_AFTER and not holds(memo)
        return known or any(map(_closes, ahead))

    def _window(self, memo: SpeechMemo) -> tuple[PhoneWindow, str]:
        """The next word in its context, and its phonemes."""
        words, at = memo.words, memo.at
        stop = next((i + 1 for i in range(at, len(words)) if _closes(words[i])), len(words))
        begin = 0
        if memo.options.context == "words":
            begin, stop = max(0, at - WORDS_BEFORE), min(stop, at + WORDS_AFTER + 1)
        spelled = self.phonemizer.phonemes(words[begin:stop])
        phones = [[self.voice.alphabet[phone] for phone in word if phone in self.voice.alphabet] for word in spelled]
        this, first = at - begin, 0
        while first < this and sum(map(len, phones[first:])) > MOST_PHONES:
            first += 1
        last = len(phones)
        while last > this + 1 and sum(map(len, phones[first:last])) > MOST_PHONES:
            last -= 1
        before = sum(map(len, phones[first:this]))
        flat = [phone for word in phones[first:last] for phone in word]
        return (
            PhoneWindow(
                flat,
                before,
                before + len(phones[this]),
                opens=begin == first == 0 and not memo.trimmed,
                closes=last == len(phones) and _closes(words[stop - 1]),
                speed=memo.options.speed * words[at].rate * pace(memo),
                speaker=mixture(memo.options.voice, self.voice.speakers),
            ),
            "".join(phone for phone in spelled[this] if phone in self.voice.alphabet),
        )

    # ------------------------------------------------------------------------------------------------- words to frames

    def _queue_words(
        self, memos: list[SpeechMemo], state: SpeechState, slots: list[int], turns: Turns
    ) -> dict[int, Tensor]:
        """Fill the queues up to a chunk, as far as words can be spoken; returns what can be given early."""
        early = {}
        for i in turns.sound:
            with turns.of(i) as events:
                memo, slot = memos[i], slots[i]
                while self._hungry(memo):
                    window, phonemes = self._window(memo)
                    behind = replace(window, begin=window.end, end=len(window.phones))
                    sound, following = None, None
                    if window.end > window.begin:
                        opens = not memo.queued and not memo.rendered and memo.options.context == "words"
                        windows = [window, behind] if opens and behind.end > behind.begin else [window]
                        sound, following = [*self.voice.acoustics(windows), None][:2]
                    self._queue_word(memo, state.queue[slot], window, phonemes, sound, events)
                    if following:
                        early[i] = self._open(memo, state, slot, following)
        return early

    def _open(self, memo: SpeechMemo, state: SpeechState, slot: int, following: WordAcoustics) -> Tensor:
        """Samples of the first word of an utterance, before those that it has to wait for."""
        self._begin([memo], state, torch.tensor([slot], device=state.queue.device))
        said = open_early(self.voice, state.renderer, slot, state.queue[slot, : memo.queued], following)
        memo.lent = min(memo.queued * self.voice.hop_length, len(said))
        memo.fading = len(said) == memo.lent + self.voice.hop_length
        if memo.fading:
            state.ahead[slot] = said[memo.lent :]
        return said[: memo.lent]

    def _hungry(self, memo: SpeechMemo) -> bool:
        return not memo.silence and not memo.closing and not self._renderable(memo) and self._speakable(memo)

    def _queue_word(
        self,
        memo: SpeechMemo,
        queue: Tensor,
        window: PhoneWindow,
        phonemes: str,
        sound: WordAcoustics | None,
        events: list[Event],
    ) -> None:
        word, durations = memo.words[memo.at], sound.durations.tolist() if sound else []
        opens, closes = window.opens and window.begin == 0, window.closes and window.end == len(window.phones)
        room, lead_most = self.chunk + MOST_FRAMES - memo.queued, round(LEAD_S * self.frames_per_second)
        limits = [min(MOST_FRAMES, room) // max(len(durations), 1)] * len(durations)
        hurry = pace(memo)
        if opens and durations and (not memo.said or hurry > 1):
            limits[0] = lead_most
        if closes and durations and hurry > 1:
            limits[-1] = lead_most
        kept = [min(pair) for pair in zip(durations, limits, strict=True)]
        if sound:
            queue[memo.queued : memo.queued + sum(kept)] = frames_of(sound, limits)
        begin = memo.frame + memo.queued
        memo.queued += sum(kept)
        lead, tail = kept[:1] if opens else [], _pause(phonemes, kept, closes)
        if phonemes.strip(PUNCTUATION):
            self._place(memo, word, begin + sum(lead), begin + sum(kept) - tail)
        elif word.text and word.end > memo.told:  # else it is one of the words of a number, say
            text = memo.source[max(0, word.begin - memo.source_at) : max(0, word.end - memo.source_at)]
            events.append(Skipped(text=text, span=(word.begin, word.end), reason="the voice has none of its sounds"))
        memo.at += 1
        if _closes(word):
            memo.closing, memo.pause = True, round(min(word.pause_s, MOST_PAUSE_S) / hurry * self.frames_per_second)
        before = WORDS_BEFORE if memo.options.context == "words" else memo.at
        if memo.at > before:
            del memo.words[: memo.at - before]
            memo.at, memo.trimmed = before, True

    def _place(self, memo: SpeechMemo, word: SpokenWord, begin: int, end: int) -> None:
        """Note when a word is spoken. Spoken words of one place in the text, as of a number, are one word of it."""
        first, last = (memo.offset + frame * self.voice.hop_length for frame in (begin, end))
        if word.end > memo.told:
            at = max(word.begin, memo.told)  # beyond the words before it that stand for the same text
            gap = memo.source[max(0, memo.told - memo.source_at) : max(0, at - memo.source_at)]
            if any(not c.isspace() and category(c)[0] != "P" for c in gap):  # text that is not spoken
                gap = " " * any(map(str.isspace, gap))
            text = gap + memo.source[max(0, at - memo.source_at) : max(0, word.end - memo.source_at)]
            memo.told = word.end
            memo.said.append(TimedText(text, at, word.end, first, last))
            memo.unbegun, memo.untold, memo.opened = memo.unbegun + 1, memo.untold + 1, memo.opened + 1
        elif memo.said:
            memo.said[-1] = replace(memo.said[-1], last=max(memo.said[-1].last, last))

    # ----------------------------------------------------------------------------------------------- frames to samples

    def _has_chunk(self, memo: SpeechMemo) -> bool:
        return self._renderable(memo) > 0 or (memo.closing and memo.rendered and not memo.silence)

    def _renderable(self, memo: SpeechMemo) -> int:
        """Frames that can be rendered now."""
        if memo.silence:
            return 0
        if memo.closing:
            return memo.queued
        if memo.options.follow and memo.queued < MOST_FRAMES // 2:  # else the word is too long to be waited for
            return frames_to_word_end(memo, self.lookahead, self.voice.hop_length)
        return memo.queued if memo.queued >= self.chunk else 0

    def _render(self, memos: list[SpeechMemo], state: SpeechState, rows: Tensor) -> list[tuple[Tensor, Tensor, bool]]:
        """Render a chunk of each stream: its samples, its `SpeechState.ahead`, and whether its utterance ends there."""
        rows, slots = sent(rows, state.queue.device), rows.tolist()
        if fresh := [n for n, memo in enumerate(memos) if not memo.rendered]:
            self._begin([memos[n] for n in fresh], state, rows[fresh])
        lengths = [min(self._renderable(memo), self.chunk) for memo in memos]
        finished = [memo.closing and memo.queued == length for memo, length in zip(memos, lengths, strict=True)]
        frames = state.queue[:, : self.chunk]
        samples, (ahead,) = self._rendering(frames, state.renderer, rows, lengths, finished, state.ahead[rows])
        for memo, length, slot in zip(memos, lengths, slots, strict=True):
            left = memo.queued - length
            state.queue[slot, :left] = state.queue[slot, length : memo.queued].clone()
            memo.queued, memo.frame, memo.rendered = left, memo.frame + length, True
        return list(zip(samples, ahead, finished, strict=True))

    def _begin(self, memos: list[SpeechMemo], state: SpeechState, slots: Tensor) -> None:
        """Put slots to the start of an utterance."""
        seeds, frames = (
            torch.tensor(numbers, device=slots.device)
            for numbers in ([memo.options.seed for memo in memos], [memo.frame for memo in memos])
        )
        state.renderer.reset(slots)
        self.voice.renderer.seek(state.renderer, slots, seeds, frames)

    # ------------------------------------------------------------------------------------------------ samples to events

    def _tell(self, memo: SpeechMemo, samples: np.ndarray, closes: bool, events: list[Event]) -> None:
        """Give out samples with the words that begin in them, and then the words that end in them."""
        if len(samples):
            wait_for_clock(memo, self.voice.sample_rate)
        start = memo.samples
        memo.samples += len(samples)
        waiting = memo.said[len(memo.said) - memo.unbegun :]
        begun = [piece for piece in waiting if closes or piece.first < memo.samples]
        if len(samples):
            events.append(self._speech(samples, start, begun, memo))
            memo.unbegun -= len(begun)
        self._tell_words(memo, closes, events)

    def _tell_words(self, memo: SpeechMemo, closes: bool, events: list[Event]) -> None:
        waiting = memo.said[len(memo.said) - memo.untold :]
        ended = [piece for piece in waiting if closes or piece.last <= memo.samples]
        if ended and ended[-1] is memo.said[-1] and not closes:
            ended.pop()  # more of it may be spoken: of a number, say
        rate = self.voice.sample_rate
        events += [Word(text=one.text, start=one.first / rate, end=one.last / rate, confidence=1.0) for one in ended]
        memo.untold -= len(ended)

    def _close(self, memo: SpeechMemo, events: list[Event]) -> None:
        """End the utterance."""
        memo.unbegun = 0
        self._tell_words(memo, True, events)
        if opened := memo.said[len(memo.said) - memo.opened :]:
            rate, text = self.voice.sample_rate, "".join(piece.text for piece in opened).strip()
            events.append(Final(text=text, start=opened[0].first / rate, end=opened[-1].last / rate))
        memo.words, memo.since_s = memo.words[memo.at :], memo.time_s
        memo.silence, memo.at, memo.opened, memo.pause = memo.pause, 0, 0, 0
        memo.trimmed = memo.rendered = memo.fading = memo.closing = False
        memo.said = memo.said[-REMEMBERED:]
        needed = min([memo.told, *(word.begin for word in memo.words)])
        if needed > memo.source_at:
            memo.source, memo.source_at = memo.source[needed - memo.source_at :], needed

    def _be_silent(self, memo: SpeechMemo, events: list[Event]) -> None:
        frames = min(memo.silence, self.chunk)
        memo.silence, memo.frame, start = memo.silence - frames, memo.frame + frames, memo.samples
        samples = np.zeros(frames * self.voice.hop_length, np.float32)
        memo.samples += len(samples)
        events.append(self._speech(samples, start, [], memo))

    def _speech(self, samples: np.ndarray, start: int, begun: list[TimedText], memo: SpeechMemo) -> Speech:
        rate = self.voice.sample_rate
        spoken = memo.said[: len(memo.said) - memo.unbegun]
        before = spoken[-1].end if spoken else memo.said[0].begin if memo.said else memo.told
        return Speech(
            samples=samples,
            sample_rate=rate,
            text="".join(piece.text for piece in begun),
            span=(begun[0].begin, begun[-1].end) if begun else (before, before),
            start=start / rate,
            end=(start + len(samples)) / rate,
        )


def _checked(samples: Tensor) -> np.ndarray:
    if not bool(torch.isfinite(samples).all()):
        raise FloatingPointError("the voice gave samples that are not finite numbers")
    return samples.cpu().numpy().astype(np.float32)


def _closes(word: SpokenWord) -> bool:
    return word.closes or word.pause_s > 0


def _pause(phonemes: str, durations: Sequence[int], closes: bool) -> int:
    """Frames of the punctuation at the end of a word, and of the silence behind it if the utterance closes there."""
    silent = len(phonemes) - len(phonemes.rstrip(PUNCTUATION)) + closes
    return sum(durations[len(durations) - silent :]) if silent else 0
