"""How a stream's audio reaches the decoder: encoded afresh at every step, or once, incrementally."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from loquent.asr.whisper.live.memo import Segment
from loquent.asr.whisper.model import AudioMemory, DecoderState, EncoderState, Whisper
from loquent.speech.audio.features import RunningMaxNormalize, RunningMaxState, normalize_window
from loquent.speech.nn.low_rank import Adapters
from loquent.speech.nn.state import State
from loquent.speech.nn.streaming import Chunk

SILENCE = -10.0  # log10 of the smallest mel energy: what Whisper's front end makes of zeros
TAIL = 50  # mel frames of silence after an utterance: a word is certain once it is heard to have ended


class Heard(NamedTuple):
    """Where the decoder finds its own past and the audio of each stream of a batch."""

    decoder: DecoderState
    rows: Tensor  # (B,) slots of ``decoder``
    memory: AudioMemory
    memory_rows: Tensor  # (B,) slots of ``memory``
    adapters: Adapters | None  # of the B streams


class Hearing(Protocol):
    """Turns mel frames into what the decoder attends to.

    keeps_tokens: whether the decoder's keys and values stay valid from one step to the next.
    """

    keeps_tokens: bool

    def initial_state(self, slots: int) -> State:
        """What it keeps of each stream."""

    def hear(
        self,
        mel: Tensor,
        state: Any,
        rows: Tensor,
        segments: Sequence[Segment],
        frames: Sequence[int],
        last: Sequence[bool],
        adapters: Adapters | None = None,
    ) -> Heard:
        """Take in the frames of each segment that have come since the last call.

        Args:
            mel: (S, 3000, F) rings of log-mel frames; frame t of a stream is in entry t mod 3000.
            state: what `initial_state` returned.
            rows: (B,) slots of the streams.
            segments: their windows; ``heard`` is moved on.
            frames: mel frames that each stream has brought in all.
            last: whether each segment ends here.
            adapters: of the streams.
        """


@dataclass
class NoState(State):
    """A hearing that remembers nothing."""


class Reencoding:
    """Encode the whole window again at every step, padded to 30 s, as stock Whisper was trained to hear it.

    The keys and values of decoder and audio live in scratch slots for the length of a step.
    """

    keeps_tokens = False

    def __init__(self, model: Whisper) -> None:
        self.model = model
        self.scratch: tuple[DecoderState, AudioMemory] | None = None

    def initial_state(self, slots: int) -> NoState:
        """Nothing is kept."""
        return NoState()

    def hear(
        self,
        mel: Tensor,
        state: NoState,
        rows: Tensor,
        segments: Sequence[Segment],
        frames: Sequence[int],
        last: Sequence[bool],
        adapters: Adapters | None = None,
    ) -> Heard:
        """Encode every window whole (see `Hearing.hear`)."""
        batch, ring = len(segments), mel.shape[1]
        windows = mel.new_full((batch, ring, mel.shape[2]), SILENCE)
        for window, row, segment, total in zip(windows, rows.tolist(), segments, frames, strict=True):
            count = total - segment.start
            window[:count] = mel[row, torch.arange(segment.start, total, device=mel.device) % ring]
            segment.heard = total
        features = self.model.encoder(normalize_window(windows), adapters)
        if self.scratch is None or self.scratch[0].slots < batch:
            self.scratch = self.model.decoder.initial_state(batch), self.model.decoder.initial_memory(batch)
        decoder, memory = self.scratch
        slots = torch.arange(batch, device=mel.device)
        memory.frames.zero_()
        self.model.decoder.listen(Chunk.of(features), memory, slots, adapters)
        return Heard(decoder, slots, memory, slots, adapters)


@dataclass
class IncrementalState(State):
    """Caches of every stage between mel frames and tokens."""

    normalize: RunningMaxState
    encoder: EncoderState
    memory: AudioMemory
    decoder: DecoderState


class IncrementalHearing:
    """Encode under a block-causal mask of ``block`` encoder frames (20 ms).

    Frames of a complete block are encoded once. Those of a block that is not complete yet are encoded with what has
    come of it, to be heard at once, and again with the next chunk: a frame hears more of what follows it that way, and
    words need not wait for it.
    """

    keeps_tokens = True

    def __init__(self, model: Whisper, block: int) -> None:
        self.decoder = model.decoder
        self.encoder = model.encoder.with_block(block)
        self.normalize = RunningMaxNormalize().to(model.decoder.ln.weight.device)

    def initial_state(self, slots: int) -> IncrementalState:
        """Room for a window of 30 s of every stream."""
        return IncrementalState(
            self.normalize.initial_state(slots),
            self.encoder.initial_state(slots),
            self.decoder.initial_memory(slots),
            self.decoder.initial_state(slots),
        )

    def hear(
        self,
        mel: Tensor,
        state: IncrementalState,
        rows: Tensor,
        segments: Sequence[Segment],
        frames: Sequence[int],
        last: Sequence[bool],
        adapters: Adapters | None = None,
    ) -> Heard:
        """Encode the new frames (see `Hearing.hear`); streams with equally many share a batch.

        A segment that ends is heard to end, see `with_tail`.
        """
        fresh = [row for row, segment in zip(rows.tolist(), segments, strict=True) if segment.heard == segment.start]
        if fresh:
            state.normalize.reset(fresh)
            state.encoder.restart(fresh)
            state.memory.frames[fresh] = 0
            state.decoder.position[fresh] = 0
        state.memory.frames[rows] = state.encoder.position[rows]  # what lies beyond was a glimpse
        groups: dict[int, list[int]] = {}
        for i, (segment, total) in enumerate(zip(segments, frames, strict=True)):
            groups.setdefault(total - segment.heard, []).append(i)
        for count, members in groups.items():
            slots = rows[members]
            first = torch.tensor([segments[i].heard for i in members], device=mel.device)
            entry = (first[:, None] + torch.arange(count, device=mel.device)) % mel.shape[1]
            ends = torch.tensor([last[i] for i in members], device=mel.device)
            chunk = Chunk(mel[slots[:, None], entry], torch.full_like(slots, count), ends)
            if any(last[i] for i in members):
                heard = torch.tensor([frames[i] - segments[i].start for i in members], device=mel.device)
                chunk = with_tail(chunk, mel.shape[1] - heard)
            chosen = None if adapters is None else adapters.select(torch.tensor(members))
            mel_chunk = self.normalize.step(chunk, state.normalize, slots)
            features = self.encoder.step(mel_chunk, state.encoder, slots, adapters=chosen)
            self.decoder.listen(features, state.memory, slots, chosen)
            for i in members:
                segments[i].heard = frames[i]
        going = [i for i, ends in enumerate(last) if not ends]
        if going:
            chosen = None if adapters is None else adapters.select(torch.tensor(going))
            glimpse = self.encoder.glimpse(state.encoder, rows[going], chosen)
            if glimpse.data.shape[1]:
                self.decoder.listen(glimpse, state.memory, rows[going], chosen)
        return Heard(state.decoder, rows, state.memory, rows, adapters)


def with_tail(mel: Chunk, room: Tensor) -> Chunk:
    """Log-mel frames (B, T, F) and, in rows that end, silence: `TAIL` frames, or ``room`` (B,) if that is less.

    Who waits to see how a word ends would otherwise never write the last one. A window that is encoded afresh has this
    silence anyway, for it is padded to 30 s.
    """
    tail = torch.where(mel.last, room.clamp(0, TAIL), 0)
    data = F.pad(mel.data.masked_fill(~mel.mask[..., None], SILENCE), (0, 0, 0, int(tail.max())), value=SILENCE)
    return mel.with_data(data, mel.length + tail)
