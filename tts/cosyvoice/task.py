"""CosyVoice as a task of the runtime: words in, one at a time, and speech out, a speech token of each stream at a time.

A text is spoken in utterances. One ends where the text is flushed or ends, with a sentence once it has some words, and
where the language model has no room for more text. What is spoken depends on the text alone, however it arrives.

The model does not tell when a word is spoken, so there are no `Word` events. `Speech` brings the words that the model
was given since the last one: what is heard of them follows soon, and in any case before the `Final` of the utterance.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from loquent.speech.audio.files import Audio
from loquent.speech.runtime.events import Event, Final, Skipped, Speech
from loquent.speech.runtime.options import OptionError
from loquent.speech.runtime.task import Offer, Port, Turn, check_fixed
from loquent.speech.runtime.turns import Turns
from loquent.speech.text.words import MAX_WORD, WordChunk
from loquent.tts.cosyvoice.memo import (
    MOST_SOURCE,
    REMEMBERED,
    Bounds,
    CosyVoiceMemo,
    SavedUtterance,
    ToldText,
    fed,
    memo_of,
)
from loquent.tts.cosyvoice.model import CosyVoice
from loquent.tts.cosyvoice.options import CosyVoiceOptions
from loquent.tts.cosyvoice.stages import StagesState, Utterance
from loquent.tts.cosyvoice.voice import Voice
from loquent.tts.heard import heard_of

LEAST_WORDS = 12  # of an utterance that ends with a sentence: the model speaks short ones worse
MOST_TOKENS = 200  # of the text of an utterance, about 150 English words
LEAST_TOKENS = 16  # that there has to be room for
SAMPLED = 16  # numbers of each weight that a fingerprint covers
NEXT_SEED = 0x4F1BBCDCBFA53E0B  # odd: seeds of a stream's utterances all differ
END_OF_SENTENCE = re.compile("[.!?…。！？][\"'”’»)\\]}」』）】]*$")


class CosyVoiceStep(NamedTuple):
    """A step that is to be made."""

    inputs: Sequence[WordChunk]
    state: StagesState
    rows: Tensor  # (B,)
    memos: list[CosyVoiceMemo]


class CosyVoiceTask:
    """A CosyVoice that speaks streams of text.

    Args:
        voice: the models, with the voices that they know.
    """

    takes = Port("text")
    Options = CosyVoiceOptions
    languages = ("zh", "en", "ja", "ko")

    def __init__(self, voice: CosyVoice) -> None:
        self.voice, self.stages, self.tokenizer = voice, voice.stages, voice.tokenizer
        self.gives = Port("audio", voice.sample_rate)
        self.fingerprint = _fingerprint(voice)

    @classmethod
    def load(cls, folder: str | Path, device: torch.device | str = "auto") -> CosyVoiceTask:
        """Read the folder of a CosyVoice 2 or 3; see `CosyVoice.from_pretrained`."""
        return cls(CosyVoice.from_pretrained(folder, device=device))

    def add_voice(
        self, name: str, recording: str | os.PathLike[str] | Audio, text: str = "", *, instruction: str | None = None
    ) -> None:
        """Offer the voice of a recording to streams that begin from now on.

        Args:
            recording, text, instruction: see `CosyVoice.voice`.

        Raises:
            ValueError: there is a voice of that name, or none, or the recording is of no use.
            AudioError, FileNotFoundError, ImportError: see `CosyVoice.voice`.
        """
        if not name or name in self.voice.voices:
            raise ValueError(f"a new voice needs a name of its own, got {name!r}")
        voice = self.voice.voice(recording, text, instruction=instruction)
        self._bounds(voice)
        self.voice.voices[name] = voice

    def offer(self) -> Offer:
        """See `loquent.speech.runtime.task.Offering`."""
        return Offer(self.languages, voices=self.voice.speakers)

    # ------------------------------------------------------------------------------------------- what the engine calls

    def initial_state(self, slots: int) -> StagesState:
        """Pool of ``slots`` streams."""
        return self.stages.initial_state(slots)

    def start(self, options: CosyVoiceOptions) -> CosyVoiceMemo:
        """Begin a stream.

        Raises:
            OptionError: there is no such voice, or it leaves no room for text.
        """
        voice = self._voice(options)
        self._bounds(voice)
        return CosyVoiceMemo(options, _digest(voice))

    def restore(self, values: dict[str, Any]) -> CosyVoiceMemo:
        """Inverse of ``CosyVoiceMemo.to_dict``."""
        memo, saved = memo_of(values)
        voice = self._voice(memo.options)
        if memo.prompt != _digest(voice):
            raise ValueError(f"the voice {memo.options.voice[:60]!r} is another one here")
        if saved is not None:
            memo.utterance = self._restored(memo, saved, voice)
        return memo

    def check_restored(self, memo: CosyVoiceMemo, state: StagesState) -> None:
        """See `loquent.speech.runtime.task.Restorable`."""
        if memo.utterance is None:
            return
        steps = fed(memo.utterance.script, self._voice(memo.options))
        told = {"steps of the language model": steps, "frames": memo.utterance.frames}
        found = int(state.tokens.position[0]), int(state.flow.solver.frame[0])
        for (what, count), has in zip(told.items(), found, strict=True):
            if count != has:
                raise ValueError(f"the stream has had {count} {what}, but its state {has}")

    def configure(self, memo: CosyVoiceMemo, options: CosyVoiceOptions) -> None:
        """Nothing can be changed.

        Raises:
            ValueError: an option differs.
        """
        check_fixed(memo.options, options)

    def wants(self, memo: CosyVoiceMemo) -> int:
        """A word, unless there is something to say without it."""
        if memo.utterance is not None:
            return 0 if self.stages.ready(memo.utterance) else 1
        return 0 if _speakable(memo.source) else 1

    def launch(
        self, inputs: Sequence[WordChunk], state: StagesState, rows: Tensor, memos: list[CosyVoiceMemo]
    ) -> CosyVoiceStep:
        """Nothing: the tokens that are drawn decide what the device does next."""
        return CosyVoiceStep(inputs, state, rows, memos)

    def read(self, pending: CosyVoiceStep) -> list[Turn]:
        """Give the model a word, draw a speech token, make samples of those that make a chunk, and give them out; end
        utterances that have been spoken."""
        inputs, state, rows, memos = pending
        turns, slots = Turns(len(memos)), rows.tolist()
        speaking = []
        for i, (chunk, memo) in enumerate(zip(inputs, memos, strict=True)):
            with turns.of(i):
                self._read(memo, chunk, state, slots[i])
                if memo.utterance is not None and self.stages.ready(memo.utterance):
                    self._check_room(memo)
                    speaking.append(i)
        samples = list[Tensor]()
        if speaking:
            utterances = [utterance for i in speaking if (utterance := memos[i].utterance)]
            samples = self.stages.step(state, [slots[i] for i in speaking], utterances)
        for i, said in zip(speaking, samples, strict=True):
            with turns.of(i) as events:
                self._tell(memos[i], said, events)
        return turns.finish([memo.ended and self.wants(memo) == 1 for memo in memos])

    def interrupt(self, memo: CosyVoiceMemo, played_s: float | None = None) -> list[Event]:
        """Forget what was to be said; tells the text of the `Speech` that was heard whole."""
        rate = self.voice.sample_rate
        played = memo.samples if played_s is None else min(memo.samples, round(played_s * rate))
        event = heard_of(memo.said, played, memo.told, rate)
        memo.told = event.span[1]
        memo.utterance, memo.source, memo.held, memo.said = None, "", "", []
        memo.number = memo.used = memo.words = 0
        memo.closing, memo.samples = False, played
        return [event]

    def end(self, memo: CosyVoiceMemo) -> None:
        """Nothing is held."""

    # -------------------------------------------------------------------------------------------------- text to tokens

    def _read(self, memo: CosyVoiceMemo, chunk: WordChunk, state: StagesState, slot: int) -> None:
        if not memo.source:
            memo.source_at = memo.told = chunk.begin
        memo.source += "".join(word.text for word in chunk.words)
        memo.closing |= chunk.flush or chunk.last
        memo.ended |= chunk.last
        if memo.utterance is None:
            if not _speakable(memo.source):
                return _drop_silent(memo)
            self._begin(memo, state, slot)
        self._push(memo)

    def _begin(self, memo: CosyVoiceMemo, state: StagesState, slot: int) -> None:
        memo.number += 1
        voice, in_turns = self._voice(memo.options), memo.options.context == "words"
        memo.utterance = self.stages.begin(state, slot, voice, in_turns=in_turns, seed=_seed(memo))
        memo.used = len(memo.source) - len(memo.source.lstrip())
        memo.first, memo.words = memo.samples, 0

    def _push(self, memo: CosyVoiceMemo) -> None:
        """Give the utterance what it has room for of the text."""
        utterance = memo.utterance
        if utterance is None or utterance.script.ended:
            return
        text = memo.source[memo.used :]
        taken = self._room(memo, text)
        memo.used += taken
        memo.words += _speakable(text[:taken])
        tokens, memo.held = self.tokenizer.advance(memo.held + text[:taken])
        utterance.push(tokens)
        full = taken < len(text)
        ends = memo.words >= LEAST_WORDS and END_OF_SENTENCE.search(text[:taken]) is not None
        if full or ends or memo.closing:
            utterance.push(self.tokenizer.encode(memo.held))
            utterance.finish()
            memo.held = ""

    def _room(self, memo: CosyVoiceMemo, text: str) -> int:
        """Characters of a text that an utterance has room for: all or none, but of its first word a part."""
        assert memo.utterance is not None
        given = memo.utterance.script.given
        room = self._bounds(self._voice(memo.options)).tokens - given
        taken = len(text)
        while taken and not self._fits(memo, text[:taken], room):
            taken = 0 if given or memo.held else taken // 2
        return taken

    def _fits(self, memo: CosyVoiceMemo, text: str, room: int) -> bool:
        if memo.used + len(text) > MOST_SOURCE:
            return False
        return len(self.tokenizer.encode(memo.held + text)) <= room

    # ----------------------------------------------------------------------------------------------- samples to events

    def _tell(self, memo: CosyVoiceMemo, said: Tensor, events: list[Event]) -> None:
        samples = _checked(said)
        if len(samples):
            begin, memo.samples = memo.samples, memo.samples + len(samples)
            text, span = self._untold(memo)
            if text:
                memo.said = [*memo.said, ToldText(text, *span, memo.samples)][-REMEMBERED:]
                memo.told = span[1]
            rate = self.voice.sample_rate
            start, end = begin / rate, memo.samples / rate
            events.append(Speech(samples=samples, sample_rate=rate, text=text, span=span, start=start, end=end))
        if memo.utterance is not None and memo.utterance.done:
            self._close(memo, events)

    def _untold(self, memo: CosyVoiceMemo) -> tuple[str, tuple[int, int]]:
        """Text that the utterance was given and no speech was given out with, and its characters."""
        begin, end = max(memo.told, memo.source_at), memo.source_at + memo.used
        text = memo.source[begin - memo.source_at : memo.used]
        if not text.strip():
            return "", (memo.told, memo.told)
        return text, (end - len(text.lstrip()), end)

    def _close(self, memo: CosyVoiceMemo, events: list[Event]) -> None:
        """End the utterance."""
        rate, text = self.voice.sample_rate, memo.source[: memo.used]
        end = memo.source_at + memo.used
        if memo.samples > memo.first:
            events.append(Final(text=text.strip(), start=memo.first / rate, end=memo.samples / rate))
        else:
            span = (end - len(text.lstrip()), end)
            events.append(Skipped(text=text.strip(), span=span, reason="the model has nothing to say for it"))
        memo.source, memo.source_at, memo.told = memo.source[memo.used :], end, end
        memo.utterance, memo.used, memo.words = None, 0, 0
        if not _speakable(memo.source):
            _drop_silent(memo)

    # --------------------------------------------------------------------------------------------------------- voices

    def _voice(self, options: CosyVoiceOptions) -> Voice:
        known = self.voice.voices
        if not known:
            raise OptionError("voice: the checkpoint knows none; add that of a recording with `add_voice`")
        name = options.voice or next(iter(known))
        if name not in known:
            raise OptionError(f"voice: there is no {name[:60]!r}; expected one of {', '.join(known)}")
        return self.voice.prompt_of(name)

    def _bounds(self, voice: Voice) -> Bounds:
        """Of an utterance: however much speech is drawn for so much text, the language model has room for it.

        Raises:
            OptionError: the voice's own text and speech leave too little.
        """
        generator = self.stages.generator
        layout, capacity = generator.model.layout, generator.model.decoder.capacity
        in_turns = math.ceil(layout.speech_block / layout.text_block)
        # In front of the text and behind it stands a mark; text of the voice may be answered with new speech.
        taken = 2 + len(voice.spoken) + (1 + in_turns) * len(voice.text)
        tokens = min(MOST_TOKENS, (capacity - taken) // (1 + max(in_turns, math.ceil(generator.most))))
        if tokens < LEAST_TOKENS:
            raise OptionError(
                f"voice: {len(voice.text)} text tokens and {len(voice.spoken)} speech tokens leave no room for text in "
                f"a capacity of {capacity}; use a shorter recording, or a larger capacity"
            )
        return Bounds(capacity, tokens, generator.sampling.window)

    def _restored(self, memo: CosyVoiceMemo, saved: SavedUtterance, voice: Voice) -> Utterance:
        in_turns = memo.options.context == "words"
        script = self.stages.generator.begin(voice.text, voice.spoken, in_turns=in_turns, seed=_seed(memo))
        return saved.utterance(script, voice, self._bounds(voice))

    def _check_room(self, memo: CosyVoiceMemo) -> None:
        """Make sure that a step of this stream cannot be what a batch fails of."""
        assert memo.utterance is not None
        script, capacity = memo.utterance.script, self.stages.generator.model.decoder.capacity
        if (steps := fed(script, self._voice(memo.options)) + len(script.due)) > capacity:
            raise ValueError(f"an utterance has {steps} steps, more than the capacity of {capacity}")


def _seed(memo: CosyVoiceMemo) -> int:
    """Of the utterance under way; that of the first one is the stream's."""
    return (memo.options.seed + (memo.number - 1) * NEXT_SEED) % 2**63


def _speakable(text: str) -> bool:
    """Whether there is more than white space and punctuation in a text."""
    return any(map(str.isalnum, text))


def _drop_silent(memo: CosyVoiceMemo) -> None:
    """Forget text in which there is nothing to say: all of it if nothing is waited for, else the oldest of much."""
    if memo.closing:
        memo.source, memo.closing = "", False
    elif len(memo.source) > 2 * MAX_WORD:
        memo.source_at += len(memo.source) - MAX_WORD
        memo.source = memo.source[-MAX_WORD:]


def _checked(samples: Tensor) -> np.ndarray:
    if not bool(torch.isfinite(samples).all()):
        raise FloatingPointError("CosyVoice gave samples that are not finite numbers")
    return samples.cpu().numpy().astype(np.float32)


def _digest(voice: Voice) -> str:
    digest = hashlib.sha256(repr((voice.text, voice.speech, voice.continued)).encode())
    for part in (voice.speaker, voice.mel):
        if part is not None:
            digest.update(part.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _fingerprint(voice: CosyVoice) -> str:
    """Differs between checkpoints and settings whose streams do not continue each other; voices tell themselves."""
    stages, generator = voice.stages, voice.stages.generator
    settings = (asdict(voice.config), asdict(stages.flow.how), generator.least, generator.most, voice.tokenizer.size)
    digest = hashlib.sha256(repr((settings, generator.model.decoder.capacity)).encode())
    for model in (generator.model, stages.flow, stages.vocoder):
        for name, weight in model.state_dict().items():
            some = weight.detach().flatten()[:: max(1, weight.numel() // SAMPLED)][:SAMPLED]
            digest.update(f"{name} {tuple(weight.shape)}".encode() + some.float().cpu().numpy().tobytes())
    return f"cosyvoice-1 {digest.hexdigest()}"
