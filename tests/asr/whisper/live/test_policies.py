"""Commit rules: how many tokens of a new hypothesis are certain."""

from __future__ import annotations

import torch

from loquent.asr.whisper.live.draft_decoding import StreamingHypothesis
from loquent.asr.whisper.live.policies import AlignAtt, Confident, HoldLast, LocalAgreement

HYPOTHESIS = StreamingHypothesis(
    tokens=[5, 6, 7, 8],
    scores=[0.0] * 4,
    probabilities=[0.5, 0.95, 0.9, 0.4],
    attention=[torch.nn.functional.one_hot(torch.tensor(frame), 60).float() for frame in (3, 20, 38, 10)],
)


def test_agreement_is_the_common_prefix() -> None:
    rule = LocalAgreement()
    assert [rule(previous, HYPOTHESIS, 50) for previous in ([], [5, 6], [5, 9, 7], [5, 6, 7, 8, 9])] == [0, 2, 1, 4]


def test_alignatt_stops_before_the_newest_frames() -> None:
    assert [AlignAtt(margin)([], HYPOTHESIS, 50) for margin in (10, 12, 25, 40, 47)] == [4, 2, 2, 1, 0]


def test_the_last_tokens_are_held_back() -> None:
    assert [HoldLast(count)([], HYPOTHESIS, 50) for count in (0, 2, 9)] == [4, 2, 0]


def test_confidence_adds_to_agreement() -> None:
    assert Confident(0.9)([], HYPOTHESIS, 50) == 0  # the first token is neither agreed on nor sure
    assert Confident(0.9)([5], HYPOTHESIS, 50) == 3  # behind it two are sure, and the last one is not
    assert Confident(0.92)([5], HYPOTHESIS, 50) == 2
    assert Confident(0.3)([], HYPOTHESIS, 50) == 4
