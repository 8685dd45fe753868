"""A stream's audio on its way to the model: any packets in, exactly the requested number of samples out."""

from __future__ import annotations

import numpy as np
import torch

from loquent.speech.audio.files import Audio, to_mono_float32
from loquent.speech.audio.resample import Resampler
from loquent.speech.nn.streaming import Chunk


class Inbox:
    """First-in first-out buffer that down-mixes, resamples and re-frames.

    Resampling happens when the model asks for samples, on stretches fixed by what it asks for, so the samples it sees
    are the same to the last bit for every packet size, and whether the end of the stream is announced early or late.
    """

    def __init__(self, sample_rate: int, channels: int, model_rate: int, resampler: Resampler | None = None) -> None:
        self.sample_rate, self.channels, self.model_rate = sample_rate, channels, model_rate
        self.resampler = resampler or Resampler(sample_rate, model_rate)
        self.resampler_state = self.resampler.initial_state(1)
        self.raw = np.zeros(0, np.float32)  # native rate, not yet resampled
        self.tail = np.zeros(0, np.float32)  # model rate, not yet handed out
        self.received = 0  # native samples ever pushed
        self.resampled = 0  # native samples handed to the resampler
        self.taken = 0  # model samples handed out
        self.ended = False  # no more packets
        self.flushed = False  # the resampler has seen the end

    def push(self, packet: Audio | np.ndarray | bytes) -> None:
        """Append a packet: `Audio`, int16 or float32, (samples,) or (samples, channels), or little-endian PCM16 bytes.

        Raises:
            ValueError: it is of another rate, type or shape, or not finite; nothing is appended.
        """
        if not isinstance(packet, Audio):
            samples = to_mono_float32(packet, self.channels)
        elif packet.sample_rate == self.sample_rate:
            samples = to_mono_float32(packet.samples, channels=1)
        else:
            raise ValueError(
                f"expected audio at {self.sample_rate} Hz, got {packet.sample_rate} Hz; "
                f"open the session with sample_rate={packet.sample_rate}"
            )
        self.raw = np.concatenate([self.raw, samples])  # also a copy: the caller may reuse the packet
        self.received += len(samples)

    def end(self) -> None:
        """No more packets."""
        self.ended = True

    @property
    def seconds(self) -> float:
        """Audio received, in seconds."""
        return self.received / self.sample_rate

    @property
    def pending_seconds(self) -> float:
        """Audio that waits to be taken, in seconds."""
        return len(self.raw) / self.sample_rate + len(self.tail) / self.model_rate

    def available(self, samples: int) -> bool:
        """Whether ``samples`` more model samples (or the end of the stream) can be taken."""
        return self.ended or self.received >= self.resampler.inputs_for(self.taken + samples)

    def passed(self, position: int) -> bool:
        """Whether all audio before native sample ``position`` has been handed out."""
        return self.taken * self.sample_rate >= position * self.model_rate

    def take(self, samples: int) -> tuple[np.ndarray, bool]:
        """Return the next ``samples`` model samples, and whether the stream ends with them.

        Only a stretch shorter than asked for ends a stream, whether the end came before or after the request.
        """
        if len(self.tail) < samples and not self.flushed:
            needed = self.resampler.inputs_for(self.taken + samples)
            self.flushed = self.ended and self.received < needed
            self.tail = np.concatenate([self.tail, self._resample(needed - self.resampled, self.flushed)])
        out, self.tail = self.tail[:samples], self.tail[samples:]
        self.taken += len(out)
        return out, self.flushed and len(out) < samples

    def _resample(self, count: int, last: bool) -> np.ndarray:
        block, self.raw = self.raw[:count], self.raw[count:]
        self.resampled += len(block)
        chunk = Chunk.of(torch.tensor(block)[None], last)
        with torch.inference_mode():
            out = self.resampler.step(chunk, self.resampler_state)
        return out.data[0, : int(out.length[0])].numpy()
