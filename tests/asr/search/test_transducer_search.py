from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from loquent.asr.heads.transducer import Transducer, TransducerConfig
from loquent.asr.search.biasing import Biasing
from loquent.asr.search.language_model import Fusion, NGram
from loquent.asr.search.tokens import Advance, BeamOptions, SearchMemo
from loquent.asr.search.transducer_beam import TransducerBeamSearch
from loquent.asr.search.transducer_greedy import TransducerGreedySearch
from loquent.speech.nn.streaming import Chunk

DIM = 5
WIDE = BeamOptions(200, 100, math.inf)


def model(seed: int, vocabulary: int = 3, blank: float = 1.5, max_symbols: int = 2, **options: Any) -> Transducer:
    torch.manual_seed(seed)
    config = TransducerConfig(vocabulary, DIM, predictor_dim=6, joint_dim=8, max_symbols=max_symbols, **options)
    transducer = Transducer(config).eval()
    with torch.no_grad():
        for parameter in transducer.parameters():
            parameter.mul_(2.5)
        transducer.joiner.out.bias[vocabulary] += blank
    return transducer


def run(
    search: TransducerGreedySearch | TransducerBeamSearch, x: Tensor, phrases: Biasing | None = None, last: bool = True
) -> tuple[Advance, SearchMemo]:
    state, memo = search.initial_state(1), search.start(phrases)
    (advance,) = search.step(Chunk.of(x[None], last), state, torch.tensor([0]), [memo])
    return advance, memo


def frame_by_frame(transducer: Transducer, x: Tensor) -> list[tuple[int, int, float]]:
    """Greedy search as the textbooks have it: (token, frame, probability)."""
    tokens: list[tuple[int, int, float]] = []
    for t in range(len(x)):
        for _ in range(transducer.config.max_symbols):
            text = torch.tensor([[token for token, *_ in tokens]], dtype=torch.long)
            probabilities = transducer(x[None, t : t + 1], text)[0, 0, -1].softmax(-1)
            best = int(probabilities.argmax())
            if best == transducer.blank:
                break
            tokens.append((best, t, float(probabilities[best])))
    return tokens


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(["lstm", "stateless"]), st.integers(1, 3))
def test_greedy_equals_frame_by_frame(seed: int, predictor: str, max_symbols: int) -> None:
    transducer = model(seed, 4, max_symbols=max_symbols, predictor=predictor)
    x = torch.randn(12, DIM)
    advance, _ = run(TransducerGreedySearch(transducer), x)
    with torch.no_grad():
        expected = frame_by_frame(transducer, x)
    assert [token[:2] for token in advance.committed] == [token[:2] for token in expected]
    assert [token.probability for token in advance.committed] == pytest.approx([p for *_, p in expected], rel=1e-4)


def test_the_predictor_runs_once_per_round_of_tokens() -> None:
    transducer, calls = model(0, 4), []
    advance, search = transducer.advance, TransducerGreedySearch(transducer)

    def counting(tokens: Tensor, state: Any) -> Any:
        calls.append(len(tokens))
        return advance(tokens, state)

    transducer.advance = counting  # type: ignore[method-assign]
    state, memos = search.initial_state(8), [search.start() for _ in range(8)]
    advances = search.step(Chunk.of(torch.randn(8, 20, DIM)), state, torch.arange(8), memos)
    emitted = [len(advance.committed) for advance in advances]
    assert sum(calls) == 8 + sum(emitted)  # start tokens too
    assert len(calls) <= 1 + max(emitted)


def loss_of(transducer: Transducer, x: Tensor, text: tuple[int, ...]) -> float:
    targets = torch.tensor([text], dtype=torch.long)
    with torch.no_grad():
        return float(transducer.loss(x[None], torch.tensor([len(x)]), targets, torch.tensor([len(text)])))


@settings(max_examples=6, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(["lstm", "stateless"]))
def test_scores_of_an_unlimited_beam_are_those_of_the_loss(seed: int, predictor: str) -> None:
    transducer = model(seed, 2, max_symbols=3, predictor=predictor)
    x = torch.randn(2, DIM)
    advance, memo = run(TransducerBeamSearch(transducer, WIDE), x, last=False)
    assert advance.committed == []  # the empty text is among the hypotheses
    scores = {h.ids: h.total for h in memo.hypotheses}
    assert len(scores) == 2 ** (2 * 3 + 1) - 1
    constant = scores[()] + loss_of(transducer, x, ())
    for text, score in scores.items():
        if len(text) <= 3:  # longer ones lack the alignments that max_symbols excludes
            assert score - constant == pytest.approx(-loss_of(transducer, x, text), abs=1e-3)


def test_an_unlimited_beam_finds_the_best_biased_and_rescored_text() -> None:
    transducer, phrases = model(7, 2, max_symbols=3, blank=1.0), Biasing([([0, 1], 1.5)])
    scorer = NGram([{(0,): (-1.0, -0.4), (1,): (-0.5, 0.0)}, {(2, 0): (-0.1, 0.0), (1, 1): (-2.0, 0.0)}], 2)
    x = torch.randn(2, DIM)
    _, memo = run(TransducerBeamSearch(transducer, WIDE), x, last=False)
    plain = {h.ids: h.total for h in memo.hypotheses}
    _, memo = run(TransducerBeamSearch(transducer, WIDE, Fusion(scorer, 0.5, 0.2)), x, phrases, last=False)
    rescored = {h.ids: h.total for h in memo.hypotheses}
    assert plain.keys() == rescored.keys()

    def added(text: tuple[int, ...]) -> float:
        node, context, total = 0, scorer.start(), 0.0
        for token in text:
            node, change = phrases.advance(node, token)
            total += change + 0.5 * float(scorer.scores([context])[0, token]) + 0.2
            context = scorer.advance(context, token)
        return total

    empty = rescored[()] - plain[()]
    for text, total in rescored.items():
        assert total - plain[text] - empty == pytest.approx(added(text), abs=1e-3)


def test_a_beam_finds_more_probable_texts_than_greedy() -> None:
    losses = torch.zeros(2)
    for seed in range(6):
        transducer = model(seed, 4)
        x = torch.randn(10, DIM)
        searches = TransducerGreedySearch(transducer), TransducerBeamSearch(transducer, BeamOptions(8, 5))
        for kind, search in enumerate(searches):
            losses[kind] += loss_of(transducer, x, tuple(token.id for token in run(search, x)[0].committed))
    assert losses[1] < losses[0] - 1


def said(*tokens: int, vocabulary: int = 4) -> tuple[Transducer, Tensor]:
    """A transducer, and frames at which it emits these tokens once each; the id of the blank is ``vocabulary``."""
    width = vocabulary + 1
    config = TransducerConfig(vocabulary, width, "stateless", predictor_dim=width, context=1, joint_dim=width)
    transducer = Transducer(config).eval()
    with torch.no_grad():
        for parameter in transducer.parameters():
            parameter.zero_()
        transducer.joiner.enc.weight.copy_(torch.eye(width))
        transducer.joiner.out.weight.copy_(torch.eye(width))
        transducer.joiner.pred.weight.copy_(-20 * torch.eye(width))  # not the same token again
        transducer.predictor.embedding.weight[:vocabulary, :vocabulary] = torch.eye(vocabulary)
        transducer.predictor.conv.weight.fill_(1)
    x = 8.0 * torch.nn.functional.one_hot(torch.tensor(tokens), width)
    x[:, vocabulary] = x[:, vocabulary].clamp(min=4)
    return transducer, x


def test_tokens_per_frame_are_limited() -> None:
    transducer, x = said(2, 4, 1)
    with torch.no_grad():
        transducer.joiner.pred.weight.zero_()  # the same token again and again
    advance, _ = run(TransducerGreedySearch(transducer), x)
    assert [token[:2] for token in advance.committed] == [(2, 0)] * 10 + [(1, 2)] * 10


@pytest.mark.parametrize("kind", ["greedy", "beam"])
def test_a_phrase_turns_the_scales_in_its_own_stream_only(kind: str) -> None:
    transducer, x = said(0, 4, 1, 4, 2)
    search = TransducerGreedySearch(transducer) if kind == "greedy" else TransducerBeamSearch(transducer)
    x[2, 3] = x[2, 1] + 1.0  # 0 3 2 is a little more likely than 0 1 2
    with torch.no_grad():
        transducer.joiner.pred.weight[[1, 3], [3, 1]] = -20  # not both
    state, memos = search.initial_state(3), [search.start(), search.start(Biasing.of([[0, 1, 2]])), search.start()]
    advances = search.step(Chunk.of(x.expand(3, -1, -1), last=True), state, torch.arange(3), memos)
    assert [[t.id for t in advance.committed] for advance in advances] == [[0, 3, 2], [0, 1, 2], [0, 3, 2]]


@pytest.mark.parametrize("kind", ["greedy", "beam"])
def test_phrases_do_not_add_what_was_not_said(kind: str) -> None:
    transducer, x = said(0, 4, 1, 4, 3, 4)
    search = TransducerGreedySearch(transducer) if kind == "greedy" else TransducerBeamSearch(transducer)
    advance, _ = run(search, x, Biasing.of([[0, 1, 2], [3, 3, 3], [1, 1, 1, 1]], 1.0))
    assert [token.id for token in advance.committed] == [0, 1, 3]
