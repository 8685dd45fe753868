"""What the tests of agents share: what the user says."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
import pytest

from loquent.speech.audio.files import Audio, read_audio
from loquent.speech.audio.resample import Resampler, resample_piece
from loquent.speech.hub import CheckpointError, resolve
from loquent.tts import Synthesizer

RATE = 16_000


@functools.cache
def _spoken(text: str) -> np.ndarray:
    try:
        resolve("loquent/hibari")
    except CheckpointError as error:
        pytest.skip(str(error))
    speech = _user().synthesize(text)
    resampler = Resampler(speech.sample_rate, RATE)
    return resample_piece(resampler, resampler.initial_state(1), speech.samples, last=True)


@functools.cache
def _user() -> Synthesizer:
    return Synthesizer.from_pretrained("loquent/hibari")


@pytest.fixture(scope="session")
def talking() -> Callable[..., np.ndarray]:
    """Makes the user's side at 16 kHz: texts that are spoken, and seconds of silence."""

    def make(*parts: str | float | np.ndarray) -> np.ndarray:
        made = []
        for part in parts:
            if isinstance(part, str):
                made.append(_spoken(part))
            else:
                made.append(part if isinstance(part, np.ndarray) else np.zeros(round(part * RATE), np.float32))
        return np.concatenate(made)

    return make


@pytest.fixture(scope="session")
def sentence() -> np.ndarray:
    """The first sentence of the sample recording."""
    import loquent.speech

    (folder,) = loquent.speech.__path__
    audio: Audio = read_audio(f"{folder}/assets/sample.flac", RATE)
    return audio.samples[: round(4.2 * RATE)]
