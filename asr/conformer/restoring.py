"""Makes sure that what is left of a stream by a snapshot, which may come from anywhere, is that of a stream.

After this no step can be led astray by it: to tokens that do not exist, or to numbers that overflow. What a stream has
said cannot be verified, and need not be.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from loquent.asr.conformer.memo import ConformerMemo
from loquent.asr.options import MAX_BOOST, MAX_PHRASE_TOKENS
from loquent.asr.search.tokens import MAX_OPEN, SearchMemo, Token
from loquent.speech.nn.state import MOST

LONGEST_CONTEXT = 256  # tokens that a language model looks back
LARGEST_SCORE = 1e31  # beyond the stand-in for log 0


def check_memo(
    memo: ConformerMemo, *, lookaheads: Sequence[int], vocabulary: int, beam: int, has_language_model: bool
) -> None:
    """Check the values of a memo against each other and the model.

    Args:
        lookaheads: those that the model was made for.
        vocabulary: number of tokens, without the blank.
        beam: most hypotheses.
        has_language_model: whether one takes part in the search.

    Raises:
        ValueError: one is none that a stream can have.
    """
    for name in ("lookahead", "following"):
        value = getattr(memo, name)
        _expect(name, type(value) is int and value in lookaheads, value)
    _expect("samples", _is_count(memo.samples), memo.samples)
    _expect("frames", _is_count(memo.frames, memo.samples), memo.frames)
    _check_tokens("word", memo.word, memo.frames, vocabulary)
    _check_search(memo.search, memo.frames, vocabulary, beam, has_language_model)


def _check_search(search: SearchMemo, frames: int, vocabulary: int, beam: int, has_language_model: bool) -> None:
    if search.biasing is not None:
        phrases = search.biasing.phrases
        ids = [id_ for tokens, _ in phrases for id_ in tokens]
        sound = len(ids) <= MAX_PHRASE_TOKENS and max(ids, default=0) < vocabulary
        _expect("phrases", sound and all(score <= MAX_BOOST for _, score in phrases), phrases)
    _expect("hypotheses", 1 <= len(search.hypotheses) <= beam, search.hypotheses)
    nodes = search.biasing.nodes if search.biasing else 1
    for one in search.hypotheses:
        _check_tokens("hypotheses", one.tokens, frames, vocabulary)
        _expect("hypotheses", len(one.tokens) <= MAX_OPEN, one)
        _expect("hypotheses", type(one.last) is int and -1 <= one.last < vocabulary, one)
        _expect("hypotheses", not one.tokens or one.last == one.tokens[-1].id, one)
        _expect("hypotheses", _is_count(one.node, nodes - 1), one)
        for score in (one.score, one.repeating, one.bonus):
            _expect("hypotheses", type(score) in (int, float) and abs(score) <= LARGEST_SCORE, one)
        _expect("hypotheses", len(one.context) <= (LONGEST_CONTEXT if has_language_model else 0), one)
        _expect("hypotheses", all(_is_count(token, vocabulary) for token in one.context), one)
    ids_of = {one.ids for one in search.hypotheses}
    _expect("hypotheses", len(ids_of) == len(search.hypotheses), search.hypotheses)


def _check_tokens(name: str, tokens: Sequence[Token], frames: int, vocabulary: int) -> None:
    for id_, frame, probability in tokens:
        _expect(name, _is_count(id_, vocabulary - 1) and _is_count(frame, frames), tokens)
        _expect(name, type(probability) in (int, float) and 0 <= probability <= 1 + 1e-6, tokens)


def _is_count(value: Any, most: int = MOST) -> bool:
    return type(value) is int and 0 <= value <= most


def _expect(name: str, sound: bool, value: Any) -> None:
    if not sound:
        raise ValueError(f"not the memo of a stream of this Conformer: {name} is out of range: {str(value)[:60]}")
