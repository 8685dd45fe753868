"""How a stream's audio reaches the decoder: encoded afresh at every step, or once, incrementally."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from loquent.asr.whisper.live.memo import AudioWindow
from loquent.asr.whisper.model import Whisper
from loquent.asr.whisper.states import AudioMemory, DecoderState, EncoderState
from loquent.speech.audio.features import RunningMaxNormalize, RunningMaxState, normalize_window
from loquent.speech.nn.low_rank import Adapters
from loquent.speech.nn.state import State
from loquent.speech.nn.streaming import Chunk

SILENCE = -10.0  # log10 of the smallest mel energy: what Whisper's front end makes of zeros
TAIL = 50  # mel frames of silence after an utterance: a word is certain once silence follows it


class EncodedAudio(NamedTuple):
    """Where the decoder finds its own past and the audio of each stream of a batch."""

    decoder: DecoderState
    rows: Tensor  # (B,) slots of ``decoder``
    memory: AudioMemory
    memory_rows: Tensor  # (B,) slots of ``memory``
    adapters: Adapters | None  # of the B streams

    def select(self, index: Sequence[int]) -> EncodedAudio:
        """Some of the streams."""
        chosen = torch.tensor(index, device=self.rows.device)
        adapters = None if self.adapters is None else self.adapters.select(chosen)
        return self._replace(rows=self.rows[chosen], memory_rows=self.memory_rows[chosen], adapters=adapters)


class AudioEncoding(Protocol):
    """Turns mel frames into what the decoder attends to.

    keeps_tokens: whether the decoder's keys and values stay valid from one step to the next.
    """

    keeps_tokens: bool

    def initial_state(self, slots: int) -> State:
        """Pool of what is kept of each stream."""

    def encode(
        self,
        mel: Tensor,
        state: Any,
        rows: Tensor,
        windows: Sequence[AudioWindow],
        frames: Sequence[int],
        last: Sequence[bool],
        adapters: Adapters | None = None,
    ) -> EncodedAudio:
        """Encode the frames of each window that have come since the last call.

        Args:
            mel: (S, 3000, F) rings of log-mel frames; frame t of a stream is in entry t mod 3000.
            state: what `initial_state` returned.
            rows: (B,) slots of the streams.
            windows: of the streams; ``encoded`` is moved on.
            frames: mel frames that each stream has brought in all.
            last: whether each window ends here.
            adapters: of the streams.
        """


@dataclass
class NoState(State):
    """State of an encoding that keeps nothing."""


class Reencoding:
    """Encode the whole window again at every step, padded to 30 s, as stock Whisper was trained.

    The keys and values of decoder and audio live in scratch slots for the length of a step.
    """

    keeps_tokens = False

    def __init__(self, model: Whisper) -> None:
        self.model = model
        self.scratch: tuple[DecoderState, AudioMemory] | None = None

    def initial_state(self, slots: int) -> NoState:
        """Nothing is kept."""
        return NoState()

    def encode(
        self,
        mel: Tensor,
        state: NoState,
        rows: Tensor,
        windows: Sequence[AudioWindow],
        frames: Sequence[int],
        last: Sequence[bool],
        adapters: Adapters | None = None,
    ) -> EncodedAudio:
        """Encode every window whole (see `AudioEncoding.encode`).

        A slot may come several times, to be written about in several ways under one adapter: windows of it that begin
        together are encoded once.
        """
        batch, ring = len(windows), mel.shape[1]
        places: dict[tuple[int, int], int] = {}
        place, firsts = list[int](), list[int]()
        for i, (row, window) in enumerate(zip(rows.tolist(), windows, strict=True)):
            place.append(places.setdefault((row, window.start), len(places)))
            if place[-1] == len(firsts):
                firsts.append(i)
        padded = mel.new_full((len(firsts), ring, mel.shape[2]), SILENCE)
        for out, i in zip(padded, firsts, strict=True):
            first, total = windows[i].start, frames[i]
            out[: total - first] = mel[int(rows[i]), torch.arange(first, total, device=mel.device) % ring]
        for window, total in zip(windows, frames, strict=True):
            window.encoded = total
        chosen = None if adapters is None else adapters.select(torch.tensor(firsts))
        features = self.model.encoder(normalize_window(padded), chosen)
        if self.scratch is None or self.scratch[0].slots < batch:
            self.scratch = self.model.decoder.initial_state(batch), self.model.decoder.initial_memory(batch)
        decoder, memory = self.scratch
        slots = torch.arange(batch, device=mel.device)
        memory.frames.zero_()
        self.model.decoder.add_audio(Chunk.of(features), memory, slots[: len(firsts)], chosen)
        return EncodedAudio(decoder, slots, memory, torch.tensor(place, device=mel.device), adapters)


@dataclass
class IncrementalState(State):
    """Caches of every stage between mel frames and tokens."""

    normalize: RunningMaxState
    encoder: EncoderState
    memory: AudioMemory
    decoder: DecoderState


class IncrementalEncoding:
    """Encode under a block-causal mask of ``block`` encoder frames (20 ms).

    Frames of a complete block are encoded once. Those of an incomplete block are encoded provisionally, so that words
    need not wait, and again with every chunk until the block is complete: a frame then attends to more of what follows.
    """

    keeps_tokens = True

    def __init__(self, model: Whisper, block: int) -> None:
        self.decoder, self.block = model.decoder, block
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

    def encode(
        self,
        mel: Tensor,
        state: IncrementalState,
        rows: Tensor,
        windows: Sequence[AudioWindow],
        frames: Sequence[int],
        last: Sequence[bool],
        adapters: Adapters | None = None,
    ) -> EncodedAudio:
        """Encode the new frames (see `AudioEncoding.encode`); streams with equally many share a batch.

        Silence follows a window that ends, see `with_tail`.
        """
        fresh = [row for row, window in zip(rows.tolist(), windows, strict=True) if window.encoded == window.start]
        if fresh:
            state.normalize.reset(fresh)
            state.encoder.restart(fresh)
            state.memory.frames[fresh] = 0
            state.decoder.position[fresh] = 0
        state.memory.frames[rows] = state.encoder.position[rows]  # drops the provisional frames
        groups: dict[int, list[int]] = {}
        for i, (window, total) in enumerate(zip(windows, frames, strict=True)):
            groups.setdefault(total - window.encoded, []).append(i)
        for count, members in groups.items():
            slots = rows[members]
            first = torch.tensor([windows[i].encoded for i in members], device=mel.device)
            entry = (first[:, None] + torch.arange(count, device=mel.device)) % mel.shape[1]
            ends = torch.tensor([last[i] for i in members], device=mel.device)
            chunk = Chunk(mel[slots[:, None], entry], torch.full_like(slots, count), ends)
            if any(last[i] for i in members):
                used = torch.tensor([frames[i] - windows[i].start for i in members], device=mel.device)
                chunk = with_tail(chunk, mel.shape[1] - used)
            chosen = None if adapters is None else adapters.select(torch.tensor(members))
            mel_chunk = self.normalize.step(chunk, state.normalize, slots)
            features = self.encoder.step(mel_chunk, state.encoder, slots, adapters=chosen, ahead=True)
            self.decoder.add_audio(features, state.memory, slots, chosen)
            for i in members:
                windows[i].encoded = frames[i]
        return EncodedAudio(state.decoder, rows, state.memory, rows, adapters)


def with_tail(mel: Chunk, room: Tensor) -> Chunk:
    """Log-mel frames (B, T, F) and, in rows that end, silence: `TAIL` frames, or ``room`` (B,) if that is less.

    A model that waits for the end of a word would otherwise never write the last one. A window that is encoded afresh
    has this silence anyway, because it is padded to 30 s.
    """
    tail = torch.where(mel.last, room.clamp(0, TAIL), 0)
    data = F.pad(mel.data.masked_fill(~mel.mask[..., None], SILENCE), (0, 0, 0, int(tail.max())), value=SILENCE)
    return mel.with_data(data, mel.length + tail)
