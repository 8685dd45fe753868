"""The inbox of a stream of audio: any packets in, samples at the model's rate out."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch

from loquent.speech.audio.files import Audio, to_mono_float32
from loquent.speech.audio.resample import Resampler
from loquent.speech.nn.streaming import Chunk
from loquent.speech.runtime.snapshot import counted, flagged, under


class SampleClaim(NamedTuple):
    """Samples at the stream's rate that the next step needs."""

    block: np.ndarray
    wanted: int  # at the model's rate
    closes: bool  # whether the stream ends with the block
    last: bool  # whether it has ended by then


class SampleInbox:
    """First-in first-out buffer of samples that down-mixes, resamples and re-frames.

    Resampling happens when the model asks for samples, on stretches fixed by what it asks for, so the samples it sees
    are the same to the last bit for every packet size, and whether the end of the stream is announced early or late.

    Args:
        sample_rate, channels: of the packets.
        model_rate: of what comes out, in Hz.
        resampler: between the two rates, to be shared.
    """

    def __init__(self, sample_rate: int, channels: int, model_rate: int, resampler: Resampler | None = None) -> None:
        self.sample_rate, self.channels, self.model_rate = sample_rate, channels, model_rate
        self.resampler = resampler or Resampler(sample_rate, model_rate)
        self.resampler_state = self.resampler.initial_state(1)
        self.received = 0  # native samples ever pushed
        self.claimed = 0  # native samples handed to the resampler
        self.taken = 0  # model samples handed out
        self.ended = False  # no more packets
        self.exhausted = False  # the resampler has seen the end
        self._raw = _SampleQueue()  # native rate, not yet resampled
        self._tail = np.zeros(0, np.float32)  # model rate, not yet handed out

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
        self._raw.append(samples)
        self.received += len(samples)

    def flush(self) -> None:
        """Refuse: how far audio is processed is a matter of chunks.

        Raises:
            ValueError: always.
        """
        raise ValueError("a stream of audio cannot be flushed; finish it, or let it go on with silence")

    def end(self) -> None:
        """No more packets."""
        self.ended = True

    def discard(self) -> None:
        """Keep the audio: what was heard before an interruption is to be processed all the same."""

    @property
    def seconds(self) -> float:
        """Audio received, in seconds."""
        return self.received / self.sample_rate

    @property
    def processed(self) -> int:
        """Native samples that have been handed out."""
        return min(self.taken * self.sample_rate // self.model_rate, self.received)

    @property
    def clock(self) -> float:
        """Audio handed out, in seconds."""
        return self.taken / self.model_rate

    @property
    def pending(self) -> float:
        """Audio that waits to be handed out, in seconds."""
        return len(self._raw) / self.sample_rate + len(self._tail) / self.model_rate

    @property
    def nbytes(self) -> int:
        """Bytes of the audio that waits."""
        return 4 * len(self._raw) + self._tail.nbytes

    def available(self, count: int) -> bool:
        """Whether ``count`` more model samples (or the end of the stream) can be taken."""
        return self.ended or self.received >= self.resampler.inputs_for(self.taken + count)

    def passed(self, position: int) -> bool:
        """Whether all audio before native sample ``position`` has been handed out."""
        return self.taken * self.sample_rate >= position * self.model_rate

    def claim(self, count: int) -> SampleClaim:
        """Take out the native samples of the next ``count`` model samples."""
        needed, closes = self.claimed, False
        if len(self._tail) < count and not self.exhausted:
            needed = self.resampler.inputs_for(self.taken + count)
            closes = self.exhausted = self.ended and self.received < needed
        block = self._raw.take(needed - self.claimed)
        self.claimed += len(block)
        return SampleClaim(block, count, closes, self.exhausted)

    def resolve(self, claim: SampleClaim) -> tuple[np.ndarray, bool]:
        """The claimed samples at the model's rate, and whether the stream ends with them.

        Only a stretch shorter than what was asked for ends a stream, whether the end came before or after the request.
        """
        if len(claim.block) or claim.closes:
            self._tail = np.concatenate([self._tail, self._resample(claim.block, claim.closes)])
        out, self._tail = self._tail[: claim.wanted], self._tail[claim.wanted :]
        self.taken += len(out)
        return out, claim.last and len(out) < claim.wanted

    def to_dict(self) -> dict[str, Any]:
        """Format and counters."""
        return {name: getattr(self, name) for name in _SAMPLE_FIELDS}

    def tensors(self) -> dict[str, torch.Tensor]:
        """The audio that waits, and the resampler's state."""
        state = {f"resampler.{name}": tensor.contiguous() for name, tensor, _ in self.resampler_state.leaves()}
        return state | {"raw": torch.from_numpy(self._raw.copy()), "tail": torch.from_numpy(self._tail.copy())}

    def restore(self, values: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
        """Inverse of `to_dict` and `tensors`."""
        raw, tail = (_saved_samples(tensors, name) for name in ("raw", "tail"))
        self.received, self.claimed, self.taken = (counted(values, name) for name in ("received", "claimed", "taken"))
        self.ended, self.exhausted = (flagged(values, name) for name in ("ended", "exhausted"))
        if self.claimed + len(raw) != self.received:
            raise ValueError("the audio that waits does not fit the counters")
        if self.exhausted and (len(raw) or not self.ended):
            raise ValueError("the audio has been used to its end, but has not ended")
        if self.taken + len(tail) != self._made():
            raise ValueError("the resampled audio that waits does not fit the counters")
        self.resampler_state.load(under(tensors, "resampler."))
        if self.sample_rate != self.model_rate and int(self.resampler_state.received[0]) != self.claimed:
            raise ValueError("the resampler's state does not fit the counters")
        self._raw, self._tail = _SampleQueue(), tail
        self._raw.append(raw)

    def _made(self) -> int:
        """Samples at the model's rate that have come of those claimed."""
        resampler = self.resampler
        if self.sample_rate == self.model_rate:
            return self.claimed
        if self.exhausted:
            return -(-self.claimed * resampler.new // resampler.orig)
        window = resampler.window
        return max(0, (self.claimed + window.left - window.kernel) // window.stride + 1) * resampler.new

    def _resample(self, block: np.ndarray, last: bool) -> np.ndarray:
        if self.sample_rate == self.model_rate:
            return block
        with torch.inference_mode():
            out = self.resampler.step(Chunk.of(torch.from_numpy(block)[None], last), self.resampler_state)
        return out.data[0, : int(out.length[0])].numpy()


_SAMPLE_FIELDS = ("sample_rate", "channels", "received", "claimed", "taken", "ended", "exhausted")


class _SampleQueue:
    """Samples in a buffer that is moved seldom enough for an append to cost what is appended."""

    def __init__(self) -> None:
        self._buffer = np.empty(4096, np.float32)
        self._begin = self._end = 0

    def __len__(self) -> int:
        return self._end - self._begin

    def append(self, samples: np.ndarray) -> None:
        """Copy samples (N,) to the end."""
        if self._end + len(samples) > len(self._buffer):
            # At most half full afterwards: it takes as many samples again until the next move.
            room = max(4096, 2 * (len(self) + len(samples)))
            kept = self.copy()
            self._buffer = np.empty(room, np.float32)
            self._buffer[: len(kept)] = kept
            self._begin, self._end = 0, len(kept)
        self._buffer[self._end : self._end + len(samples)] = samples
        self._end += len(samples)

    def take(self, count: int) -> np.ndarray:
        """Remove the first ``count`` samples, or what there is."""
        begin = self._begin
        self._begin = min(begin + count, self._end)
        return self._buffer[begin : self._begin].copy()

    def copy(self) -> np.ndarray:
        """All samples."""
        return self._buffer[self._begin : self._end].copy()


def _saved_samples(tensors: dict[str, torch.Tensor], name: str) -> np.ndarray:
    tensor = tensors[name]
    if tensor.dtype != torch.float32 or tensor.ndim != 1 or not bool(torch.isfinite(tensor).all()):
        raise ValueError(
            f"saved '{name}' is {tensor.dtype} {tuple(tensor.shape)}; expected finite float32 samples (N,)"
        )
    return tensor.numpy().copy()
