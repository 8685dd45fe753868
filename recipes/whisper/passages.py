"""Windows to fine-tune a stock Whisper on: recordings, alone or in a row, with their texts as it writes them.

Whisper is used on windows of 30 s, most of which hold several sentences, with timestamps or without. So recordings are
strung together up to a length that is drawn anew for every window, and a share of the texts has the times at which each
recording begins and ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from loquent.asr.whisper.tokenizer import TIMESTAMP_STEP_S, WhisperTokenizer
from loquent.recipes.data.augment import Augmenter, AugmentOptions, change_speed, concatenate
from loquent.recipes.data.batching import BatchOptions, DurationBatches
from loquent.recipes.data.manifest import SAMPLE_RATE, Utterance

NOTHING = -100  # as a target: no token to predict
END_S = 1.0  # of silence after the longest window of a batch


@dataclass(frozen=True)
class PassageOptions:
    """How windows are made of recordings.

    Raises:
        ValueError: a probability or a length that no window can have.
    """

    joined: float = 0.5  # share of the windows that may hold several recordings
    pause_s: tuple[float, float] = (0.2, 1.0)  # between them
    timestamps: float = 0.5  # share of the windows whose texts have times
    whole: float = 0.15  # share of the batches that are padded to the model's 30 s, which takes longer

    def __post_init__(self) -> None:
        for name in ("joined", "timestamps", "whole"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}: expected a share from 0 to 1, got {getattr(self, name)}")
        if not 0 <= self.pause_s[0] <= self.pause_s[1]:
            raise ValueError(f"pause_s: expected two lengths, the shorter first, got {self.pause_s}")


@dataclass(frozen=True)
class Passage:
    """The plan of a window: which recordings, how fast and after what silence each, and what its randomness is."""

    utterances: tuple[int, ...]
    speeds: tuple[float, ...]
    silences: tuple[float, ...]
    duration: float  # s
    seed: int


class PassageData:
    """Batches of windows; the same for every run with the same seed, in any process.

    Args:
        rows: recordings with texts.
        tokenizer: of the model.
        window_s: the longest window of the model, 30 s.
        longest_text: most tokens of a window.
        options, batch, augment: how windows are made, batched and changed.
        noises: recordings of noise for the augmentation.
        seed: of everything random.
    """

    def __init__(
        self,
        rows: Sequence[Utterance],
        tokenizer: WhisperTokenizer,
        window_s: float,
        longest_text: int,
        options: PassageOptions,
        batch: BatchOptions,
        augment: AugmentOptions,
        noises: Sequence[np.ndarray],
        seed: int,
    ) -> None:
        self.rows, self.tokenizer, self.options, self.batch, self.seed = rows, tokenizer, options, batch, seed
        self.window_s, self.longest_text = window_s, longest_text
        self.speed, self.padding_s = augment.speed, augment.padding_s
        self.augmenter = Augmenter(augment, noises)
        self.texts = [tokenizer.encode(" " + row.text) for row in rows]

    def batches(self, epoch: int, rank: int = 0, processes: int = 1) -> list[list[Passage]]:
        """Plans of the batches of one epoch that this process works on."""
        passages = self.passages(epoch)
        batches = DurationBatches([one.duration for one in passages], self.batch, self.seed)
        return [[passages[number] for number in batch] for batch in batches.epoch(epoch, rank, processes)]

    def passages(self, epoch: int) -> list[Passage]:
        """All windows of an epoch; every recording is in one of them."""
        rng = np.random.default_rng((self.seed, epoch))
        waiting = rng.permutation(len(self.rows)).tolist()
        found = []
        while waiting:
            found.append(self._filled(waiting, rng))
        return found

    def _filled(self, waiting: list[int], rng: np.random.Generator) -> Passage:
        """Take recordings off the end of the list until a window is full."""
        limit = rng.uniform(0, self.window_s) if rng.random() < self.options.joined else 0.0
        numbers: list[int] = []
        speeds: list[float] = []
        silences: list[float] = []
        total, tokens = 0.0, 0
        while waiting:
            duration = self.rows[waiting[-1]].duration
            slowest = np.ceil(100 * duration / (self.window_s - 0.05)) / 100  # or a long one would not fit
            speed = max(round(rng.uniform(*self.speed), 2), float(slowest))
            silence = rng.uniform(*(self.options.pause_s if numbers else self.padding_s))
            if not numbers:
                silence = max(min(silence, self.window_s - 0.05 - duration / speed), 0.0)
            more, text = duration / speed + silence, len(self.texts[waiting[-1]]) + 2
            if numbers and (total + more > limit or tokens + text > self.longest_text):
                break
            numbers.append(waiting.pop())
            speeds.append(speed)
            silences.append(silence)
            total, tokens = total + more, tokens + text
        return Passage(tuple(numbers), tuple(speeds), tuple(silences), total, int(rng.integers(2**31)))

    def collate(self, passages: Sequence[Passage], epoch: int) -> dict[str, Tensor]:
        """A batch: samples (B, N), length (B,) of what is not padding, tokens (B, T), targets (B, T) or `NOTHING`."""
        rng = np.random.default_rng((self.seed, epoch, *(one.seed for one in passages)))
        made = [self.make(one, epoch) for one in passages]
        samples = pad_sequence([torch.from_numpy(one) for one, _, _ in made], batch_first=True)
        window = round(self.window_s * SAMPLE_RATE)
        whole = rng.random() < self.options.whole
        size = window if whole else min(samples.shape[1] + round(END_S * SAMPLE_RATE), window)
        texts = [torch.tensor([*control, *text, self.tokenizer.eot]) for _, control, text in made]
        targets = [text[1:].clone() for text in texts]
        for target, (_, control, _) in zip(targets, made, strict=True):
            target[: len(control) - 1] = NOTHING
        return {
            "samples": torch.nn.functional.pad(samples, (0, size - samples.shape[1])),
            "length": torch.tensor([len(one) for one, _, _ in made]),
            "tokens": pad_sequence([text[:-1] for text in texts], batch_first=True, padding_value=self.tokenizer.eot),
            "targets": pad_sequence(targets, batch_first=True, padding_value=NOTHING),
        }

    def make(self, passage: Passage, epoch: int) -> tuple[np.ndarray, list[int], list[int]]:
        """A window's samples (N,), the tokens that open its text, and the text's."""
        rng = np.random.default_rng((self.seed, epoch, passage.seed))
        timestamps = bool(rng.random() < self.options.timestamps)
        language = self.rows[passage.utterances[0]].language
        clips, text, at = [np.zeros(0, np.float32)], [], 0.0
        for number, speed, silence in zip(passage.utterances, passage.speeds, passage.silences, strict=True):
            clip = change_speed(self.rows[number].samples(), speed)
            clips.append(clip)
            begin, at = at + silence, at + silence + len(clip) / SAMPLE_RATE
            words = self.texts[number]
            text += [self._timestamp(begin), *words, self._timestamp(at)] if timestamps else words
        samples = self.augmenter.transmit(concatenate(clips, passage.silences), rng)
        samples = samples[: round(self.window_s * SAMPLE_RATE)]
        return samples, list(self.tokenizer.sot_sequence(language, timestamps=timestamps)), text

    def _timestamp(self, seconds: float) -> int:
        return self.tokenizer.timestamp_begin + round(min(seconds, self.window_s) / TIMESTAMP_STEP_S)
