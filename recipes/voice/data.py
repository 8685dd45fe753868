"""The data of the flow voice: what its teacher makes of sentences, in shards that are made once.

A shard is a safetensors file with what its utterances hold, one behind the other. What an utterance is follows from the
options, the number of its shard and its place there, so making them can be stopped, and goes on where it was.
"""

from __future__ import annotations

import hashlib
import json
import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.numpy import save_file
from torch import Tensor
from tqdm import tqdm

from loquent.recipes.voice.teacher import HOP, RATE, Teacher
from loquent.recipes.voice.texts import TextSource, made_up, read_texts
from loquent.speech.audio.features import mel_filters
from loquent.speech.hub import cache_dir
from loquent.tts.flow_voice.prosody import LEAD

LAYOUT = 1  # rises when the same options give other values
N_FFT, N_MELS = 1200, 80
FLOOR = 1e-4  # of mel magnitudes


@dataclass(frozen=True)
class DataOptions:
    """What the teacher says, and who says it.

    texts:    where sentences come from.
    folder:   where the shards go; by default one for these options, in the user's cache folder.
    speakers: name and factor of pitch and formants of each (see `Teacher.speak`); the first is the default.
    mixed:    share of the utterances whose speaker is between two, drawn evenly.
    hurried:  share of the utterances whose tempo is not the teacher's, but drawn from ``tempo``.
    made_up:  share of made-up sentences (see `made_up`).
    words:    the fewest and the most of a sentence.
    shards:   number of them. utterances: of a shard.
    recorded: shards that hold samples, too, for the vocoder.
    valid:    utterances to choose the best weights with, of sentences that are never trained on.
    """

    texts: tuple[TextSource, ...]
    folder: str = ""
    speakers: dict[str, float] = field(default_factory=lambda: {"alto": 1.0, "baritone": 0.8})
    mixed: float = 0.15
    hurried: float = 0.15
    tempo: tuple[float, float] = (0.8, 1.35)
    made_up: float = 0.25
    words: tuple[int, int] = (1, 24)
    shards: int = 60
    utterances: int = 250
    recorded: int = 12
    valid: int = 60
    seed: int = 1

    def __post_init__(self) -> None:
        if not self.speakers:
            raise ValueError("speakers: expected at least one")
        if not 0 < self.recorded <= self.shards:
            raise ValueError(f"recorded: expected 1 to shards={self.shards}, got {self.recorded}")


@dataclass(frozen=True)
class Utterance:
    """A sentence as a speaker says it; U units of 25 ms.

    text, phonemes: of the sentence.
    mixture:   (S,) float32 weights of the speakers.
    tempo:     factor of tempo that was asked for.
    phones:    (P,) int64 ids, with the silences at both ends.
    durations: (P,) int64 units.
    pitch:     (2 U,) float32 Hz, 0 where unvoiced. energy: (2 U,) float32.
    mel:       (2 U, 80) float32, natural logarithm of magnitudes.
    samples, pulses: (600 U,) float32, None where the shard has none; see `Spoken`.
    """

    text: str
    phonemes: str
    mixture: Tensor
    tempo: float
    phones: Tensor
    durations: Tensor
    pitch: Tensor
    energy: Tensor
    mel: Tensor
    samples: Tensor | None
    pulses: Tensor | None


def prepare(options: DataOptions) -> tuple[list[Path], Path]:
    """The shards to train on and that of validation; those that are not there yet are made.

    Raises:
        FileNotFoundError: there is no such file of texts.
        ValueError: they have too few sentences.
        ModuleNotFoundError: hibari-tts is missing.
    """
    wanted = json.dumps(asdict(options) | {"folder": "", "shards": 0, "recorded": 0, "layout": LAYOUT}, default=str)
    default = cache_dir() / "voice" / hashlib.sha256(wanted.encode()).hexdigest()[:12]
    folder = Path(options.folder or default).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    train = [folder / f"train-{number:05d}.safetensors" for number in range(options.shards)]
    valid = folder / "valid.safetensors"
    missing = [path for path in (valid, *train) if not path.is_file()]
    if missing:
        texts, held_out = read_texts(options.texts, options.words)
        if len(held_out) < options.valid:
            raise ValueError(
                f"texts: {len(held_out)} of {len(texts) + len(held_out)} sentences are held out, fewer than "
                f"valid={options.valid}; give more texts"
            )
        teacher = Teacher()
        (folder / "alphabet.json").write_text(json.dumps(teacher.alphabet, ensure_ascii=False), encoding="utf-8")
        for path in tqdm(missing, desc="teacher", unit="shard"):
            if path == valid:
                _write(path, _spoken(options, teacher, held_out[: options.valid], f"{options.seed} valid", True))
            else:
                number = train.index(path)
                _write(path, _shard(options, teacher, texts, number))
    return train, valid


def read_alphabet(shard: Path) -> dict[str, int]:
    """Id of each phone in the shards beside this one."""
    alphabet: dict[str, int] = json.loads((shard.parent / "alphabet.json").read_text(encoding="utf-8"))
    return alphabet


class Shard:
    """The utterances of a shard, read when they are asked for.

    The teacher begins with a third of a second of silence; what is more than a voice may begin with is left out.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with safe_open(path, "pt") as file:
            self._fields = set(file.keys())
            self._whole = {name: file.get_tensor(name) for name in _SMALL}
            self.texts: list[list[str]] = json.loads(file.metadata()["texts"])
        self._phones = _ends(self._whole["phone_counts"])
        self._units = _ends(self._whole["unit_counts"])

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def phone_counts(self) -> list[int]:
        """Phones of each utterance."""
        return self._whole["phone_counts"].tolist()

    @property
    def unit_counts(self) -> list[int]:
        """Units of 25 ms of each utterance, with all of its silence."""
        return self._whole["unit_counts"].tolist()

    def __getitem__(self, index: int) -> Utterance:
        phones, units = slice(*self._phones[index : index + 2]), slice(*self._units[index : index + 2])
        durations = self._whole["durations"][phones].long()
        surplus = max(int(durations[0]) - LEAD, 0)
        durations[0] -= surplus
        units = slice(units.start + surplus, units.stop)
        frames = slice(2 * units.start, 2 * units.stop)
        samples = slice(2 * HOP * units.start, 2 * HOP * units.stop)
        with safe_open(self.path, "pt") as file:
            mel = file.get_slice("mel")[frames]
            waves = [file.get_slice(name)[samples] if name in self._fields else None for name in ("samples", "pulses")]
        text, phonemes = self.texts[index]
        return Utterance(
            text,
            phonemes,
            self._whole["mixture"][index],
            float(self._whole["tempo"][index]),
            self._whole["phones"][phones].long(),
            durations,
            self._whole["pitch"][frames],
            self._whole["energy"][frames].float(),
            mel.float(),
            *(None if wave is None else wave.float() for wave in waves),
        )


def log_mel(samples: Tensor) -> Tensor:
    """(N,) at 24 kHz to (N / 300, 80): natural logarithm of the magnitudes of mel bands, frames centred at k · 300."""
    spectrum = torch.stft(samples, N_FFT, HOP, window=torch.hann_window(N_FFT), return_complex=True)
    bands = spectrum.abs().T @ mel_filters(N_FFT // 2 + 1, N_MELS, RATE).float()
    return bands[: len(samples) // HOP].clamp_min(FLOOR).log()


_SMALL = ("mixture", "tempo", "phone_counts", "unit_counts", "phones", "durations", "pitch", "energy")


def _ends(counts: Tensor) -> list[int]:
    return [0, *counts.cumsum(0).tolist()]


def _shard(options: DataOptions, teacher: Teacher, texts: Sequence[str], number: int) -> Iterator[Utterance]:
    rng = random.Random(f"{options.seed} texts {number}")
    vocabulary = teacher.vocabulary
    chosen = [
        made_up(rng, vocabulary) if rng.random() < options.made_up else texts[at % len(texts)]
        for at in range(number * options.utterances, (number + 1) * options.utterances)
    ]
    return _spoken(options, teacher, chosen, f"{options.seed} {number}", number < options.recorded)


def _spoken(
    options: DataOptions, teacher: Teacher, texts: Sequence[str], seed: str, recorded: bool
) -> Iterator[Utterance]:
    """The sentences of texts, each by a speaker that is drawn."""
    rng = random.Random(seed)
    shifts = list(options.speakers.values())
    for text in texts:
        for phonemes in teacher.phonemes(text):
            mixture = [0.0] * len(shifts)
            first, second = rng.randrange(len(shifts)), rng.randrange(len(shifts))
            share = rng.random() if rng.random() < options.mixed else 0.0
            mixture[first] += 1 - share
            mixture[second] += share
            tempo = rng.uniform(*options.tempo) if rng.random() < options.hurried else 1.0
            shift = math.exp(sum(weight * math.log(one) for weight, one in zip(mixture, shifts, strict=True)))
            said = teacher.speak(phonemes, rng.randrange(2**31), speed=tempo, shift=shift)
            samples = torch.from_numpy(said.samples)
            yield Utterance(
                text,
                phonemes,
                torch.tensor(mixture),
                tempo,
                torch.from_numpy(said.phones),
                torch.from_numpy(said.durations),
                torch.from_numpy(said.pitch),
                torch.from_numpy(said.energy),
                log_mel(samples),
                samples if recorded else None,
                torch.from_numpy(said.pulses) if recorded else None,
            )


def _write(path: Path, utterances: Iterator[Utterance]) -> None:
    rows = list(utterances)
    tensors: dict[str, np.ndarray] = {
        "mixture": torch.stack([row.mixture for row in rows]).numpy(),
        "tempo": np.array([row.tempo for row in rows], np.float32),
        "phone_counts": np.array([len(row.phones) for row in rows]),
        "unit_counts": np.array([len(row.pitch) // 2 for row in rows]),
        "phones": torch.cat([row.phones for row in rows]).numpy().astype(np.int16),
        "durations": torch.cat([row.durations for row in rows]).numpy().astype(np.int16),
        "pitch": torch.cat([row.pitch for row in rows]).numpy(),
        "energy": torch.cat([row.energy for row in rows]).numpy().astype(np.float16),
        "mel": torch.cat([row.mel for row in rows]).numpy().astype(np.float16),
    }
    for name in ("samples", "pulses"):
        waves = [wave for row in rows if (wave := getattr(row, name)) is not None]
        if waves:
            tensors[name] = torch.cat(waves).numpy().astype(np.float16)
    unfinished = path.with_name(path.name + ".part")
    texts = json.dumps([[row.text, row.phonemes] for row in rows], ensure_ascii=False)
    save_file(tensors, unfinished, metadata={"texts": texts})
    unfinished.replace(path)
