from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from loquent.asr.search.biasing import Biasing, choose

tokens = st.integers(0, 3)
phrase_lists = st.lists(
    st.tuples(st.lists(tokens, min_size=1, max_size=4), st.sampled_from([0.5, 1.0, 2.0])), min_size=1, max_size=4
)


def worth(biasing: Biasing, text: list[int]) -> float:
    node, total = 0, 0.0
    for token in text:
        node, change = biasing.advance(node, token)
        total += change
    return total + biasing.finish(node)


def test_a_phrase_earns_its_score_per_token() -> None:
    biasing = Biasing([([1, 2, 3], 2.0), ([5], 1.0)])
    assert worth(biasing, [1, 2, 3]) == 6
    assert worth(biasing, [0, 1, 2, 3, 0, 5, 5, 1, 2, 3]) == 14
    assert worth(biasing, []) == 0


def test_an_incomplete_match_gives_back_what_it_earned() -> None:
    biasing = Biasing.of([[1, 2, 3]], 2.0)
    node, earned = biasing.advance(0, 1)
    assert earned == 2
    node, earned = biasing.advance(node, 2)
    assert earned == 2
    assert biasing.finish(node) == -4
    assert biasing.advance(node, 0) == (0, -4)
    assert biasing.advance(node, 1)[1] == -2  # and begins anew
    assert worth(biasing, [1, 2, 1, 2, 3]) == 6


def test_a_match_goes_on_within_another_phrase() -> None:
    biasing = Biasing.of([[1, 2, 3, 4], [2, 3, 5]], 1.0)
    assert worth(biasing, [1, 2, 3, 5]) == 3  # 2 3 5, which began within 1 2 3 4
    assert worth(biasing, [1, 2, 3, 0]) == 0
    assert worth(biasing, [1, 2, 3, 4]) == 4


def test_of_overlapping_phrases_the_first_to_be_complete_counts() -> None:
    biasing = Biasing.of([[1, 2, 3, 4], [2, 3, 5], [3]], 1.0)
    assert worth(biasing, [1, 2, 3, 0]) == 1
    assert worth(biasing, [1, 2, 3, 5]) == 1
    assert worth(biasing, [1, 2, 3, 4]) == 4


def test_a_phrase_and_a_longer_one() -> None:
    biasing = Biasing([([1, 2], 1.0), ([1, 2, 3, 4], 1.0)])
    assert worth(biasing, [1, 2]) == 2
    assert worth(biasing, [1, 2, 3, 0]) == 2
    assert worth(biasing, [1, 2, 3, 4]) == 4
    assert worth(biasing, [1, 2, 3, 1, 2]) == 4


def test_shared_beginnings_take_the_highest_score() -> None:
    for phrases in ([([1, 2], 1.0), ([1, 3], 2.0)], [([1, 3], 2.0), ([1, 2], 1.0)]):
        assert worth(Biasing(phrases), [1, 2]) == 3
        assert worth(Biasing(phrases), [1, 3]) == 4


@settings(max_examples=100, deadline=None)
@given(phrase_lists, st.lists(tokens, max_size=12))
def test_only_complete_phrases_are_worth_anything(phrases: list[tuple[list[int], float]], text: list[int]) -> None:
    total = worth(Biasing(phrases), text)
    found = [
        (start, phrase)
        for phrase, _ in phrases
        for start in range(len(text))
        if text[start : start + len(phrase)] == phrase
    ]
    assert (total > 0) == bool(found)
    covered = {start + i for start, phrase in found for i in range(len(phrase))}
    assert 0 <= total <= max(score for _, score in phrases) * len(covered) + 1e-9


@settings(max_examples=50, deadline=None)
@given(phrase_lists, st.lists(tokens, max_size=8))
def test_changes_are_those_of_advance(phrases: list[tuple[list[int], float]], text: list[int]) -> None:
    biasing, node = Biasing(phrases), 0
    for token in text:
        changes = biasing.changes(node, 4)
        assert changes.tolist() == [biasing.advance(node, other)[1] for other in range(4)]
        node, _ = biasing.advance(node, token)


@settings(max_examples=50, deadline=None)
@given(phrase_lists, st.lists(tokens, max_size=8))
def test_gains_are_what_sets_changes_apart(phrases: list[tuple[list[int], float]], text: list[int]) -> None:
    biasing, node = Biasing(phrases), 0
    for token in text:
        gains = torch.zeros(4)
        for tokens_, values in biasing.gains(node, False):
            gains.index_put_((tokens_,), values, accumulate=True)
        assert torch.allclose(gains + biasing.finish(node), biasing.changes(node, 4))
        node = biasing.walk([token], node)


def test_an_only_hypothesis_gains_the_score_of_the_next_token_alone() -> None:
    biasing = Biasing([([1, 2, 3], 2.0), ([2, 5], 0.5)])
    for text, expected in (([], {1: 2.0, 2: 0.5}), ([1, 2], {3: 2.0}), ([1, 2, 3], {1: 2.0, 2: 0.5}), ([2], {5: 0.5})):
        gains = torch.zeros(6)
        for tokens_, values in biasing.gains(biasing.walk(text), True):
            gains.index_put_((tokens_,), values, accumulate=True)
        assert {token: gain for token, gain in enumerate(gains.tolist()) if gain} == expected


def test_tokens_beyond_the_vocabulary_are_left_out_of_changes() -> None:
    assert Biasing.of([[1], [7]], 2.0).changes(0, 3).tolist() == [0, 2, 0]


def test_it_can_be_saved() -> None:
    biasing = Biasing([([1, 2, 3], 2.0), ([2, 5], 0.5)])
    again = Biasing.from_dict(json.loads(json.dumps(biasing.to_dict())))
    assert again.phrases == biasing.phrases
    assert [again.advance(node, 2) for node in range(6)] == [biasing.advance(node, 2) for node in range(6)]


@pytest.mark.parametrize(
    ("phrases", "message"),
    [([([], 1.0)], "non-empty"), ([([1, -2], 1.0)], "-2"), ([([1], 0.0)], "positive"), ([([1], float("nan"))], "nan")],
)
def test_impossible_phrases_are_refused(phrases: list[tuple[list[int], float]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Biasing(phrases)


@pytest.mark.parametrize("values", [{}, {"phrases": [1, 2]}, {"phrases": None}])
def test_other_values_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="phrases"):
        Biasing.from_dict(values)


def test_choice_is_the_largest_logit_without_biasing() -> None:
    logits = torch.randn(5, 7, 4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(choose(logits, None), logits.argmax(-1))
    assert torch.equal(choose(logits, torch.zeros(5, 3)), logits.argmax(-1))


def test_what_is_given_back_decides_between_tokens_only() -> None:
    logits = torch.tensor([[[2.0, 1.5, 1.0]]])
    assert choose(logits, torch.tensor([[-5.0, 0.0]])).tolist() == [[1]]
    assert choose(logits, torch.tensor([[-5.0, -5.0]])).tolist() == [[0]]
    assert choose(logits - torch.tensor([1.5, 0, 0]), torch.tensor([[0.0, -5.0]])).tolist() == [[2]]
