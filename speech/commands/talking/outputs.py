"""Where an agent's speech goes: a loudspeaker that can fall silent, or a file in which everything is at its time."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np

from loquent.speech.runtime.events import Event, Interrupted, Speech

BLOCK_S = 0.02  # that is played before it is looked whether to go on


class Recorder:
    """Writes what was heard, with silence where nobody spoke.

    Args:
        write: takes samples (N,).
        sample_rate: in Hz.
    """

    def __init__(self, write: Callable[[np.ndarray], None], sample_rate: int) -> None:
        self._write, self._rate = write, sample_rate
        self._written = 0
        self._waiting: deque[Speech] = deque()  # given out, but not known to be heard

    def show(self, event: Event) -> None:
        """Take up an event."""
        while self._waiting and self._waiting[0].end <= event.emission_time:
            self._put(self._waiting.popleft())
        if isinstance(event, Speech):
            self._waiting.append(event)
        elif isinstance(event, Interrupted):
            for speech in self._waiting:
                self._put(speech, event.heard)
            self._waiting.clear()

    def close(self) -> None:
        """Write the rest."""
        for speech in self._waiting:
            self._put(speech)
        self._waiting.clear()

    def _put(self, speech: Speech, until_s: float = float("inf")) -> None:
        begin = round(speech.start * self._rate)
        samples = (
            speech.samples if until_s >= speech.end else speech.samples[: max(0, round(until_s * self._rate) - begin)]
        )
        if len(samples):
            silence = np.zeros(max(0, begin - self._written), np.float32)
            self._write(np.concatenate([silence, samples]))
            self._written += len(silence) + len(samples)


class Loudspeaker:
    """Plays speech in a thread of its own, so that nobody waits for the sound card, and stops at once.

    Args:
        player: a `Player`, open until `close`.
        sample_rate: in Hz.
    """

    def __init__(self, player: Any, sample_rate: int) -> None:
        self._player, self._block, self._rate = player, round(BLOCK_S * sample_rate), sample_rate
        self._waiting: deque[tuple[float, np.ndarray]] = deque()
        self._playing: deque[tuple[float, float]] = deque(maxlen=1000)  # seconds played, and of the conversation
        self._stop = self._closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="loquent-loudspeaker")
        self._thread.start()

    def play(self, speech: Speech) -> None:
        """Play it after what waits."""
        with self._changed:
            for at in range(0, len(speech.samples), self._block):
                self._waiting.append((speech.start + at / self._rate, speech.samples[at : at + self._block]))
            self._changed.notify_all()

    def stop(self) -> float:
        """Fall silent; returns up to which second of the conversation speech was heard."""
        with self._changed:
            self._waiting.clear()
            self._stop = True
            self._changed.notify_all()
            played = self._player.played_s
            begun = [(at, time) for at, time in self._playing if at <= played]
            at, time = begun[-1] if begun else (played, 0.0)
            return time + min(played - at, BLOCK_S)

    def close(self) -> None:
        """Play what waits."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()

    def _run(self) -> None:
        written = 0.0
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._stop or self._closed)
                if self._stop:
                    self._stop = False
                    written = self._player.drop()
                    self._playing.clear()
                    continue
                if not self._waiting:
                    return
                time, samples = self._waiting.popleft()
                self._playing.append((written, time))
            self._player.write(samples)
            written += len(samples) / self._rate
