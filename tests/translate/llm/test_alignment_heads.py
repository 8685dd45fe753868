"""Heads that align are found, and then tell where a piece comes from."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from loquent.translate.llm.heads import choose_heads
from loquent.translate.model import Search

PLANTED = (1, 2)  # layer and head
DISTANCE = 12  # of a target piece's last piece before it from the source piece that it comes from


@torch.no_grad()
def with_planted_head(tiny_lm: Any, **changes: Any) -> Any:
    """A model with a head that looks a fixed distance back, and heads that look anywhere."""
    theirs = tiny_lm.hugging_face("Qwen2", num_key_value_heads=4, num_hidden_layers=2)
    layer, head = PLANTED
    attention, dim = theirs.model.layers[layer].self_attn, 8
    span = slice(head * dim, (head + 1) * dim)
    for projection in (attention.q_proj, attention.k_proj):
        projection.weight[span] = 0
    # A query that is a key turned by the distance: cosines of all wavelengths add up there.
    angles = DISTANCE * 10_000.0 ** (-torch.arange(dim // 2) / (dim // 2))
    attention.k_proj.bias[span] = torch.tensor([6.0] * (dim // 2) + [0.0] * (dim // 2))
    attention.q_proj.bias[span] = 6 * torch.cat([angles.cos(), -angles.sin()])
    return tiny_lm.translator(theirs, "prompt", **changes)


def test_the_head_that_looks_where_a_piece_comes_from_is_the_best(tiny_lm: Any) -> None:
    ours = with_planted_head(tiny_lm)
    opening = len(ours.decoding.opening)
    text = tiny_lm.made_up(40, seed=5).split()
    sides = [" ".join(text[at : at + 5]) for at in range(0, 30, 5)]
    pairs = [(side, side) for side in sides if len(ours.codec.encode(side)) + opening - 1 == DISTANCE]
    assert pairs
    best = choose_heads(ours, pairs, count=3)
    assert best[0][:2] == PLANTED
    assert best[0].looks > 0.9
    assert best[0].monotone > 0.99
    assert best[0].total > 1.5 * best[1].total


def test_drafts_attend_to_what_it_looks_at(tiny_lm: Any) -> None:
    ours = with_planted_head(tiny_lm, heads=(PLANTED,))
    pieces = ours.codec.encode(tiny_lm.made_up(12, seed=5))[: DISTANCE - len(ours.decoding.opening) + 1]
    state, rows = ours.initial_state(1), torch.tensor([0])
    ours.read([pieces], [True], state, rows)
    draft = ours.draft([Search(most_pieces=len(pieces), ended=True)], state, rows)[0]
    assert draft.attended == list(range(len(draft.pieces)))
    assert len(draft.pieces) > 1
    # AlignAtt stops before the newest source pieces are looked at, while more may come.
    state.reset()
    ours.read([pieces], [False], state, rows)
    cut = ours.draft([Search(margin=len(pieces) - 1)], state, rows)[0]
    assert cut.attended == [0]


def test_heads_that_are_not_there_and_pairs_without_text_are_refused(tiny_lm: Any) -> None:
    with pytest.raises(ValueError, match="2 layers of 4 heads"):
        with_planted_head(tiny_lm, heads=((2, 0),))
    with pytest.raises(ValueError, match="no pair"):
        choose_heads(with_planted_head(tiny_lm), [])
