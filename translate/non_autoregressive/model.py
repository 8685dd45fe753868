"""The non-autoregressive network as a model of the translation task: reading a word costs one step of the encoder, and
translating all of the segment again costs one pass."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from loquent.kernels.cached_attention import remember
from loquent.speech.nn.state import State, check_range
from loquent.speech.nn.streaming import Chunk
from loquent.translate.model import Draft, Search
from loquent.translate.non_autoregressive.checkpoint import FAMILY, load_model
from loquent.translate.non_autoregressive.drafting import Written, draft_of
from loquent.translate.non_autoregressive.network import NonAutoregressive
from loquent.translate.non_autoregressive.path import FrameScores, best_path
from loquent.translate.pieces import Pieces
from loquent.translate.seq2seq.checkpoint import is_of_family
from loquent.translate.seq2seq.model import source_chunks


@dataclass
class SegmentState(State):
    """A segment of each stream.

    encoder: caches.
    memory:  states of the source pieces that can be attended to, left-aligned.
    read:    source pieces that were encoded, and ``held`` of them that can be attended to.
    written: the newest committed pieces, left-aligned, and ``places`` the source pieces that they stand for.
    count:   how many these are.
    """

    encoder: tuple[State, ...]
    memory: Tensor  # (S, 1, R, C)
    read: Tensor  # (S,) int64
    held: Tensor  # (S,) int64
    written: Tensor  # (S, R U) int64
    places: Tensor  # (S, R U) int64
    count: Tensor  # (S,) int64
    vocabulary: int

    def check(self) -> None:
        """See `State.check`."""
        super().check()
        check_range("held", self.held, 0, self.memory.shape[2])
        check_range("written", self.written, 0, self.vocabulary - 1)
        check_range("count", self.count, 0, self.written.shape[1])
        if bool((self.held > self.read).any()):
            raise ValueError("state 'held' has more pieces than were read")


class NonAutoregressiveTranslator:
    """A `TranslationModel` with a `NonAutoregressive` network.

    A draft is the likeliest path of CTC that begins with what is committed, so every policy works with it. It has one
    hypothesis, whatever the beam.

    Args:
        network: in evaluation mode.
        pieces: of both languages.
        source, target: codes of the languages.
    """

    default_policy = "re-translation"
    waits = False

    def __init__(self, network: NonAutoregressive, pieces: Pieces, source: str, target: str) -> None:
        if pieces.size != network.config.encoder.vocabulary:
            raise ValueError(f"the network has {network.config.encoder.vocabulary} pieces, but its codec {pieces.size}")
        self.network, self.codec, self.target_codec = network, pieces, pieces
        self.source, self.target = source, target
        self.most_source, self.blank = network.config.encoder.memory, pieces.size
        silent = torch.tensor([*pieces.silent, False], device=network.frame.device)
        silent[pieces.end] = True  # where a path ends, the translation does
        self.never = torch.zeros(len(silent), device=silent.device).masked_fill(silent, -torch.inf)
        self.fingerprint = _fingerprint(network, pieces, target)

    @staticmethod
    def owns(path: Path) -> bool:
        """Whether a folder holds such a model."""
        return is_of_family(path, FAMILY)

    @classmethod
    def load(cls, path: Path, device: torch.device) -> NonAutoregressiveTranslator:
        """Read a model's folder.

        Raises:
            FileNotFoundError, ValueError: see `load_model`.
        """
        model = load_model(path)
        return cls(model.network.to(device), model.pieces, model.source, model.target)

    def initial_state(self, slots: int) -> SegmentState:
        """See `TranslationModel`."""
        config, device = self.network.config, self.network.frame.device
        zeros = torch.zeros(slots, dtype=torch.long, device=device)
        pieces = torch.zeros(slots, self.most_source * config.upsampling, dtype=torch.long, device=device)
        memory = torch.zeros(slots, 1, self.most_source, config.encoder.channels, device=device)
        return SegmentState(
            *(self.network.initial_state(slots), memory, zeros, zeros.clone()),
            *(pieces, pieces.clone(), zeros.clone(), self.codec.size),
        )

    @torch.no_grad()
    def read(self, pieces: Sequence[Sequence[int]], ends: Sequence[bool], state: SegmentState, rows: Tensor) -> None:
        """See `TranslationModel.read`."""
        for chunk in source_chunks(pieces, ends, self.codec.end, rows):
            self._read(chunk, state, rows)

    @torch.no_grad()
    def draft(self, searches: Sequence[Search], state: SegmentState, rows: Tensor) -> list[Draft]:
        """See `TranslationModel.draft`."""
        drafts = [Draft() for _ in searches]
        held = state.held[rows].tolist()
        some = [at for at, count in enumerate(held) if count]
        if not some:
            return drafts
        slots = rows[torch.tensor(some, device=rows.device)]
        committed = [self._committed(state, slot) for slot in slots.tolist()]
        shown = [searches[at].previous if searches[at].bias else () for at in some]
        prefixes = [[*one, *other] for one, other in zip(committed, shown, strict=True)]
        scores = self._scores(state, slots, [held[at] for at in some], prefixes)
        gone = (state.read[slots] - state.held[slots]).tolist()
        for number, at in enumerate(some):
            search, own, per = searches[at], scores[number], self.network.config.upsampling
            if not np.isfinite(own.best).all():
                drafts[at] = Draft(finite=False)
                continue
            path = best_path(own, prefixes[number], len(committed[number]), search.bias)
            written = [Written(one.piece, one.frame // per + gone[number], float(np.exp(one.score))) for one in path]
            drafts[at] = draft_of(written, search, gone[number] + held[at], self.codec)
        return drafts

    def commit(self, drafts: Sequence[Draft], counts: Sequence[int], state: SegmentState, rows: Tensor) -> None:
        """See `TranslationModel.commit`."""
        for slot, draft, more in zip(rows.tolist(), drafts, counts, strict=True):
            count = int(state.count[slot])
            for values, new in ((state.written, draft.pieces), (state.places, draft.attended)):
                newest = [*values[slot, :count].tolist(), *new[:more]][-values.shape[1] :]
                values[slot, : len(newest)] = torch.tensor(newest, dtype=torch.long, device=values.device)
            state.count[slot] = min(count + more, state.written.shape[1])

    def forget(self, counts: Sequence[int], state: SegmentState, rows: Tensor) -> None:
        """See `TranslationModel.forget`. What was written for these source pieces binds no draft any more."""
        for slot, gone in zip(rows.tolist(), counts, strict=True):
            held, count = int(state.held[slot]), int(state.count[slot])
            left = held - min(gone, held)
            state.memory[slot, :, :left] = state.memory[slot, :, held - left : held].clone()
            state.held[slot] = left
            oldest = int(state.read[slot]) - left
            unbound = max(
                (at + 1 for at, place in enumerate(state.places[slot, :count].tolist()) if place < oldest), default=0
            )
            for values in (state.written, state.places):
                values[slot, : count - unbound] = values[slot, unbound:count].clone()
            state.count[slot] = count - unbound

    # ----------------------------------------------------------------------------------------------------------------

    def _read(self, chunk: Chunk, state: SegmentState, rows: Tensor) -> None:
        held = state.held[rows]
        if not chunk.static and bool((held + chunk.length > self.most_source).any()):
            raise ValueError(f"a segment has more than {self.most_source} source pieces; forget some before reading")
        x = self.network.step(chunk, state.encoder, rows)
        remember(state.memory, x[:, :, None], rows, held, chunk.length)
        state.read[rows] += chunk.length
        state.held[rows] += chunk.length

    def _committed(self, state: SegmentState, slot: int) -> list[int]:
        return state.written[slot, : int(state.count[slot])].tolist()

    def _scores(
        self, state: SegmentState, slots: Tensor, held: Sequence[int], prefixes: Sequence[Sequence[int]]
    ) -> list[FrameScores]:
        """One pass over all that these streams hold."""
        logits = self.network.write(state.memory[slots, 0, : max(held)], state.held[slots])
        scores = logits.float().log_softmax(-1)
        best, piece = (one.cpu().numpy() for one in (scores + self.never).max(-1))
        found = []
        for row, (count, prefix) in enumerate(zip(held, prefixes, strict=True)):
            frames = count * self.network.config.upsampling
            wanted = torch.tensor([*prefix, self.blank], device=scores.device)
            columns = scores[row, :frames, wanted].cpu().double().numpy()
            own = best[row, :frames].astype(np.float64), piece[row, :frames]
            found.append(FrameScores(*own, columns[:, -1], columns[:, :-1], self.blank))
        return found


def _fingerprint(network: NonAutoregressive, pieces: Pieces, target: str) -> str:
    digest = hashlib.sha256(repr((network.config, target)).encode() + pieces.content)
    for weight in (network.encoder_norm.weight, network.norm.weight):
        digest.update(weight.detach().float().cpu().numpy().tobytes())
    return digest.hexdigest()
