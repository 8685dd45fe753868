"""The incremental encoder-decoder as a model of the translation task: reading a word costs one encoder step."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from loquent.kernels.cached_attention import remember
from loquent.kernels.cross_attention import cross_attention
from loquent.speech.nn.state import State, check_range, initial
from loquent.speech.nn.streaming import Chunk
from loquent.translate.model import Draft, Search
from loquent.translate.pieces import Pieces
from loquent.translate.search.beam import beam_search
from loquent.translate.search.greedy import greedy_search
from loquent.translate.search.stepper import Scores
from loquent.translate.seq2seq.checkpoint import FAMILY, is_of_family, load_model
from loquent.translate.seq2seq.network import Seq2Seq

AT_ONCE = 64  # source pieces that are encoded together
TAG = -1  # stands for the tag of the target language, the first piece that the decoder is given


@dataclass
class MemoryState(State):
    """Keys and values of the source pieces that can be attended to, of one decoder layer, left-aligned."""

    k: Tensor  # (S, H, R, D)
    v: Tensor  # (S, H, R, D)


@dataclass
class Seq2SeqState(State):
    """A segment of each stream.

    read:     source pieces that were encoded, and ``held`` of them that can be attended to.
    written:  pieces that the decoder was given, and ``pending`` the one that it is given next.
    shift:    what is added to the positions of target pieces.
    attended: source piece that the last committed one attends to most.
    """

    encoder: tuple[State, ...]
    past: tuple[State, ...]
    memory: tuple[MemoryState, ...]
    read: Tensor  # (S,) int64
    held: Tensor  # (S,) int64
    written: Tensor  # (S,) int64
    shift: Tensor  # (S,) int64
    attended: Tensor  # (S,) int64
    vocabulary: int
    pending: Tensor = initial(TAG)  # noqa: RUF009  (S,) int64

    def check(self) -> None:
        """See `State.check`."""
        super().check()
        check_range("held", self.held, 0, self.memory[0].k.shape[2])
        check_range("pending", self.pending, TAG, self.vocabulary - 1)
        if bool((self.held > self.read).any()):
            raise ValueError("state 'held' has more pieces than were read")


class Seq2SeqTranslator:
    """A `TranslationModel` with a `Seq2Seq` network.

    Args:
        network: in evaluation mode.
        pieces: of both languages.
        source, target: codes of the languages; the target's tag is one of the pieces.
    """

    default_policy = "wait-k"
    waits = False

    def __init__(self, network: Seq2Seq, pieces: Pieces, source: str, target: str) -> None:
        if pieces.size != network.config.vocabulary:
            raise ValueError(f"the network has {network.config.vocabulary} pieces, but its codec {pieces.size}")
        if target not in pieces.tags:
            raise ValueError(f"the model has no tag for {target!r}; it has {', '.join(pieces.tags)}")
        self.network, self.codec, self.target_codec = network, pieces, pieces
        self.source, self.target, self.tag = source, target, pieces.tags[target]
        self.most_source = network.config.memory
        silent = torch.tensor(pieces.silent, device=network.embedding.weight.device)
        self.never = torch.zeros(pieces.size, device=silent.device).masked_fill(silent, -torch.inf)
        self.inner = torch.tensor(pieces.inner, device=silent.device)
        self.fingerprint = _fingerprint(network, pieces, target)

    @staticmethod
    def owns(path: Path) -> bool:
        """Whether a folder holds such a model."""
        return is_of_family(path, FAMILY)

    @classmethod
    def load(cls, path: Path, device: torch.device) -> Seq2SeqTranslator:
        """Read a model's folder.

        Raises:
            FileNotFoundError, ValueError: see `load_model`.
        """
        model = load_model(path)
        return cls(model.network.to(device), model.pieces, model.source, model.target)

    def initial_state(self, slots: int) -> Seq2SeqState:
        """See `TranslationModel`."""
        network, config = self.network, self.network.config
        device = network.embedding.weight.device
        shape = slots, config.heads, config.memory, config.channels // config.heads
        zeros = torch.zeros(slots, dtype=torch.long, device=device)
        return Seq2SeqState(
            network.initial_state(slots),
            tuple(layer.past.initial_state(slots) for layer in network.decoder),
            tuple(
                MemoryState(torch.zeros(shape, device=device), torch.zeros(shape, device=device))
                for _ in network.decoder
            ),
            zeros.clone(),
            zeros.clone(),
            zeros.clone(),
            zeros.clone(),
            zeros.clone(),
            config.vocabulary,
            torch.full_like(zeros, TAG),
        )

    @torch.no_grad()
    def read(self, pieces: Sequence[Sequence[int]], ends: Sequence[bool], state: Seq2SeqState, rows: Tensor) -> None:
        """See `TranslationModel.read`."""
        for chunk in source_chunks(pieces, ends, self.codec.end, rows):
            self._read(chunk, state, rows)

    @torch.no_grad()
    def draft(self, searches: Sequence[Search], state: Seq2SeqState, rows: Tensor) -> list[Draft]:
        """See `TranslationModel.draft`."""
        drafts = [Draft()] * len(searches)
        for beam in {search.beam for search in searches}:
            chosen = [at for at, search in enumerate(searches) if search.beam == beam]
            own = rows[torch.tensor(chosen, device=rows.device)]
            stepper = _Stepper(self, state, own)
            some = [searches[at] for at in chosen]
            found = greedy_search(stepper, some) if beam == 1 else beam_search(stepper, some, beam)
            for at, draft in zip(chosen, found, strict=True):
                drafts[at] = draft
        return drafts

    @torch.no_grad()
    def commit(self, drafts: Sequence[Draft], counts: Sequence[int], state: Seq2SeqState, rows: Tensor) -> None:
        """See `TranslationModel.commit`."""
        some = [at for at, count in enumerate(counts) if count]
        if not some:
            return
        slots = rows[torch.tensor(some, device=rows.device)]
        pending = state.pending[slots].tolist()
        given = [[first, *drafts[at].pieces[: counts[at] - 1]] for first, at in zip(pending, some, strict=True)]
        chunk = _padded(given, slots)
        self._decode(chunk, state.past, slots, state, slots, state.written[slots])
        device = rows.device
        state.written[slots] += chunk.length
        state.pending[slots] = torch.tensor([drafts[at].pieces[counts[at] - 1] for at in some], device=device)
        state.attended[slots] = torch.tensor([drafts[at].attended[counts[at] - 1] for at in some], device=device)

    def forget(self, counts: Sequence[int], state: Seq2SeqState, rows: Tensor) -> None:
        """See `TranslationModel.forget`. The next target piece stands where the source that goes with it does."""
        for slot, count in zip(rows.tolist(), counts, strict=True):
            held = int(state.held[slot])
            count = min(count, held)
            for memory in state.memory if count else ():
                for cache in (memory.k, memory.v):
                    cache[slot, :, : held - count] = cache[slot, :, count:held].clone()
            state.held[slot] = held - count
            state.shift[slot] = state.attended[slot] + 1 - state.written[slot]

    # ----------------------------------------------------------------------------------------------------------------

    def _read(self, chunk: Chunk, state: Seq2SeqState, rows: Tensor) -> None:
        x = self.network.step(chunk, state.encoder, rows)
        position = state.read[rows][:, None] + torch.arange(x.shape[1], device=x.device)
        held = state.held[rows]
        if not chunk.static and bool((held + chunk.length > self.most_source).any()):
            raise ValueError(f"a segment has more than {self.most_source} source pieces; forget some before reading")
        for layer, memory in zip(self.network.decoder, state.memory, strict=True):
            for cache, new in zip((memory.k, memory.v), layer.cross.keys(x, position), strict=True):
                remember(cache, new, rows, held, chunk.length)
        state.read[rows] += chunk.length
        state.held[rows] += chunk.length

    def _decode(
        self, chunk: Chunk, past: Any, past_rows: Tensor, state: Seq2SeqState, rows: Tensor, written: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Give pieces to the decoder: ``past`` moves on, the source in ``state`` is only read.

        Args:
            chunk: (N, T) pieces; `TAG` stands for the tag.
            past: of the decoder's layers, with slots ``past_rows`` (N,).
            rows: (N,) slots of the source.
            written: (N,) pieces that were given before.

        Returns:
            Hidden states (N, T, C), and the attention of the last layer (N, H, T, R).
        """
        network, frames = self.network, state.held[rows]
        steps = torch.arange(chunk.data.shape[1], device=rows.device)
        position = (written + state.shift[rows])[:, None] + steps
        y = network.embed(torch.where(chunk.data == TAG, self.tag, chunk.data))
        weights: Tensor | None = None
        every = torch.arange(network.config.heads, device=rows.device)
        for number, (layer, own, memory) in enumerate(zip(network.decoder, past, state.memory, strict=True)):
            y = y + layer.past.step(chunk.with_data(layer.past_norm(y)), own, past_rows).data
            heads = every if number == len(network.decoder) - 1 else None
            q = layer.cross.queries(layer.cross_norm(y), position)
            seen, weights = cross_attention(q, memory.k, memory.v, rows, frames, heads=heads)
            y = y + layer.cross.out(seen.flatten(2))
            y = y + layer.feed(layer.feed_norm(y))
        assert weights is not None
        return network.decoder_norm(y), weights


class _Stepper:
    """Hypotheses of some streams, each with a past of its own; see `loquent.translate.search.stepper`."""

    def __init__(self, model: Seq2SeqTranslator, state: Seq2SeqState, rows: Tensor) -> None:
        self.model, self.state, self.rows = model, state, rows
        self.past = tuple(layer.gather(rows) for layer in state.past)
        self.written = state.written[rows]
        self.first = torch.where(state.pending[rows] == TAG, model.tag, state.pending[rows])
        self.read = state.read[rows].tolist()
        self.end, self.begins_word, self.inner = model.codec.end, model.codec.begins_word, model.inner

    def step(self, pieces: Tensor) -> Scores:
        """See `Stepper.step`."""
        count = torch.ones_like(pieces)
        chunk = Chunk(pieces[:, None], count, count == 0)
        own = torch.arange(len(pieces), device=pieces.device)
        hidden, weights = self.model._decode(chunk, self.past, own, self.state, self.rows, self.written)
        self.written = self.written + 1
        gone = self.state.read[self.rows] - self.state.held[self.rows]
        logits = self.model.network.logits(hidden[:, 0]) + self.model.never
        return Scores(logits, weights[:, :, 0].mean(1).argmax(1) + gone)

    def select(self, index: Tensor) -> None:
        """See `Stepper.select`."""
        self.past = tuple(layer.gather(index) for layer in self.past)
        self.rows, self.written = self.rows[index], self.written[index]


def source_chunks(pieces: Sequence[Sequence[int]], ends: Sequence[bool], end: int, like: Tensor) -> Iterator[Chunk]:
    """What streams read, as chunks of (B, T) int64 pieces for the encoder.

    Args:
        pieces, ends: see `TranslationModel.read`.
        end: the piece that stands for the end of a segment.
        like: a tensor on the device.
    """
    whole = [[*one, end] if ended else list(one) for one, ended in zip(pieces, ends, strict=True)]
    for at in range(0, max(map(len, whole), default=0), AT_ONCE):
        yield _padded([one[at : at + AT_ONCE] for one in whole], like)


def _padded(rows: Sequence[Sequence[int]], like: Tensor) -> Chunk:
    data = pad_sequence([torch.tensor(row, dtype=torch.long) for row in rows], batch_first=True).to(like.device)
    length = torch.tensor([len(row) for row in rows], device=like.device)
    return Chunk(data, length, torch.zeros_like(length, dtype=torch.bool))


def _fingerprint(network: Seq2Seq, pieces: Pieces, target: str) -> str:
    digest = hashlib.sha256(repr((network.config, target)).encode() + pieces.content)
    for weight in (network.encoder_norm.weight, network.decoder_norm.weight):
        digest.update(weight.detach().float().cpu().numpy().tobytes())
    return digest.hexdigest()
