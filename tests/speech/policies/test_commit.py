"""Commit rules: how many tokens of a new hypothesis are certain."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest
import torch

from loquent.asr.whisper.live.draft_decoding import StreamingHypothesis
from loquent.speech.policies.commit import (
    AlignAtt,
    CommitRule,
    Confident,
    HoldLast,
    Hypothesis,
    LocalAgreement,
    Majority,
)
from loquent.translate.model import Draft


@dataclass(frozen=True)
class Written:
    tokens: list[int] = field(default_factory=lambda: [5, 6, 7, 8])
    probabilities: list[float] = field(default_factory=lambda: [0.5, 0.95, 0.9, 0.4])
    attended: list[int] = field(default_factory=lambda: [3, 20, 38, 10])
    others: list[list[int]] = field(default_factory=list)


HYPOTHESIS = Written()


def test_agreement_is_the_common_prefix() -> None:
    rule = LocalAgreement()
    previous: list[list[list[int]]] = [[], [[]], [[5, 6]], [[5, 9, 7]], [[9], [5, 6, 7, 8, 9]]]
    assert [rule(one, HYPOTHESIS, 50) for one in previous] == [0, 0, 2, 1, 4]


def test_agreement_of_several_hypotheses_in_a_row() -> None:
    previous = [[9], [5, 6, 9], [5, 6, 7]]
    assert [LocalAgreement(count)(previous, HYPOTHESIS, 50) for count in (1, 2, 3, 4, 5)] == [4, 3, 2, 0, 0]


def test_alignatt_stops_before_the_newest_steps() -> None:
    assert [AlignAtt(margin)([], HYPOTHESIS, 50) for margin in (10, 12, 25, 40, 47)] == [4, 2, 2, 1, 0]
    assert AlignAtt(0)([], replace(HYPOTHESIS, attended=[]), 50) == 0


def test_the_last_tokens_are_held_back() -> None:
    assert [HoldLast(count)([], HYPOTHESIS, 50) for count in (0, 2, 9)] == [4, 2, 0]


def test_the_majority_of_a_beam_decides() -> None:
    beam = replace(HYPOTHESIS, others=[[5, 6, 7, 8], [5, 6, 7], [5, 6, 9, 8], [4, 6]])
    assert [Majority(votes)([], beam, 50) for votes in (0.4, 0.6, 0.8, 0.9)] == [4, 4, 2, 0]
    assert Majority(0.7)([], replace(HYPOTHESIS, others=[[5, 6]] * 6 + [[9]] * 3), 50) == 2  # 7 of 10 are enough
    assert Majority(1.0)([], HYPOTHESIS, 50) == 4


def test_confidence_adds_to_agreement() -> None:
    assert Confident(0.9)([], HYPOTHESIS, 50) == 0  # the first token is neither agreed on nor sure
    assert Confident(0.9)([[5]], HYPOTHESIS, 50) == 3  # behind it two are sure, and the last one is not
    assert Confident(0.92)([[5]], HYPOTHESIS, 50) == 2
    assert Confident(0.3)([], HYPOTHESIS, 50) == 4


@pytest.mark.parametrize("rule", [LocalAgreement(), AlignAtt(25), HoldLast(), Majority(), Confident()])
def test_rules_read_hypotheses_of_speech_and_of_text_alike(rule: CommitRule) -> None:
    peaks = torch.nn.functional.one_hot(torch.tensor(HYPOTHESIS.attended), 60).float()
    speech = StreamingHypothesis(HYPOTHESIS.tokens, [0.0] * 4, HYPOTHESIS.probabilities, list(peaks))
    text = Draft(HYPOTHESIS.tokens, HYPOTHESIS.attended, HYPOTHESIS.probabilities)
    both: list[Hypothesis] = [speech, text]
    assert [rule([[5]], one, 50) for one in both] == [rule([[5]], HYPOTHESIS, 50)] * 2
