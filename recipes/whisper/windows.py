"""Windows of up to 30 s to train on: utterances with word times, one or several in a row, with pauses, noise and rooms.

A streaming recogniser meets windows of all lengths: a word, a sentence, half a minute of unfinished speech, speech that
continues after a hand-over, and sounds without speech. So utterances are strung together up to a length that is
drawn anew for every window. Nothing is padded to 30 s.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from loquent.asr.whisper.tokenizer import WhisperTokenizer
from loquent.recipes.data.augment import (
    Augmenter,
    AugmentOptions,
    change_level,
    change_speed,
    colored_noise,
    concatenate,
)
from loquent.recipes.data.batching import BatchOptions, DurationBatches
from loquent.recipes.data.manifest import SAMPLE_RATE, Utterance
from loquent.recipes.whisper.moments import Transcript, token_ends
from loquent.recipes.whisper.word_times import TimedText

LONGEST_S = 29.9  # of any window: what the model has positions for


@dataclass(frozen=True)
class WindowOptions:
    """How windows are made of utterances."""

    joined: float = 0.5  # share of the windows that may have several utterances
    longest_s: float = 29.0  # windows with several have up to so much; how much is drawn for each
    pause_s: tuple[float, float] = (0.1, 1.2)  # between utterances
    continued: float = 0.1  # share of the longer windows that begin amid the speech, prompted with what was said before
    noise_only: float = 0.05  # windows without speech, as a share of the others
    noise_only_s: tuple[float, float] = (0.5, 8.0)
    level_db: tuple[float, float] = (-6.0, 6.0)  # of each utterance in a window

    def __post_init__(self) -> None:
        if not 1.0 <= self.longest_s <= 30.0:
            raise ValueError(f"longest_s must be from 1 to 30 seconds, got {self.longest_s}")


@dataclass(frozen=True)
class TimedUtterance:
    """A recording and what it says when."""

    row: Utterance
    timed: TimedText


@dataclass(frozen=True)
class Window:
    """A plan of a window; everything but its noise is settled.

    utterances: numbers of its utterances, in order.
    speeds:     how much faster each is played.
    silences:   seconds of silence before the first, between them and after the last: one more than ``utterances``.
    seed:       of all else.
    """

    utterances: tuple[int, ...]
    speeds: tuple[float, ...]
    silences: tuple[float, ...]
    seed: int


class MadeWindow(NamedTuple):
    """A window's samples (N,), as they were before noise, rooms and lines (N,), and what is said."""

    samples: np.ndarray
    clean: np.ndarray
    transcript: Transcript


class WindowData:
    """Windows for every epoch, the same for every run with the same seed, in any process.

    Args:
        sources: utterances and how often each comes in an epoch, on average.
        tokenizer: of the model.
        options, batch, augment: how windows are made, batches of them, and changes to recordings; ``augment.padding_s``
            is the silence before and after.
        noises: recordings of noise.
        seed: of everything that is drawn.
        context: tokens of a prompt, at most.
    """

    def __init__(
        self,
        sources: Sequence[tuple[Sequence[TimedUtterance], float]],
        tokenizer: WhisperTokenizer,
        options: WindowOptions,
        batch: BatchOptions,
        augment: AugmentOptions,
        noises: Sequence[np.ndarray],
        seed: int,
        context: int,
    ) -> None:
        self.utterances = [one for utterances, _ in sources for one in utterances]
        self.weights = np.array([weight for utterances, weight in sources for _ in utterances])
        self.tokenizer, self.options, self.batch = tokenizer, options, batch
        self.speed, self.silence, self.noises, self.seed, self.context = (
            augment.speed, augment.padding_s, noises, seed, context,
        )  # fmt: skip
        # Speed and silence are part of the plan, for the times of words depend on them.
        self.augment = Augmenter(replace(augment, speed=(1.0, 1.0), padding_s=(0.0, 0.0)), noises)

    def duration(self, window: Window) -> float:
        """Seconds."""
        played = sum(
            self.utterances[number].row.duration / speed
            for number, speed in zip(window.utterances, window.speeds, strict=True)
        )
        return played + sum(window.silences)

    def batches(self, epoch: int, rank: int = 0, processes: int = 1) -> list[list[Window]]:
        """The batches of one epoch that this process works on."""
        windows = self.windows(epoch)
        batches = DurationBatches([self.duration(one) for one in windows], self.batch, self.seed)
        return [[windows[number] for number in batch] for batch in batches.epoch(epoch, rank, processes)]

    def windows(self, epoch: int) -> list[Window]:
        """All windows of an epoch: every utterance, as often as its weight says, in one of them each time."""
        rng = np.random.default_rng((self.seed, epoch))
        copies = np.floor(self.weights + rng.random(len(self.weights))).astype(int)
        drawn = np.repeat(np.arange(len(copies)), copies)
        rng.shuffle(drawn)
        windows = []
        for language in sorted({one.row.language for one in self.utterances}):
            waiting = [number for number in drawn.tolist() if self.utterances[number].row.language == language][::-1]
            while waiting:
                windows.append(self._filled(waiting, rng))
        for _ in range(round(self.options.noise_only * len(windows))):
            length = rng.uniform(*self.options.noise_only_s)
            windows.append(Window((), (), (length,), int(rng.integers(2**31))))
        return windows

    def _filled(self, waiting: list[int], rng: np.random.Generator) -> Window:
        """Take utterances off the end of the list until a window is full."""
        options = self.options
        limit = rng.uniform(0, options.longest_s) if rng.random() < options.joined else 0.0
        numbers: list[int] = []
        speeds: list[float] = []
        silences = [rng.uniform(*self.silence)]
        after = rng.uniform(*self.silence)
        total = silences[0] + after
        while waiting:
            duration = self.utterances[waiting[-1]].row.duration
            slowest = np.ceil(100 * duration / LONGEST_S) / 100  # or a long one would not fit
            speed = max(round(rng.uniform(*self.speed), 2), float(slowest))  # as `change_speed` rounds it
            pause = rng.uniform(*options.pause_s) if numbers else 0.0
            more = duration / speed + pause
            if numbers and total + more > limit:
                break
            numbers.append(waiting.pop())
            speeds.append(speed)
            silences += [pause] if len(numbers) > 1 else []
            total += more
        if total > LONGEST_S:  # a single long one
            silences, after = [0.0], 0.0
        return Window(tuple(numbers), tuple(speeds), (*silences, after), int(rng.integers(2**31)))

    def collate(self, windows: Sequence[Window], epoch: int) -> dict[str, Tensor | list[Transcript]]:
        """Samples (B, N) and clean (B, N) with silence after them, length (B,) of each row, and transcripts."""
        made = [self.make(window, epoch) for window in windows]
        return {
            "samples": pad_sequence([torch.from_numpy(one.samples) for one in made], batch_first=True),
            "clean": pad_sequence([torch.from_numpy(one.clean) for one in made], batch_first=True),
            "length": torch.tensor([len(one.samples) for one in made]),
            "transcripts": [one.transcript for one in made],
        }

    def make(self, window: Window, epoch: int) -> MadeWindow:
        """A window as its plan says."""
        rng = np.random.default_rng((self.seed, epoch, window.seed))
        if not window.utterances:
            language = self.utterances[int(rng.integers(len(self.utterances)))].row.language
            noise = self._noise(round(window.silences[0] * SAMPLE_RATE), rng)
            return MadeWindow(noise, noise, Transcript(self._sot(language), [], []))
        tokens: list[int] = []
        ends: list[float] = []
        clips = [np.zeros(0, np.float32)]
        at = window.silences[0]
        starts: list[tuple[float, int]] = []  # of words: when, and tokens before it
        for number, speed, silence in zip(window.utterances, window.speeds, window.silences[1:], strict=True):
            one = self.utterances[number]
            clip = change_level(change_speed(one.row.samples(), speed), rng.uniform(*self.options.level_db))
            clips.append(clip)
            duration = len(clip) / SAMPLE_RATE
            words = [(word, start / speed, min(end / speed, duration)) for word, start, end in one.timed.words]
            encoded = [self.tokenizer.encode(word) for word, _, _ in words]
            ends += [at + end for end in token_ends(words, [len(ids) for ids in encoded])]
            for (_, start, _), ids in zip(words, encoded, strict=True):
                starts.append((at + start, len(tokens)))
                tokens += ids
            at += duration + silence
        samples = concatenate([*clips, np.zeros(0, np.float32)], window.silences)
        language = self.utterances[window.utterances[0]].row.language
        control = self._sot(language)
        if len(starts) > 8 and rng.random() < self.options.continued:
            begin, before = starts[int(rng.integers(1, len(starts) // 2))]
            samples = samples[int(begin * SAMPLE_RATE) :]
            control = [self.tokenizer.sot_prev, *tokens[:before][-self.context :], *control]
            tokens, ends = tokens[before:], [end - begin for end in ends[before:]]
        return MadeWindow(self.augment(samples, rng), samples, Transcript(control, tokens, ends))

    def _noise(self, length: int, rng: np.random.Generator) -> np.ndarray:
        """A window without speech: a recording of noise, coloured noise, or silence."""
        if not self.noises or rng.random() < 0.3:
            noise = colored_noise(length, rng.uniform(0, 2), rng) * 10 ** rng.uniform(-5, -1)
        else:
            recording = self.noises[int(rng.integers(len(self.noises)))]
            begin = int(rng.integers(len(recording)))
            noise = np.take(recording, np.arange(begin, begin + length), mode="wrap")
        return change_level(noise.astype(np.float32), rng.uniform(-20, 6))

    def _sot(self, language: str) -> list[int]:
        return list(self.tokenizer.sot_sequence(language, "transcribe", timestamps=False))
