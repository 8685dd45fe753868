"""Models to test with: one that translates piece by piece at once, and the network with random weights."""

from __future__ import annotations

import io
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import sentencepiece
import torch
from torch import Tensor

from loquent.recipes.translation.pieces import TAGS
from loquent.speech.nn.state import State
from loquent.translate.model import Draft, Search
from loquent.translate.pieces import Pieces
from loquent.translate.search.greedy import greedy_search
from loquent.translate.search.stepper import Scores
from loquent.translate.seq2seq.config import Seq2SeqConfig
from loquent.translate.seq2seq.model import Seq2SeqTranslator
from loquent.translate.seq2seq.network import Seq2Seq

SYLLABLES = [c + v for c in "bcdfghklmnprstvz" for v in "aeiou"]


def made_up(words: int, seed: int) -> str:
    """A text of words that are a few syllables each."""
    rng = random.Random(seed)
    return " ".join("".join(rng.choices(SYLLABLES, k=rng.randint(1, 3))) for _ in range(words))


@cache
def toy_pieces() -> Pieces:
    """400 pieces of made-up words, with bytes and tags."""
    stream = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([f"{made_up(8, seed).capitalize()}." for seed in range(400)]),
        model_writer=stream,
        vocab_size=400,
        model_type="unigram",
        byte_fallback=True,
        control_symbols=",".join(TAGS),
        pad_id=0,
        unk_id=1,
        bos_id=-1,
        eos_id=2,
        num_threads=1,  # the order of its sums changes the pieces
        minloglevel=2,
    )
    return Pieces(stream.getvalue())


def toy_network(decoder: str = "ssru", seed: int = 0) -> Seq2SeqTranslator:
    """The network with random weights; it rarely finds an end, so give it a few words."""
    torch.manual_seed(seed)
    sizes = Seq2SeqConfig(toy_pieces().size, 32, 2, 64, 2, 2, decoder, left_context=24, memory=192)  # type: ignore[arg-type]
    return Seq2SeqTranslator(Seq2Seq(sizes).eval(), toy_pieces(), "en", "es")


@dataclass
class Buffer(State):
    """Source pieces of the segment; ``read``, ``held`` and ``written`` count pieces."""

    pieces: Tensor  # (S, R) int64, right-aligned
    read: Tensor  # (S,) int64
    held: Tensor  # (S,) int64
    written: Tensor  # (S,) int64
    ended: Tensor  # (S,) bool


class Mirror:
    """A translator whose target pieces are the source's but for the newest, which it guesses wrong until another came.

    Each target piece attends to its source piece. So every policy has something to decide.
    """

    source, target, default_policy, waits, fingerprint = "en", "es", "wait-k", False, "mirror"
    most_source = 128

    def __init__(self) -> None:
        self.codec = self.target_codec = toy_pieces()

    def initial_state(self, slots: int) -> Buffer:
        counts = (torch.zeros(slots, dtype=torch.long) for _ in range(3))
        pieces = torch.zeros(slots, self.most_source, dtype=torch.long)
        return Buffer(pieces, *counts, torch.zeros(slots, dtype=torch.bool))

    def read(self, pieces: Sequence[Sequence[int]], ends: Sequence[bool], state: Buffer, rows: Tensor) -> None:
        for row, own, end in zip(rows.tolist(), pieces, ends, strict=True):
            assert state.held[row] + len(own) <= self.most_source
            state.pieces[row] = torch.cat([state.pieces[row], torch.tensor(own, dtype=torch.long)])[-self.most_source :]
            state.read[row] += len(own)
            state.held[row] += len(own)
            state.ended[row] = end

    def draft(self, searches: Sequence[Search], state: Buffer, rows: Tensor) -> list[Draft]:
        return [
            greedy_search(_Copying(self, state, int(row)), [one])[0] for one, row in zip(searches, rows, strict=True)
        ]

    def commit(self, drafts: Sequence[Draft], counts: Sequence[int], state: Buffer, rows: Tensor) -> None:
        for row, draft, count in zip(rows.tolist(), drafts, counts, strict=True):
            if count:
                state.written[row] = draft.attended[count - 1] + 1

    def forget(self, counts: Sequence[int], state: Buffer, rows: Tensor) -> None:
        state.held[rows] -= torch.tensor(counts)


class _Copying:
    def __init__(self, model: Mirror, state: Buffer, row: int) -> None:
        self.end, self.begins_word = model.codec.end, model.codec.begins_word
        self.inner = torch.tensor(model.codec.inner)
        self.read, self.ended = [int(state.read[row])], bool(state.ended[row])
        held = int(state.held[row])
        self.source = dict(
            zip(range(self.read[0] - held, self.read[0]), state.pieces[row][-held:].tolist(), strict=True)
        )
        self.at = int(state.written[row])
        self.first = torch.zeros(1, dtype=torch.long)

    def step(self, pieces: Tensor) -> Scores:
        last = self.read[0] - 1
        self.at = max(self.at, min(self.source))
        piece = self.source.get(self.at, self.end)
        if self.at == last and not self.ended:
            piece = 300 + (piece + 1) % 50  # a wrong guess
        logits = torch.zeros(1, len(self.begins_word))
        logits[0, piece] = 9.0
        attended = torch.tensor([min(self.at, last)])
        self.at += 1
        return Scores(logits, attended)

    def select(self, index: Tensor) -> None:
        pass


def translated(events: Sequence[Any]) -> str:
    """What is committed."""
    return "".join(event.text for event in events if event.type == "translation")
