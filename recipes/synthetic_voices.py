"""Synthetic speakers: few voices that resampling makes many."""

from __future__ import annotations

import random
import shutil
import subprocess
import tempfile
from typing import Protocol

import numpy as np

from loquent.recipes.augment import change_speed
from loquent.recipes.manifest import SAMPLE_RATE
from loquent.speech.audio import read_audio
from loquent.speech.resample import resample

TEMPO = (0.85, 1.3)


class Voice(Protocol):
    """Somebody who reads texts.

    source, licence: of the synthesiser.
    """

    source: str
    licence: str

    def __call__(self, text: str, rng: random.Random) -> np.ndarray:
        """Read a text as one of the voice's many speakers: (N,) float32 at 16 kHz."""


class HibariVoice:
    """hibari-tts: a woman. Played slower she becomes a man, faster a child; the synthesiser makes up for the tempo."""

    source, licence = "hibari-tts", "Apache-2.0"

    def __init__(self) -> None:
        from hibari import SAMPLE_RATE as RATE
        from hibari import Hibari

        self._rate, self._speak = RATE, Hibari()

    def __call__(self, text: str, rng: random.Random) -> np.ndarray:
        """See `Voice`."""
        shift, tempo = rng.uniform(0.72, 1.18), rng.uniform(*TEMPO)
        wave = self._speak(text, speed=tempo / shift, seed=rng.randrange(2**31))
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
