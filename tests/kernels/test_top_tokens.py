from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from loquent.kernels.best_tokens import top_tokens
from loquent.kernels.registry import use_backend


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 5), st.integers(1, 900), st.integers(1, 12), st.integers(0, 100))
def test_it_is_the_reference(rows: int, vocabulary: int, count: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = 5 * torch.randn(rows, vocabulary, generator=generator)
    logits[:, 1::3] = -torch.inf  # suppressed
    count = min(count, vocabulary)
    scores, tokens = top_tokens(logits, count)
    with use_backend("reference"):
        expected, _ = top_tokens(logits, count)
    torch.testing.assert_close(scores, expected, rtol=1e-5, atol=1e-4)
    possible = scores > -torch.inf
    found = (logits - logits.logsumexp(-1, keepdim=True)).gather(1, tokens)
    torch.testing.assert_close(found[possible], scores[possible], rtol=1e-5, atol=1e-4)
    assert all(len(set(row[one].tolist())) == one.sum() for row, one in zip(tokens, possible, strict=True))


def test_a_row_is_the_same_bits_in_every_batch() -> None:
    logits = torch.randn(7, 1000, generator=torch.Generator().manual_seed(0))
    whole = top_tokens(logits, 10)
    for row in range(7):
        alone = top_tokens(logits[row : row + 1], 10)
        assert torch.equal(alone[0][0], whole[0][row])
        assert torch.equal(alone[1][0], whole[1][row])
