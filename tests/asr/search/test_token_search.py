"""The laws of streaming for every search: any packets, any company, any slot, any interruption."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from loquent.asr.heads.ctc import CTCHead
from loquent.asr.heads.transducer import Transducer, TransducerConfig
from loquent.asr.search.biasing import Biasing
from loquent.asr.search.ctc import CTCBeamSearch, CTCGreedySearch
from loquent.asr.search.language_model import Fusion, NGram
from loquent.asr.search.tokens import MAX_OPEN, BeamOptions, Hypothesis, SearchMemo, Token, settle
from loquent.asr.search.transducer_beam import TransducerBeamSearch
from loquent.asr.search.transducer_greedy import TransducerGreedySearch
from loquent.speech.nn.streaming import Chunk

VOCABULARY, DIM, FRAMES = 6, 5, 24
PHRASES = [None, Biasing.of([[1, 2, 3], [4, 2]], 2.0), Biasing.of([[0, 0], [5]], 1.0), None]


def bigram() -> NGram:
    unigrams = {(token,): (-1.0 - token / 4, -0.3) for token in range(VOCABULARY)}
    return NGram([unigrams, {(1, 2): (-0.1, 0.0), (VOCABULARY, 3): (-0.2, 0.0), (2, 2): (-3.0, 0.0)}], VOCABULARY)


def transducer(blank: float = 4, **options: Any) -> Transducer:
    model = Transducer(TransducerConfig(VOCABULARY, DIM, predictor_dim=6, joint_dim=8, max_symbols=3, **options)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.mul_(3 if name.startswith("joiner") else 2)
        model.joiner.out.bias[VOCABULARY] += blank  # about as many blanks as tokens
    return model


def ctc_head() -> CTCHead:
    head = CTCHead(DIM, VOCABULARY)
    with torch.no_grad():
        head.out.weight.mul_(3)
    return head


SEARCHES: dict[str, Callable[[], Any]] = {
    "ctc greedy": lambda: CTCGreedySearch(ctc_head()),
    "ctc beam": lambda: CTCBeamSearch(ctc_head(), BeamOptions(3, 4), Fusion(bigram(), 0.5, 0.2)),
    "transducer greedy": lambda: TransducerGreedySearch(transducer()),
    "transducer beam": lambda: TransducerBeamSearch(transducer(1), BeamOptions(3, 4), Fusion(bigram(), 0.5, 1.0)),
    "stateless greedy": lambda: TransducerGreedySearch(transducer(predictor="stateless")),
    "stateless beam": lambda: TransducerBeamSearch(
        transducer(1.5, predictor="stateless", context=3), BeamOptions(2, 4), Fusion(bigram(), 0.1, 1.0)
    ),
}


@pytest.fixture(params=SEARCHES, scope="module")
def search(request: pytest.FixtureRequest) -> Any:
    torch.manual_seed(3)
    return SEARCHES[request.param]()


@pytest.fixture(scope="module")
def encoded() -> Tensor:
    return torch.randn(4, FRAMES, DIM, generator=torch.Generator().manual_seed(5))


def chunk_of(parts: list[Tensor], last: list[bool], spare: int = 0) -> Chunk:
    """Ragged chunk; what lies beyond a row's length is not a number."""
    data = torch.full((len(parts), max(map(len, parts)) + spare, DIM), torch.nan)
    for row, part in zip(data, parts, strict=True):
        row[: len(part)] = part
    return Chunk(data, torch.tensor([len(part) for part in parts]), torch.tensor(last))


def whole(search: Any, x: Tensor, phrases: Biasing | None, flush_at: int | None = None) -> list[Token]:
    """Everything that a stream commits, alone and in one piece (two around an endpoint)."""
    state, memo, row = search.initial_state(1), search.start(phrases), torch.tensor([0])
    out: list[Token] = []
    if flush_at is not None:
        out += search.step(chunk_of([x[:flush_at]], [False]), state, row, [memo])[0].committed
        out += search.flush(state, row, [memo])[0].committed
        x = x[flush_at:]
    advance = search.step(chunk_of([x], [True]), state, row, [memo])[0]
    assert advance.open == []
    return out + advance.committed


def assert_same(got: list[Token], expected: list[Token]) -> None:
    assert [token[:2] for token in got] == [token[:2] for token in expected]
    probabilities = [[token.probability for token in tokens] for tokens in (got, expected)]
    torch.testing.assert_close(*map(torch.tensor, probabilities), rtol=1e-4, atol=1e-5)


def test_there_is_something_to_test(search: Any, encoded: Tensor) -> None:
    for x, phrases in zip(encoded, PHRASES, strict=True):
        tokens = whole(search, x, phrases)
        assert 3 <= len(tokens) <= 3 * FRAMES
        frames = [token.frame for token in tokens]
        assert all(0 <= frame < FRAMES for frame in frames)
        assert frames == sorted(frames)
        assert all(0 < token.probability <= 1 for token in tokens)


def test_any_packets_company_and_slots(search: Any, encoded: Tensor) -> None:
    expected = [whole(search, x, phrases) for x, phrases in zip(encoded, PHRASES, strict=True)]

    @settings(max_examples=6, deadline=None, derandomize=True)
    @given(st.integers(0, 2**32 - 1))
    def any_partition(seed: int) -> None:
        rng = random.Random(seed)
        state = search.initial_state(6)
        used = rng.sample(range(6), 4)  # by streams that were here before
        search.step(chunk_of(list(encoded), [True] * 4), state, torch.tensor(used), [search.start() for _ in used])
        state.reset(used)
        slots = rng.sample(range(6), 4)
        memos = [search.start(phrases) for phrases in PHRASES]
        position, got = [0] * 4, [list[Token]() for _ in range(4)]
        waiting, nbytes = set(range(4)), state.nbytes
        while waiting:
            active = rng.sample(sorted(waiting), rng.randint(1, len(waiting)))
            ends = [rng.randint(position[s], min(position[s] + 7, FRAMES)) for s in active]
            last = [end == FRAMES and rng.random() < 0.7 for end in ends]
            parts = [encoded[s, position[s] : end] for s, end in zip(active, ends, strict=True)]
            rows = torch.tensor([slots[s] for s in active])
            idle = sorted(set(range(6)) - set(rows.tolist()))
            before = state.gather(idle)
            advances = search.step(chunk_of(parts, last, rng.choice([0, 2])), state, rows, [memos[s] for s in active])
            for (_, was, _), (_, now, _) in zip(before.leaves(), state.gather(idle).leaves(), strict=True):
                assert torch.equal(was, now)
            for s, end, done, advance in zip(active, ends, last, advances, strict=True):
                position[s] = end
                got[s] += advance.committed
                if done:
                    assert advance.open == []
                    waiting.remove(s)
        assert state.nbytes == nbytes
        for tokens, wanted in zip(got, expected, strict=True):
            assert_same(tokens, wanted)

    any_partition()


@pytest.mark.parametrize("cut", [0, 1, 9, 16, FRAMES])
def test_a_saved_stream_goes_on_alike(search: Any, encoded: Tensor, cut: int) -> None:
    x, phrases, row = encoded[1], PHRASES[1], torch.tensor([1])
    state, memo = search.initial_state(2), search.start(phrases)
    committed = search.step(chunk_of([x[:cut]], [False]), state, row, [memo])[0].committed
    saved, values = state.to_bytes(), json.dumps(memo.to_dict(), allow_nan=False)
    search.step(chunk_of([x], [True]), state, row, [memo])  # a guess, to be undone
    loaded = search.initial_state(2)
    loaded.from_bytes(saved)
    moved = search.initial_state(4)
    moved.scatter([3], loaded.gather([1]))
    again = SearchMemo.from_dict(json.loads(values))
    rest = search.step(chunk_of([x[cut:]], [True]), moved, torch.tensor([3]), [again])[0]
    assert_same(committed + rest.committed, whole(search, x, phrases))


def test_flush_makes_all_final_and_the_stream_goes_on(search: Any, encoded: Tensor) -> None:
    x, phrases, row = encoded[1], PHRASES[1], torch.tensor([0])
    expected = whole(search, x, phrases, flush_at=11)
    state, memo = search.initial_state(1), search.start(phrases)
    got: list[Token] = []
    for t in range(FRAMES):
        if t == 11:
            (advance,) = search.flush(state, row, [memo])
            assert advance.open == []
            got += advance.committed
            assert search.flush(state, row, [memo])[0].committed == []
        got += search.step(chunk_of([x[t : t + 1]], [t + 1 == FRAMES]), state, row, [memo])[0].committed
    assert_same(got, expected)
    assert any(token.frame > 11 for token in got)


def test_what_is_saved_is_bounded(search: Any, encoded: Tensor) -> None:
    memo, state, row = search.start(), search.initial_state(1), torch.tensor([0])
    for _ in range(6):
        for x in encoded:
            (advance,) = search.step(chunk_of([x], [False]), state, row, [memo])
            assert len(advance.open) <= MAX_OPEN
            assert all(len(hypothesis.tokens) <= MAX_OPEN for hypothesis in memo.hypotheses)
            # Scores are relative to the best: they do not grow with the stream.
            assert all(-100 < hypothesis.total <= 1e-6 for hypothesis in memo.hypotheses)
            assert all(abs(hypothesis.bonus) < 100 for hypothesis in memo.hypotheses)


def test_open_tail_is_limited() -> None:
    def tokens(*ids: int) -> list[Token]:
        return [Token(id_, frame, 0.5) for frame, id_ in enumerate(ids)]

    long = [1, 2, *[3] * MAX_OPEN]
    best, agreeing, other = Hypothesis(tokens(*long)), Hypothesis(tokens(*long[:-1])), Hypothesis(tokens(2, 2, 3))
    agreeing.score, other.score = -1.0, -2.0
    committed, kept = settle([other, agreeing, best], 3)
    assert [token.id for token in committed] == [1, 2]
    assert [hypothesis.ids for hypothesis in kept] == [(3,) * MAX_OPEN, (3,) * (MAX_OPEN - 1)]


def test_a_long_hypothesis_behind_a_short_one_is_dropped() -> None:
    long = Hypothesis([Token(1, 0, 0.5)] * (MAX_OPEN + 1), score=-1.0)
    committed, kept = settle([long, Hypothesis()], 2)
    assert committed == []
    assert [hypothesis.ids for hypothesis in kept] == [()]


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"biasing": None, "hypotheses": []},
        {"biasing": {}, "hypotheses": [{}]},
        {"biasing": None, "hypotheses": [1]},
    ],
)
def test_other_memos_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="not"):
        SearchMemo.from_dict(values)


def test_a_node_beyond_the_trie_is_refused() -> None:
    memo = SearchMemo(None, [Hypothesis(node=3)])
    with pytest.raises(ValueError, match="1 biasing nodes"):
        SearchMemo.from_dict(memo.to_dict())


@pytest.mark.parametrize("options", [(0, 1, 1.0), (1, 0, 1.0), (1, 1, 0.0)])
def test_impossible_beams_are_refused(options: tuple[int, int, float]) -> None:
    with pytest.raises(ValueError, match="beam"):
        BeamOptions(*options)
