"""Training material: utterances of several sources, mixed, augmented and made into batches."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from loquent.recipes.data.augment import Augmenter, AugmentOptions
from loquent.recipes.data.batching import BatchOptions, DurationBatches
from loquent.recipes.data.manifest import SAMPLE_RATE, ManifestError, Utterance, read_manifest, select
from loquent.speech.audio.files import read_audio


@dataclass(frozen=True)
class SourceOptions:
    """Some rows of a manifest."""

    manifest: str | None = None  # file or folder; the recipe's own prepared data by default
    split: str | None = None  # what the row says; by default that of the section: train, valid or eval
    kind: str | None = None  # likewise
    language: str | None = None
    human_text: bool = False  # leave out texts that a machine wrote and no person checked
    longest_s: float | None = None  # leave out longer ones
    weight: float = 1.0  # how often a row comes in an epoch, on average


def read_source(source: SourceOptions, prepared: Sequence[Utterance], split: str) -> list[Utterance]:
    """The rows of a source.

    Raises:
        ManifestError: there are none, and some were to be drawn.
    """
    kind = source.kind
    wanted: dict[str, Any] = {
        "split": source.split or split,
        "language": source.language,
        "human_text": source.human_text,
        "longest_s": source.longest_s,
        "where": None if kind is None else lambda row: row.extra.get("kind") == kind,
    }
    rows = select(prepared, **wanted) if source.manifest is None else read_manifest(source.manifest, **wanted)
    if not rows and source.weight:
        raise ManifestError(f"no rows for {source}, split {source.split or split!r}")
    return rows


class TrainingData:
    """Batches of augmented recordings; the same for every run with the same seed, in any process.

    Args:
        sources: rows and how often each comes in an epoch.
        batch, augment: sizes, and changes to recordings.
        noises: recordings of noise for the augmentation.
        seed: of the order and the changes.
    """

    def __init__(
        self,
        sources: Sequence[tuple[Sequence[Utterance], float]],
        batch: BatchOptions,
        augment: AugmentOptions,
        noises: Sequence[np.ndarray],
        seed: int,
    ) -> None:
        self.rows = [row for rows, _ in sources for row in rows]
        weights = [weight for rows, weight in sources for _ in rows]
        padding = sum(augment.padding_s)  # on average
        self.batches = DurationBatches([row.duration + padding for row in self.rows], batch, seed, weights)
        self.augment, self.seed = Augmenter(augment, noises), seed

    def samples(self, index: int, epoch: int, copy: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """A recording as this epoch hears it, and as it was before noise, rooms and lines."""
        rng = np.random.default_rng((self.seed, epoch, index, copy))
        spoken = self.augment.speak(self.rows[index].samples(), rng)
        return self.augment.transmit(spoken, rng), spoken

    def collate(self, indices: Sequence[int], epoch: int) -> dict[str, Tensor]:
        """Recordings with silence after them: ``samples`` and ``clean`` (B, N), and the ``length`` of each (B,)."""
        seen: dict[int, int] = {}
        recordings = []
        for index in indices:
            seen[index] = seen.get(index, -1) + 1  # an utterance that comes twice sounds different
            recordings.append([torch.from_numpy(one) for one in self.samples(index, epoch, seen[index])])
        samples, clean = (pad_sequence(list(ones), batch_first=True) for ones in zip(*recordings, strict=True))
        return {"samples": samples, "clean": clean, "length": torch.tensor([len(one) for one, _ in recordings])}


def whole_batches(rows: Sequence[Utterance], duration_s: float) -> list[list[Utterance]]:
    """Rows by length, in batches of at most so many seconds with their padding: for evaluation."""
    batches: list[list[Utterance]] = []
    for row in sorted(rows, key=lambda row: (row.duration, row.id)):
        if batches and row.duration * (len(batches[-1]) + 1) <= duration_s:
            batches[-1].append(row)
        else:
            batches.append([row])
    return batches


def padded(rows: Sequence[Utterance]) -> tuple[Tensor, Tensor]:
    """Recordings (B, N) as they are, and how many samples each has (B,)."""
    recordings = [torch.from_numpy(row.samples()) for row in rows]
    return pad_sequence(recordings, batch_first=True), torch.tensor([len(one) for one in recordings])


AUDIO_ENDINGS = (".wav", ".flac", ".ogg", ".opus", ".mp3")


def read_noises(options: AugmentOptions) -> list[np.ndarray]:
    """The recordings of noise that training may use, at 16 kHz, without those that are silent.

    Raises:
        ManifestError: there are none where there should be.
    """
    source, kept_back = options.noises, options.noises_kept_back
    if source is None:
        return []
    noises = []

    def wanted(name: str) -> bool:
        return name.lower().endswith(AUDIO_ENDINGS) and not (kept_back and fnmatch(name, kept_back))

    if zipfile.is_zipfile(source):
        with zipfile.ZipFile(source) as archive:
            names = sorted(filter(wanted, archive.namelist()))
            noises = [read_audio(BytesIO(archive.read(name)), SAMPLE_RATE).samples for name in names]
    elif os.path.isdir(source):
        paths = sorted(path for path in Path(source).rglob("*") if wanted(str(path)))
        noises = [read_audio(path, SAMPLE_RATE).samples for path in paths]
    noises = [noise for noise in noises if float(np.square(noise, dtype=np.float64).mean()) > 1e-10]
    if not noises:
        raise ManifestError(f"no noise in {source!r}; expected a folder or a zip archive of recordings")
    return noises
