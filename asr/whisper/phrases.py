"""Phrases that a recording or a stream is likely to contain, for Whisper: their tokens, and what those gain."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
from torch import Tensor

from loquent.asr.options import MAX_PHRASE_TOKENS
from loquent.asr.search.biasing import Biasing
from loquent.asr.whisper.tokenizer import WhisperTokenizer


@functools.lru_cache(16)  # streams of one client often have the same ones
def phrase_biasing(tokenizer: WhisperTokenizer, phrases: tuple[str, ...], boost: float) -> Biasing | None:
    """The trie of some phrases, None without any.

    A phrase counts as it is spelt and with a capital at its beginning, as in a sentence's first word; behind a space,
    and without one, as behind a quotation mark.

    Args:
        boost: that each token gains, in nats.

    Raises:
        ValueError: they have too many tokens.
    """
    written = [phrase.strip() for phrase in phrases if phrase.strip()]
    count = sum(len(tokenizer.encode(" " + phrase)) for phrase in written)
    if count > MAX_PHRASE_TOKENS:
        raise ValueError(f"phrases: expected at most {MAX_PHRASE_TOKENS} tokens in all, got {count}")
    spelt = {text for phrase in written for text in (phrase, phrase[0].upper() + phrase[1:])}
    tokens = sorted(tokenizer.encode(before + text) for text in spelt for before in (" ", ""))
    return Biasing.of(tokens, boost) if tokens else None


def with_gains(scores: Tensor, places: Sequence[tuple[Biasing | None, int]], text_end: int, *, greedy: bool) -> Tensor:
    """Scores of what may follow each text, with what the tokens of phrases gain.

    Shallow fusion with the phrases as a language model: Zhao et al. 2019, "Shallow-Fusion End-to-End Contextual
    Biasing" (Interspeech), where a match that breaks off gives back what it earned. Where the model would rather end,
    or write a time, nothing gains: phrases tell how something is spelt, and not that there is more to be written.

    Args:
        scores: (B, V).
        places: each text's phrases, and the node at which it is among them.
        text_end: the token after those of text.
        greedy: see `Biasing.gains`.

    Returns:
        (B, V); ``scores`` itself where no text has phrases, and its very numbers in those that have none.
    """
    rows, tokens, gains = list[Tensor](), list[Tensor](), list[Tensor]()
    for index, (biasing, node) in enumerate(places):
        for of_tokens, values in biasing.gains(node, greedy) if biasing else ():
            rows.append(torch.full_like(of_tokens, index))
            tokens.append(of_tokens)
            gains.append(values)
    if not rows:
        return scores
    row, token, gain = (torch.cat(parts).to(scores.device) for parts in (rows, tokens, gains))
    going_on = scores.argmax(-1) < text_end
    return scores.index_put((row, token), gain * going_on[row], accumulate=True)
