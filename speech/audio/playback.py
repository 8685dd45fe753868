"""Loudspeakers: samples played while they are made."""

from __future__ import annotations

import numpy as np

from loquent.speech.audio.sources import PORTAUDIO_HINT


class PlaybackError(RuntimeError):
    """Nothing can be played; the message says what is missing."""


class Player:
    """Plays mono float32 samples as they come. Use it as a context manager; leaving it plays what is left.

    Args:
        sample_rate: in Hz.
        device: index or part of the name of an output; the system's default by default.

    Raises:
        PlaybackError: there is no output, or PortAudio is not installed.
    """

    def __init__(self, sample_rate: int, device: int | str | None = None) -> None:
        try:
            import sounddevice
        except OSError as error:
            raise PlaybackError(f"{error}. Install PortAudio to play sound: {PORTAUDIO_HINT}") from error
        try:
            self._stream = sounddevice.OutputStream(sample_rate, device=device, channels=1, dtype="float32")
            self._stream.start()
        except (ValueError, sounddevice.PortAudioError) as error:
            raise PlaybackError(f"cannot play: {error}; write a file instead, with -o out.wav") from error
        self._rate, self._written = sample_rate, 0

    @property
    def played_s(self) -> float:
        """Seconds that have been heard, about."""
        return max(0.0, self._written / self._rate - float(self._stream.latency))

    def write(self, samples: np.ndarray) -> None:
        """Play samples (N,) after those before; returns when there is room for more."""
        self._stream.write(samples[:, None])
        self._written += len(samples)

    def drop(self) -> float:
        """Fall silent at once; returns `played_s`, from which what is written next goes on."""
        played_s = self.played_s
        self._stream.abort()
        self._stream.start()
        self._written = round(played_s * self._rate)
        return played_s

    def __enter__(self) -> Player:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind is None:
            self._stream.stop()
        else:
            self._stream.abort()
        self._stream.close()
