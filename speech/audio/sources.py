"""Where live audio comes from: a file played as if it were live, or a microphone. Both give int16 packets."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections import deque
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from loquent.speech.audio.files import AudioReader, to_pcm16
from loquent.speech.audio.inputs import printable


class MicrophoneError(RuntimeError):
    """No microphone can be opened; the message says what is missing."""


@dataclass(frozen=True)
class AudioSource:
    """A stream of packets: int16 arrays of shape (samples, channels) at `sample_rate` Hz. Iterate over it once.

    name: of the file or the microphone, to show to people.
    warnings: what is damaged in a file, or missing, a sentence each; complete after the last packet.
    """

    name: str
    sample_rate: int
    channels: int
    packets: AsyncIterator[np.ndarray]
    warnings: Sequence[str] = ()

    def __aiter__(self) -> AsyncIterator[np.ndarray]:
        return self.packets


def file_source(path: str | os.PathLike[str], packet_ms: float = 100.0, realtime: bool = False) -> AudioSource:
    """Play a file in packets of `packet_ms` (the last may be shorter), at its own rate and channel count.

    With `realtime` a packet comes when its last sample would have been recorded, whatever the listener does between
    packets; else as fast as it is asked for. The file is never held as a whole; a pipe is read to its end first. Raises
    `AudioError` for a file that cannot be read; of one that is damaged, `warnings` says what is missing.
    """
    _check_packet(packet_ms)
    reader = AudioReader(path)

    async def packets() -> AsyncIterator[np.ndarray]:
        clock = asyncio.get_running_loop().time
        begin, played = clock(), 0
        with reader:
            for block in reader.blocks(packet_ms / 1000):
                played += len(block)
                due = begin + played / reader.sample_rate
                # Sleeping for nothing still lets the other streams of the process run.
                await asyncio.sleep(max(0.0, due - clock()) if realtime else 0)
                yield to_pcm16(block)

    return AudioSource(printable(path), reader.sample_rate, reader.channels, packets(), reader.warnings)


def microphone_source(device: int | str | None = None, packet_ms: float = 100.0) -> AudioSource:
    """Record from a microphone in mono packets of `packet_ms`, at its own rate, until the iteration is left.

    `device` is an index or part of a name from `list_microphones`, None the system's default. Samples that the computer
    or the listener is too slow for are dropped and reported on stderr. Raises `MicrophoneError` if there is none.
    """
    _check_packet(packet_ms)
    sounddevice = _sounddevice()
    try:
        info = sounddevice.query_devices(device, "input")
    except (ValueError, sounddevice.PortAudioError) as error:
        names = ", ".join(f"{found.index}: {found.name}" for found in list_microphones()) or "none"
        asked = "no microphone" if device is None else f"no microphone {device!r}"
        raise MicrophoneError(f"{asked} ({error}); found {names}") from error
    sample_rate = int(info["default_samplerate"])
    return AudioSource(info["name"], sample_rate, 1, _recorded(sounddevice, int(info["index"]), sample_rate, packet_ms))


@dataclass(frozen=True)
class Microphone:
    """An input device: `index` or `name` selects it, `sample_rate` (Hz) is its own, `default` the system's choice."""

    index: int
    name: str
    channels: int
    sample_rate: int
    default: bool


def list_microphones() -> list[Microphone]:
    """The input devices of this machine. Raises `MicrophoneError` if PortAudio is not installed."""
    sounddevice = _sounddevice()
    default = sounddevice.default.device[0]
    return [
        Microphone(
            index,
            info["name"],
            info["max_input_channels"],
            int(info["default_samplerate"]),
            index == default,
        )
        for index, info in enumerate(sounddevice.query_devices())
        if info["max_input_channels"] > 0
    ]


async def _recorded(
    sounddevice: ModuleType, device: int, sample_rate: int, packet_ms: float
) -> AsyncIterator[np.ndarray]:
    loop = asyncio.get_running_loop()
    mailbox = Mailbox(round(MAILBOX_S * 1000 / packet_ms) + 1)

    def callback(data: np.ndarray, frames: int, time: Any, status: Any) -> None:
        # PortAudio's own thread, and its buffer, which it will reuse.
        packet, overflowed = data.copy(), bool(status.input_overflow)
        try:
            loop.call_soon_threadsafe(mailbox.put, packet, overflowed)
        except RuntimeError:
            raise sounddevice.CallbackStop from None  # the loop is closed: nobody listens any more

    def ended() -> None:
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(mailbox.close)

    try:
        stream = sounddevice.InputStream(
            samplerate=sample_rate,
            blocksize=round(sample_rate * packet_ms / 1000),
            device=device,
            channels=1,
            dtype="int16",
            callback=callback,
            finished_callback=ended,
        )
        with stream:
            while True:
                yield await mailbox.get()
    except sounddevice.PortAudioError as error:
        raise MicrophoneError(f"cannot record from microphone {device} at {sample_rate} Hz: {error}") from error


MAILBOX_S = 30.0


class Mailbox:
    """Packets on their way from a recording thread to a task; when `capacity` are waiting, the oldest goes.

    What is lost is counted and reported on stderr when the next packet is fetched, so a burst makes one line.
    """

    def __init__(self, capacity: int) -> None:
        self._packets: deque[np.ndarray] = deque(maxlen=capacity)
        self._arrived = asyncio.Event()
        self._overflows = 0
        self._dropped = 0
        self._closed = False

    def put(self, packet: np.ndarray, overflowed: bool) -> None:
        """Leave a packet, on the event loop's thread; `overflowed` if the device lost samples before it."""
        self._dropped += len(self._packets) == self._packets.maxlen
        self._overflows += overflowed
        self._packets.append(packet)
        self._arrived.set()

    def close(self) -> None:
        """Tell that no packet will follow, as when a microphone is unplugged."""
        self._closed = True
        self._arrived.set()

    async def get(self) -> np.ndarray:
        """The oldest packet, waiting for it. Raises `MicrophoneError` after the last one of a closed mailbox."""
        while not self._packets:
            if self._closed:
                raise MicrophoneError("the microphone stopped; is it still plugged in?")
            self._arrived.clear()
            await self._arrived.wait()
        if self._overflows:
            print(f"microphone: samples lost, the computer is too busy ({self._overflows} times)", file=sys.stderr)
        if self._dropped:
            print(f"microphone: {self._dropped} packets dropped, the listener is too slow", file=sys.stderr)
        self._overflows = self._dropped = 0
        return self._packets.popleft()


def _sounddevice() -> ModuleType:
    try:
        import sounddevice
    except OSError as error:
        raise MicrophoneError(f"{error}. Install PortAudio to use a microphone: {PORTAUDIO_HINT}") from error
    return sounddevice


PORTAUDIO_HINT = (
    "`sudo apt install libportaudio2` on Debian and Ubuntu, `sudo dnf install portaudio` on Fedora, "
    "`brew install portaudio` on macOS"
)


def _check_packet(packet_ms: float) -> None:
    if not packet_ms > 0:
        raise ValueError(f"expected packets of more than 0 ms, got packet_ms={packet_ms}")
