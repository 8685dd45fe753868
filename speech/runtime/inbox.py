"""A stream's input on its way to the model: any packets in, exactly what the next step wants out.

An inbox is used from two threads, never for the same thing at the same time: the one that owns the session pushes and
claims; the one that computes turns a claim into what the model takes. Resampling is part of the latter.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch

from loquent.speech.audio.files import Audio, to_mono_float32
from loquent.speech.audio.resample import Resampler
from loquent.speech.nn.streaming import Chunk
from loquent.speech.runtime.snapshot import counted, flagged, timed, under
from loquent.speech.text.words import MAX_WORD, Text, TimedWord, WordChunk, WordFramer


class Inbox(Protocol):
    """What a session asks of its inbox.

    received: how far the input has come, in samples at its own rate, or characters.
    ended:    whether nothing follows.
    processed: the position up to which it has been handed out, likewise.
    clock:    seconds of source audio that have been handed out.
    pending:  what waits to be handed out, in seconds of audio, or words.
    nbytes:   of what waits.
    """

    received: int
    ended: bool

    @property
    def processed(self) -> int: ...
    @property
    def clock(self) -> float: ...
    @property
    def pending(self) -> float: ...
    @property
    def nbytes(self) -> int: ...

    def push(self, packet: Any) -> None:
        """Append a packet, in time that does not depend on what waits."""

    def flush(self) -> None:
        """Ask for everything so far to be processed without waiting for more."""

    def end(self) -> None:
        """Say that nothing follows."""

    def discard(self) -> None:
        """Drop the text that waits: whoever spoke it was interrupted. Audio is kept."""

    def available(self, count: int) -> bool:
        """Whether the next step can have ``count`` samples or words, or the end or a flush before them."""

    def claim(self, count: int) -> Any:
        """Take out what the next step needs."""

    def resolve(self, claim: Any) -> Any:
        """Turn a claim into samples (N,) and whether the stream ends with them, or into a `WordChunk`."""

    def passed(self, position: int) -> bool:
        """Whether all input before ``position`` (a value that ``received`` had) has been handed out."""

    def to_dict(self) -> dict[str, Any]:
        """JSON-able values; with `tensors` they are the whole inbox."""

    def tensors(self) -> dict[str, torch.Tensor]:
        """What does not go into `to_dict`."""

    def restore(self, values: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
        """Inverse of `to_dict` and `tensors`, on an inbox made with the same arguments."""


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


class TextInbox:
    """First-in first-out buffer of text that hands out whole words.

    A claim never reaches over a flush: the words before it come first, and with the last of them, or alone if there
    were as many as asked for, the flush. So what a task sees does not depend on when the flush came.
    """

    def __init__(self) -> None:
        self.received = 0  # characters, white space at the end not counted
        self.taken = 0  # characters of the words handed out
        self.ended = False
        self._framer = WordFramer()
        self._words: deque[deque[TimedWord]] = deque([deque()])  # each but the last is followed by a flush
        self._pushed = 0
        self._flushed = 0  # characters pushed before the last flush
        self._time_s = 0.0  # of the last word handed out

    def push(self, packet: Text | str) -> None:
        """Append text, in pieces of any kind.

        Raises:
            ValueError: it is no text, or its time is not a finite number that does not go back; nothing is appended.
        """
        piece = Text(packet) if isinstance(packet, str) else packet
        if not isinstance(piece, Text) or not isinstance(piece.text, str):
            raise ValueError(f"expected text (str or Text), got {type(packet).__name__}; this stream takes no audio")
        if any("\ud800" <= character <= "\udfff" for character in piece.text):
            raise ValueError("the text has half of a surrogate pair; decode it as a whole before cutting it")
        time_s = self._framer.time_s if piece.time_s is None else piece.time_s
        if isinstance(time_s, bool) or not isinstance(time_s, int | float) or not math.isfinite(time_s):
            raise ValueError(f"the time of a text is a number of seconds, got {time_s!r}")
        if time_s < self._framer.time_s:
            raise ValueError(f"the time of a text does not go back: got {time_s} s after {self._framer.time_s} s")
        self._words[-1] += self._framer.push(piece.text, float(time_s))
        self._pushed += len(piece.text)
        if piece.text.strip():
            self.received = self._pushed - (len(piece.text) - len(piece.text.rstrip()))

    def flush(self) -> None:
        """End the word under way; everything so far is to come out without waiting for more text."""
        if self._pushed > self._flushed:  # else the last flush says the same
            self._words[-1] += self._framer.flush()
            self._words.append(deque())
            self._flushed = self._pushed

    def end(self) -> None:
        """No more text."""
        self._words[-1] += self._framer.flush()
        self.ended = True

    def discard(self) -> None:
        """Drop the words that wait, and the one under way."""
        self._words = deque([deque()])
        self._framer.pending = ""
        self.taken = self._flushed = self._pushed

    @property
    def processed(self) -> int:
        """Characters of the words handed out."""
        return self.taken

    @property
    def clock(self) -> float:
        """Time of the last word handed out."""
        return self._time_s

    @property
    def pending(self) -> float:
        """Whole words that wait."""
        return float(sum(map(len, self._words)))

    @property
    def nbytes(self) -> int:
        """Bytes of the text that waits, about."""
        return self._pushed - self.taken

    def available(self, count: int) -> bool:
        """Whether ``count`` words, or a flush or the end before them, can be taken."""
        return self.ended or len(self._words) > 1 or len(self._words[0]) >= count

    def passed(self, position: int) -> bool:
        """Whether all words before character ``position`` have been handed out."""
        return self.taken >= position

    def claim(self, count: int) -> WordChunk:
        """Take the next ``count`` words, or those before a flush or the end."""
        begin, first = self.taken, self._words[0]
        words = tuple(first.popleft() for _ in range(min(count, len(first))))
        short = len(words) < count
        flush = short and len(self._words) > 1
        if flush:
            self._words.popleft()
        if words:
            self.taken += sum(len(word.text) for word in words)
            self._time_s = words[-1].time_s
        return WordChunk(words, begin, flush, short and not flush and self.ended)

    def resolve(self, claim: WordChunk) -> WordChunk:
        """Nothing is left to do."""
        return claim

    def to_dict(self) -> dict[str, Any]:
        """Everything."""
        return {
            "received": self.received,
            "taken": self.taken,
            "ended": self.ended,
            "pending": [self._framer.pending, self._framer.time_s],
            "words": [[list(word) for word in words] for words in self._words],
            "pushed": self._pushed,
            "flushed": self._flushed,
            "time_s": self._time_s,
        }

    def tensors(self) -> dict[str, torch.Tensor]:
        """None: text goes into `to_dict`."""
        return {}

    def restore(self, values: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
        """Inverse of `to_dict`."""
        self.received, self.taken = counted(values, "received"), counted(values, "taken")
        self._pushed, self._flushed = counted(values, "pushed"), counted(values, "flushed")
        self.ended, self._time_s = flagged(values, "ended"), timed(values["time_s"], "time_s")
        (pending, pending_s), rows = values["pending"], values["words"]
        self._words, last_s = deque(), self._time_s
        for row in rows:
            self._words.append(deque())
            for text, time_s in row:
                if timed(time_s, "words") < last_s:
                    raise ValueError("the times of the words that wait go back")
                last_s = float(time_s)
                self._words[-1].append(TimedWord(_text(text, 1), last_s))
        self._framer = WordFramer(_text(pending, 0), timed(pending_s, "pending"))
        if not self._words or self._framer.time_s < last_s:
            raise ValueError("the words that wait do not fit the text that follows them")
        waiting = sum(len(word.text) for words in self._words for word in words) + len(self._framer.pending)
        if not self.taken + waiting == self._pushed >= max(self.received, self._flushed):
            raise ValueError("the text that waits does not fit the counters")


def _text(value: Any, least: int) -> str:
    if not isinstance(value, str) or not least <= len(value) <= MAX_WORD:
        raise ValueError(f"a word that waits has to be a text of {least} to {MAX_WORD} characters")
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise ValueError("a word that waits has half of a surrogate pair")
    return value


def _saved_samples(tensors: dict[str, torch.Tensor], name: str) -> np.ndarray:
    tensor = tensors[name]
    if tensor.dtype != torch.float32 or tensor.ndim != 1 or not bool(torch.isfinite(tensor).all()):
        raise ValueError(
            f"saved '{name}' is {tensor.dtype} {tuple(tensor.shape)}; expected finite float32 samples (N,)"
        )
    return tensor.numpy().copy()
