"""Synthetic speakers: voices that resampling and mixing make many."""

from __future__ import annotations

import random
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Protocol

import numpy as np

from loquent.recipes.data.augment import change_speed
from loquent.recipes.data.manifest import SAMPLE_RATE
from loquent.speech.audio.files import read_audio
from loquent.speech.audio.resample import resample

KOKORO = "onnx-community/Kokoro-82M-v1.0-ONNX"  # of the hub
TEMPO = (0.85, 1.3)
ACCENTS = {  # what speakers of other languages say for a sound of English, in Kokoro's alphabet
    "ɹ": ("ɾ", "ɾ", "r"),
    "θ": ("t", "s", "f"),
    "ð": ("d", "z"),
    "A": ("e", "eː"),
    "I": ("ai",),
    "O": ("o",),
    "Q": ("o",),
    "ɪ": ("i",),
    "ɛ": ("e",),
    "ʌ": ("a",),
    "æ": ("a", "ɛ"),
    "ɑ": ("a",),
    "z": ("s",),
    "v": ("f", "w"),
}


def with_accent(phonemes: str, rng: random.Random) -> str:
    """English as speakers of another language say it, in Kokoro's alphabet: they lack some of its sounds."""
    accent = {sound: rng.choice(others) for sound, others in ACCENTS.items() if rng.random() < 0.5}
    return "".join(accent.get(sound, sound) for sound in phonemes)


class Voice(Protocol):
    """A synthetic voice.

    source, licence: of the synthesiser.
    """

    source: str
    licence: str

    def __call__(self, text: str, rng: random.Random) -> np.ndarray:
        """Read a text as one of the voice's many speakers: (N,) float32 at 16 kHz."""


class HibariVoice:
    """hibari-tts: a woman. Played slower she becomes a man, faster a child; the synthesiser makes up for the tempo.

    Args:
        accents: share of the texts that are read with a foreign accent.
    """

    source, licence = "hibari-tts", "Apache-2.0"

    def __init__(self, accents: float = 0.0) -> None:
        from hibari import SAMPLE_RATE as RATE
        from hibari import Hibari

        self._rate, self._speak, self._accents = RATE, Hibari(), accents

    def __call__(self, text: str, rng: random.Random) -> np.ndarray:
        """See `Voice`."""
        shift, tempo = rng.uniform(0.72, 1.18), rng.uniform(*TEMPO)
        seed = rng.randrange(2**31)
        if self._accents and rng.random() < self._accents:
            phonemes = with_accent(" ".join(self._speak.phonemize(text)), rng)
            wave = self._speak.from_phonemes(phonemes, speed=tempo / shift, seed=seed)
        else:
            wave = self._speak(text, speed=tempo / shift, seed=seed)
        return change_speed(resample(wave, self._rate, SAMPLE_RATE), shift)


class FliteVoice:
    """Flite: three men and a woman, recorded, each of them made many by resampling. Needs its program (Debian: flite).

    Raises:
        FileNotFoundError: there is no such program.
    """

    source, licence = "flite", "BSD-like"
    speakers = ("rms", "awb", "kal16", "slt")

    def __init__(self) -> None:
        if shutil.which("flite") is None:
            raise FileNotFoundError(
                "the program flite is not installed (Debian: apt install flite); to do without its voices set "
                "data.commands.flite_coffee=0 data.commands.flite_digits=0"
            )

    def __call__(self, text: str, rng: random.Random) -> np.ndarray:
        """See `Voice`."""
        shift, tempo = rng.uniform(0.82, 1.2), rng.uniform(*TEMPO)
        with tempfile.NamedTemporaryFile(suffix=".wav") as file:
            settings = ("--setf", f"duration_stretch={shift / tempo:.3f}")
            command = ["flite", "-voice", rng.choice(self.speakers), *settings, "-t", text, "-o", file.name]
            subprocess.run(command, check=True, timeout=60, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
            wave = read_audio(file.name, SAMPLE_RATE).samples
        return change_speed(wave, shift)


class KokoroVoice:
    """Kokoro-82M: some fifty voices, and what lies between any two of them, half of the time with a foreign accent. One
    core takes two thirds as long as they speak.

    Args:
        where: a repository of the hub, or a folder, with one of the model's ONNX exports in ``onnx/`` and
            ``voices/*.bin``: raw float32, (510, 256), a style for each length in tokens.

    Raises:
        FileNotFoundError: it is not there.
    """

    source, licence = "kokoro", "Apache-2.0"

    def __init__(self, where: str = KOKORO) -> None:
        from hibari import SAMPLE_RATE as RATE
        from hibari import Hibari
        from hibari.g2p import G2P
        from onnxruntime import InferenceSession

        folder = _kokoro(where)
        models, voices = sorted(folder.glob("onnx/*.onnx")), sorted(folder.glob("voices/*.bin"))
        if not models or not voices:
            raise FileNotFoundError(f"no onnx/*.onnx and voices/*.bin in {str(folder)!r}; {_WITHOUT_KOKORO}")
        self._model = InferenceSession(str(models[0]), providers=["CPUExecutionProvider"])
        self._tokens = self._model.get_inputs()[0].name  # exports differ
        self._styles = {path.stem: np.fromfile(path, np.float32).reshape(-1, 256) for path in voices}
        self._rate, self._ids = RATE, Hibari().ids  # Hibari's alphabet is Kokoro's
        self._american, self._british = G2P(), G2P(british=True)

    def __call__(self, text: str, rng: random.Random) -> np.ndarray:
        """See `Voice`."""
        name, other = rng.choices(sorted(self._styles), k=2)
        phonemes = (self._british if name.startswith("b") else self._american)(text)
        if rng.random() < 0.5:
            phonemes = with_accent(phonemes, rng)
        ids = self._ids(phonemes)
        mixed, shift, tempo = rng.choice((0.0, rng.uniform(0.0, 0.5))), rng.uniform(0.93, 1.07), rng.uniform(*TEMPO)
        at = len(ids) - 3  # of the tokens between the two that frame them
        style = (1 - mixed) * self._styles[name][at] + mixed * self._styles[other][at]
        inputs = {
            self._tokens: np.array([ids]),
            "style": style[None].astype(np.float32),
            "speed": np.array([tempo / shift], np.float32),
        }
        wave = self._model.run(None, inputs)[0].ravel()
        return change_speed(resample(wave, self._rate, SAMPLE_RATE), shift)


_WITHOUT_KOKORO = (
    "name a folder that has Kokoro-82M with data.commands.kokoro=FOLDER, or to do without its voices set "
    "data.commands.kokoro_coffee=0 data.commands.kokoro_digits=0 "
    "data.train.kokoro_coffee.weight=0 data.train.kokoro_digits.weight=0"
)


def _kokoro(where: str) -> Path:
    """The folder that holds the model, fetched if need be."""
    if Path(where).expanduser().is_dir():
        return Path(where).expanduser()
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(where, allow_patterns=["onnx/model_quantized.onnx", "voices/*.bin"]))
    except Exception as error:  # which ones depends on the HTTP library that huggingface_hub was built on
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        message = f"cannot get {where!r} from the Hugging Face hub: {reason}; {_WITHOUT_KOKORO}"
        raise FileNotFoundError(message) from error
