"""Phonemes of words that no lexicon has, by a small network over their letters.

The weights are those of the net for unknown words of hibari-tts 0.2.1 (Apache-2.0, Maureese Williams), in half
precision, see `tts/assets/english/NOTICE`.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor, nn
from torch.nn import functional as F

from loquent.tts.frontend.normalization.letters import without_accents

LONGEST = 24  # letters; the rest of a word is not read
SLOTS = 4  # phones that a letter may stand for
DIM, HEADS, HIDDEN, LAYERS = 128, 4, 384, 4


class UnknownWords(nn.Module):
    """A transformer that says, for each letter, four phones or blanks; equal neighbours are one, as in CTC.

    Args:
        letters, phones: those that it knows, one character each.
    """

    def __init__(self, letters: str, phones: str) -> None:
        super().__init__()
        self._ids = {letter: index for index, letter in enumerate(letters, start=1)}
        self._phones = ["", *phones]
        self.positions = nn.Parameter(torch.zeros(LONGEST, DIM))
        self.embedding = nn.Embedding(len(letters) + 1, DIM)
        self.layers = nn.ModuleList(_Layer() for _ in range(LAYERS))
        self.norm = nn.LayerNorm(DIM)
        self.head = nn.Linear(DIM, SLOTS * (len(phones) + 1))
        self._cached = lru_cache(maxsize=4096)(self._read)

    @classmethod
    def load(cls, path: Path) -> UnknownWords:
        """Read the weights, and the letters and phones that stand with them."""
        with safe_open(path, "pt") as file:
            metadata = file.metadata()
            net = cls(metadata["characters"], metadata["phonemes"])
            net.load_state_dict({name: file.get_tensor(name).float() for name in file.keys()})  # noqa: SIM118
        return net.eval()

    def forward(self, letters: Tensor) -> Tensor:
        """Scores of phones, (B, T · 4, phones + 1), for letters (B, T) int64, T ≤ 24."""
        x = self.embedding(letters) + self.positions[: letters.shape[1]]
        for layer in self.layers:
            x = layer(x)
        return self.head(self.norm(x)).unflatten(-1, (SLOTS, -1)).flatten(1, 2)

    def read(self, word: str) -> str:
        """The phonemes of a word; "" if none of its letters is known."""
        return self._cached(word)

    def _read(self, word: str) -> str:
        spelled = "".join(letter if letter in self._ids else without_accents(letter) for letter in word)
        letters = [self._ids[letter] for letter in spelled if letter in self._ids][:LONGEST]
        if not letters:
            return ""
        with torch.inference_mode():
            best = self(torch.tensor([letters]))[0].argmax(-1).tolist()
        return "".join(self._phones[phone] for phone, before in zip(best, [0, *best], strict=False) if phone != before)


class _Layer(nn.Module):
    """Attention and a feed-forward layer, each on normalised input and added to it."""

    def __init__(self) -> None:
        super().__init__()
        self.attention_norm, self.feed_forward_norm = nn.LayerNorm(DIM), nn.LayerNorm(DIM)
        self.qkv, self.out = nn.Linear(DIM, 3 * DIM), nn.Linear(DIM, DIM)
        self.expand, self.contract = nn.Linear(DIM, HIDDEN), nn.Linear(HIDDEN, DIM)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.attention_norm(x)).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        x = x + self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return x + self.contract(F.gelu(self.expand(self.feed_forward_norm(x))))
