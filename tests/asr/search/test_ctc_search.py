from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from loquent.asr.heads.ctc import CTCHead
from loquent.asr.search.biasing import Biasing
from loquent.asr.search.ctc import CTCBeamSearch, CTCGreedySearch
from loquent.asr.search.language_model import Fusion, NGram
from loquent.asr.search.tokens import Advance, BeamOptions, SearchMemo, log_add
from loquent.speech.nn.streaming import Chunk

WIDE = BeamOptions(10**4, 10**4, math.inf)


def identity_head(vocabulary: int) -> CTCHead:
    """A head that takes its logits for encoder frames."""
    head = CTCHead(vocabulary + 1, vocabulary)
    with torch.no_grad():
        head.out.weight.copy_(torch.eye(vocabulary + 1))
        head.out.bias.zero_()
    return head


def run(
    search: CTCGreedySearch | CTCBeamSearch, logits: Tensor, phrases: Biasing | None = None, last: bool = True
) -> tuple[Advance, SearchMemo]:
    state, memo = search.initial_state(1), search.start(phrases)
    (advance,) = search.step(Chunk.of(logits[None], last), state, torch.tensor([0]), [memo])  # type: ignore[arg-type]
    return advance, memo


def ids(advance: Advance) -> list[int]:
    return [token.id for token in advance.committed]


def texts(log_probs: Tensor) -> dict[tuple[int, ...], float]:
    """Log-probability of every text, by enumeration of all alignments."""
    frames, symbols = log_probs.shape
    out: dict[tuple[int, ...], float] = {}
    for path in itertools.product(range(symbols), repeat=frames):
        text = tuple(token for token, _ in itertools.groupby(path) if token != symbols - 1)
        score = float(log_probs[range(frames), list(path)].sum())
        out[text] = log_add(out[text], score) if text in out else score
    return out


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 5), st.integers(1, 3))
def test_an_unlimited_beam_sums_over_all_alignments(seed: int, frames: int, vocabulary: int) -> None:
    logits = 2 * torch.randn(frames, vocabulary + 1, generator=torch.Generator().manual_seed(seed))
    expected = texts(logits.double().log_softmax(-1))
    best = max(expected, key=lambda text: expected[text])
    search = CTCBeamSearch(identity_head(vocabulary), WIDE)
    advance, memo = run(search, logits, last=False)
    assert advance.committed == []  # the empty text is always among the hypotheses
    assert memo.hypotheses[0].ids == best
    # Texts that the frames have no room for have a score of IMPOSSIBLE at most.
    got = {h.ids: h.total + expected[best] for h in memo.hypotheses if h.total > -1e29}
    assert got.keys() == expected.keys()
    assert [got[text] for text in expected] == pytest.approx(list(expected.values()), abs=1e-4)
    assert tuple(ids(run(search, logits)[0])) == best


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_an_unlimited_beam_finds_the_best_biased_and_rescored_text(seed: int) -> None:
    logits = 2 * torch.randn(5, 4, generator=torch.Generator().manual_seed(seed))
    phrases = Biasing([([0, 1], 1.5), ([2], 0.5)])
    scorer = NGram(
        [{(token,): (-0.5 * token - 0.2, -0.4) for token in range(3)}, {(1, 1): (-0.1, 0), (3, 2): (-4, 0)}], 3
    )
    fusion = Fusion(scorer, 0.7, 0.3)

    def added(text: tuple[int, ...]) -> float:
        node, context, total = 0, scorer.start(), 0.0
        for token in text:
            node, change = phrases.advance(node, token)
            total += change + 0.7 * float(scorer.scores([context])[0, token]) + 0.3
            context = scorer.advance(context, token)
        return total + phrases.finish(node)

    scores = {text: score + added(text) for text, score in texts(logits.double().log_softmax(-1)).items()}
    advance, _ = run(CTCBeamSearch(identity_head(3), WIDE, fusion), logits, phrases)
    assert scores[tuple(ids(advance))] == pytest.approx(max(scores.values()), abs=1e-4)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 12))
def test_greedy_collapses_the_best_path(seed: int, frames: int) -> None:
    logits = torch.randn(frames, 4, generator=torch.Generator().manual_seed(seed))
    expected = []
    for token, group in itertools.groupby(enumerate(logits.argmax(-1).tolist()), key=lambda pair: pair[1]):
        frame, _ = next(group)
        if token != 3:
            expected.append((token, frame, pytest.approx(float(logits[frame].softmax(-1)[token]), rel=1e-5)))
    advance, _ = run(CTCGreedySearch(identity_head(3)), logits)
    assert list(map(tuple, advance.committed)) == expected
    assert advance.open == []


def path(*tokens: int, margin: float = 6.0, vocabulary: int = 4) -> Tensor:
    """Logits that favour these tokens (the blank is ``vocabulary``) at successive frames."""
    return margin * torch.nn.functional.one_hot(torch.tensor(tokens), vocabulary + 1).float()


@pytest.mark.parametrize("kind", ["greedy", "beam"])
def test_a_phrase_turns_the_scales_in_its_own_stream_only(kind: str) -> None:
    logits = path(0, 4, 1, 4, 2)
    logits[2, 3] = logits[2, 1] + 1.0  # 0 3 2 is a little more likely than 0 1 2
    head = identity_head(4)
    search = CTCGreedySearch(head) if kind == "greedy" else CTCBeamSearch(head)
    state, memos = search.initial_state(3), [search.start(), search.start(Biasing.of([[0, 1, 2]])), search.start()]
    chunk = Chunk.of(logits.expand(3, -1, -1), last=True)
    advances = search.step(chunk, state, torch.arange(3), memos)  # type: ignore[arg-type]
    assert list(map(ids, advances)) == [[0, 3, 2], [0, 1, 2], [0, 3, 2]]


@pytest.mark.parametrize("kind", ["greedy", "beam"])
def test_phrases_do_not_add_what_was_not_said(kind: str) -> None:
    head = identity_head(4)
    search = CTCGreedySearch(head) if kind == "greedy" else CTCBeamSearch(head)
    advance, _ = run(search, path(0, 4, 1, 1, 4, 1, 4), Biasing.of([[0, 1, 2], [3, 3, 3], [1, 1, 1, 1]], 1.0))
    assert ids(advance) == [0, 1, 1]


def test_repeated_tokens_need_a_blank_between_across_packets_too() -> None:
    search = CTCGreedySearch(identity_head(4))
    state, memo = search.initial_state(1), search.start()
    got = []
    for token in [1, 1, 4, 1, 1, 2]:
        (advance,) = search.step(Chunk.of(path(token)[None]), state, torch.tensor([0]), [memo])
        got += [(token.id, token.frame) for token in advance.committed]
    assert got == [(1, 0), (1, 3), (2, 5)]


def test_beam_commits_what_all_hypotheses_agree_on() -> None:
    search = CTCBeamSearch(identity_head(4), BeamOptions(2, 4))
    logits = path(0, 4, 1, 4, margin=30.0)
    logits[2, 2] = logits[2, 1] - 1.0  # 1 or 2
    advance, _ = run(search, logits, last=False)
    assert ids(advance) == [0]
    assert [token.id for token in advance.open] == [1]
    assert advance.open[0].frame == 2
    assert advance.open[0].probability == pytest.approx(1 / (1 + math.exp(-1)), abs=1e-4)
