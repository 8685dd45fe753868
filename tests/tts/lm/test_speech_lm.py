"""The text-to-speech-token model: what CosyVoice's own code computes with the same weights (`make_lm_goldens.py`)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from loquent.speech.lm.decoder_config import DecoderConfig
from loquent.tts.lm.generation import SpeechTokenGenerator
from loquent.tts.lm.layout import SpeechLayout
from loquent.tts.lm.model import SpeechLanguageModel
from loquent.tts.lm.sequences import in_turns, pad, training_batch, whole_text

DATA = Path(__file__).parent / "data"
CODES, TEXT, END_OF_PROMPT, SEED = 24, 64, 63, 5


class Case(NamedTuple):
    """One of upstream's models."""

    model: SpeechLanguageModel
    goldens: dict[str, Tensor]
    weights: dict[str, Tensor]
    config: DecoderConfig
    prefix: list[int]  # of every prompt


@pytest.fixture(scope="module", params=[2, 3], ids=["CosyVoice 2", "CosyVoice 3"])
def case(request: pytest.FixtureRequest) -> Case:
    with safe_open(DATA / f"lm_cosyvoice{request.param}.safetensors", "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        config = DecoderConfig.from_hugging_face(json.loads(file.metadata()["config"]))
    weights = {name.removeprefix("weights."): tensors.pop(name) for name in sorted(tensors) if name[:8] == "weights."}
    layout = SpeechLayout.cosyvoice2(TEXT, CODES)
    if request.param == 3:
        layout = SpeechLayout.cosyvoice3(TEXT, CODES, end_of_prompt=END_OF_PROMPT)
    prefix = [1, 2, 3, END_OF_PROMPT] if request.param == 3 else []
    return Case(SpeechLanguageModel.from_weights(config, layout, weights), tensors, weights, config, prefix)


def lists(goldens: dict[str, Tensor], *names: str) -> list[list[int]]:
    return [goldens[name].tolist() for name in names]


@torch.no_grad()
def test_training_sequences_have_upstreams_loss(case: Case) -> None:
    text, speech = lists(case.goldens, "text", "speech")
    for make, name in ((whole_text, "whole"), (in_turns, "turns")):
        sample = make(case.model.layout, text, speech, case.prefix)
        ids, targets = pad([sample])
        torch.testing.assert_close(case.model.loss(ids, targets), case.goldens[f"{name}.loss"], rtol=1e-5, atol=0)
    torch.testing.assert_close(case.model(ids)[0], case.goldens["turns.logits"], rtol=1e-4, atol=1e-4)


def test_tokens_of_whole_text_are_upstreams(case: Case) -> None:
    text, prompt_text, prompt_speech = lists(case.goldens, "text", "prompt_text", "prompt_speech")
    generator = SpeechTokenGenerator(case.model)
    found = generator.generate(text, case.prefix + prompt_text, prompt_speech, in_turns=False, seed=SEED)
    assert list(found) == case.goldens["whole.tokens"].tolist()


def test_tokens_of_text_in_turns_are_upstreams(case: Case) -> None:
    text, prompt_text, prompt_speech = lists(case.goldens, "text", "prompt_text", "prompt_speech")
    generator = SpeechTokenGenerator(case.model)
    found = generator.generate(text, case.prefix + prompt_text, prompt_speech, seed=SEED)
    assert list(found) == case.goldens["turns.tokens"].tolist()
    if "turns.plain" in case.goldens:
        assert list(generator.generate(text, seed=SEED)) == case.goldens["turns.plain"].tolist()


@torch.no_grad()
def test_what_is_drawn_in_turns_is_a_training_sequence(case: Case) -> None:
    """The steps are those of training, and the caches those that all steps at once leave behind."""
    text, prompt_text, prompt_speech = lists(case.goldens, "text", "prompt_text", "prompt_speech")
    generator, layout = SpeechTokenGenerator(case.model), case.model.layout
    script = generator.begin(case.prefix + prompt_text, prompt_speech, seed=SEED)
    state, fed, spoken = generator.initial_state(1), [], []
    script.push(text)
    script.finish()
    while script.ready():
        fed += script.due
        (code,) = generator.step(state, [0], [script])
        spoken += [] if code is None else [code]
    expected = in_turns(layout, prompt_text + text, prompt_speech + spoken, case.prefix)
    assert fed == expected.ids
    at_once = generator.initial_state(1)
    case.model.decoder.step(case.model.embed(torch.tensor([fed])), at_once)
    for (name, tensor, _), (_, expected_tensor, _) in zip(state.leaves(), at_once.leaves(), strict=True):
        torch.testing.assert_close(tensor, expected_tensor, rtol=1e-4, atol=1e-5, msg=name)


def test_weights_that_do_not_fit_are_refused(case: Case) -> None:
    layout = case.model.layout
    without = {name: weight for name, weight in case.weights.items() if name != "speech_embedding.weight"}
    with pytest.raises(ValueError, match=r"missing \['speech_embedding.weight'\], unknown \['more'\]"):
        SpeechLanguageModel.from_weights(case.config, layout, without | {"more": torch.zeros(1)})
    with pytest.raises(ValueError, match=r"speech_embedding.weight has shape \[5, 32\]"):
        SpeechLanguageModel.from_weights(
            case.config, layout, case.weights | {"speech_embedding.weight": torch.zeros(5, 32)}
        )
    with pytest.raises(ValueError, match="has 64 text tokens, the layout 9"):
        SpeechLanguageModel(case.config, SpeechLayout.cosyvoice2(9, CODES))


def test_a_batch_of_both_orders_trains(case: Case) -> None:
    layout, generator = case.model.layout, torch.Generator().manual_seed(0)
    pairs = [([1, 2, 3, 4, 5, 6], list(range(20))), ([7], [3, 2]), ([1] * 20, [4] * 10)]
    ids, targets = training_batch(layout, pairs, 1.0, generator)
    assert (ids[0] == layout.task).nonzero().item() == 1 + 5 + 15 + 1  # in turns
    assert (ids[2] == layout.task).nonzero().item() == 1 + 20  # too little speech for it
    assert (targets[0] == layout.fill).sum() == 1
    assert [(row >= 0).sum().item() for row in targets] == [20 + 2, 2 + 1, 10 + 1]
    model = SpeechLanguageModel(case.config, layout)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(30):
        loss = model.loss(ids, targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    with pytest.raises(ValueError, match="too few to take turns"):
        in_turns(layout, *pairs[2])
