"""The label loop on the device finds what the loop on the host finds, however many tokens come out of one run."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from loquent.asr.heads.transducer import Transducer, TransducerConfig
from loquent.asr.search.tokens import Advance, SearchMemo
from loquent.asr.search.transducer_greedy import TransducerGreedySearch
from loquent.speech.nn.streaming import Chunk

DIM, STREAMS = 5, 3


def model(seed: int, predictor: Any, max_symbols: int) -> Transducer:
    torch.manual_seed(seed)
    config = TransducerConfig(4, DIM, predictor, predictor_dim=6, joint_dim=8, max_symbols=max_symbols)
    transducer = Transducer(config).eval()
    with torch.no_grad():
        for parameter in transducer.parameters():
            parameter.mul_(2.5)
        transducer.joiner.out.bias[4] += 1.5
    return transducer


def found(advances: list[Advance]) -> list[list[tuple[int, int]]]:
    return [[token[:2] for token in advance.committed] for advance in advances]


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from(["lstm", "stateless"]),
    st.integers(1, 3),
    st.integers(1, 5),
    st.lists(st.lists(st.integers(0, 6), min_size=STREAMS, max_size=STREAMS), min_size=1, max_size=4),
)
def test_the_loop_on_the_device_equals_that_on_the_host(
    seed: int, predictor: str, max_symbols: int, run: int, lengths: list[list[int]]
) -> None:
    search = TransducerGreedySearch(model(seed, predictor, max_symbols), run)
    memos = [SearchMemo() for _ in range(STREAMS)]
    host, device = (search.initial_state(STREAMS + 1) for _ in range(2))
    rows = torch.tensor([2, 0, 1, 3, 3])  # two rows of padding
    for at, counts in enumerate(lengths):
        length = torch.tensor([*counts, 0, 0])
        chunk = Chunk(torch.randn(len(rows), 6, DIM), length, torch.zeros(len(rows), dtype=torch.bool), static=True)
        own = Chunk(chunk.data[:STREAMS], length[:STREAMS], chunk.last[:STREAMS])
        expected = search.step(own, host, rows[:STREAMS], memos)
        got = search.finish(search.scan(chunk, device, rows), chunk, device, rows, STREAMS)
        assert found(got) == found(expected)
        for one, other in zip(got, expected, strict=True):
            values = [[token.probability for token in advance.committed] for advance in (one, other)]
            assert values[0] == pytest.approx(values[1], rel=1e-4)
        if at == 1:  # an endpoint
            for state in (host, device):
                search.flush(state, rows[:1], memos[:1])
    spoken = [i for i in range(STREAMS) if lengths[-1][i]]
    torch.testing.assert_close(device.projection[rows[spoken]], host.projection[rows[spoken]])
    assert torch.equal(device.frames[:STREAMS], host.frames[:STREAMS])


def test_a_run_waits_for_nothing(refuse_waiting: Any) -> None:
    search = TransducerGreedySearch(model(0, "lstm", 2))
    state, rows = search.initial_state(2), torch.arange(2)
    chunk = Chunk.of(torch.randn(2, 4, DIM))
    with refuse_waiting():
        outputs = search.scan(chunk, state, rows)
    assert all(isinstance(one, Tensor) for one in outputs)
