"""Streams of speech tokens: neither the times at which text comes nor other streams change what is drawn."""

from __future__ import annotations

import copy
import itertools
import random

import pytest
import torch

from loquent.speech.lm.decoder import DecoderState
from loquent.speech.lm.decoder_config import DecoderConfig
from loquent.tts.lm.generation import SpeechTokenGenerator
from loquent.tts.lm.layout import SpeechLayout
from loquent.tts.lm.model import SpeechLanguageModel
from loquent.tts.lm.script import Script

CODES, TEXT, END = 30, 40, 39


@pytest.fixture(scope="module")
def generator() -> SpeechTokenGenerator:
    torch.manual_seed(0)
    model = SpeechLanguageModel(
        DecoderConfig(TEXT, 24, 32, layers=2, heads=4, kv_heads=2, head_dim=8),
        SpeechLayout.cosyvoice2(TEXT, CODES),
        capacity=300,
    ).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    return SpeechTokenGenerator(model, most=6.0)


def run(generator: SpeechTokenGenerator, state: DecoderState, slot: int, script: Script) -> list[int]:
    """What a script draws until it waits or ends."""
    found = []
    while script.ready():
        (code,) = generator.step(state, [slot], [script])
        found += [] if code is None else [code]
    return found


@pytest.mark.parametrize("prompt", [([], []), ([1, 2, 3], list(range(15))), ([4] * 9, list(range(22)))])
def test_any_pieces_of_text_give_the_same_speech(generator, prompt) -> None:
    text, whole = [random.Random(1).randrange(TEXT) for _ in range(23)], None
    for cuts in ([], [1, 2, 9], [5, 10, 15, 20], list(range(1, 23)), [22]):
        state, script, found = generator.initial_state(1), generator.begin(*prompt, seed=3), []
        for a, b in itertools.pairwise([0, *cuts, 23]):
            script.push(text[a:b])
            found += run(generator, state, 0, script)
        script.finish()
        found += run(generator, state, 0, script)
        assert script.done
        whole = whole or found
        assert found == whole
    assert len(whole) > 40


def test_speech_begins_with_the_first_block_of_text(generator) -> None:
    state, script = generator.initial_state(1), generator.begin()
    script.push([1, 2, 3, 4])
    assert not script.ready()
    script.push([5])
    first = run(generator, state, 0, script)
    assert 0 < len(first) <= 15
    assert not script.done
    script.finish()
    assert run(generator, state, 0, script)


def test_text_that_comes_whole_is_waited_for(generator) -> None:
    state, script = generator.initial_state(1), generator.begin(in_turns=False)
    script.push(range(12))
    assert not script.ready()
    script.finish()
    found = run(generator, state, 0, script)
    assert 2 * 12 <= len(found) <= 6 * 12


def test_batch_mates_and_slots_change_nothing(generator) -> None:
    draw = random.Random(0)
    plans = [
        {"text": [draw.randrange(TEXT) for _ in range(draw.randrange(1, 20))], "seed": seed, "in_turns": seed % 3 > 0}
        for seed in range(7)
    ]
    alone = [list(generator.generate(plan["text"], in_turns=plan["in_turns"], seed=plan["seed"])) for plan in plans]
    state, slots = generator.initial_state(9), draw.sample(range(9), 7)
    scripts = [generator.begin(in_turns=plan["in_turns"], seed=plan["seed"]) for plan in plans]
    found: list[list[int]] = [[] for _ in plans]
    waiting = [list(plan["text"]) for plan in plans]
    while not all(script.done for script in scripts):
        for script, text in zip(scripts, waiting, strict=True):
            if not script.ended and draw.random() < 0.4:
                if text:
                    script.push([text.pop(0)])
                else:
                    script.finish()
        active = [index for index, script in enumerate(scripts) if script.ready()]
        active = draw.sample(active, draw.randint(0, len(active)))
        if active:
            codes = generator.step(state, [slots[i] for i in active], [scripts[i] for i in active])
            for index, code in zip(active, codes, strict=True):
                found[index] += [] if code is None else [code]
    assert found == alone


def test_a_stream_can_be_copied_and_rolled_back(generator) -> None:
    state, script = generator.initial_state(2), generator.begin(seed=1)
    script.push(range(11))
    run(generator, state, 1, script)
    kept, memo, row = state.clone(), copy.deepcopy(script), state.gather([1])
    script.push([3, 2, 1])
    script.finish()
    expected = run(generator, state, 1, script)
    for again, slot in ((kept, 1), (state, 1), (generator.initial_state(4), 3)):
        again.scatter([slot], row)
        other = copy.deepcopy(memo)
        other.push([3, 2, 1])
        other.finish()
        assert run(generator, again, slot, other) == expected


def test_seeds_make_other_speech(generator) -> None:
    assert list(generator.generate(range(9), seed=1)) != list(generator.generate(range(9), seed=2))


def test_nothing_to_say_is_no_speech(generator) -> None:
    assert list(generator.generate([])) == []
    assert list(generator.generate([], [1, 2], [3, 4, 5])) == []


def test_an_utterance_is_bounded(generator) -> None:
    with pytest.raises(ValueError, match="more than the capacity of 300"):
        list(generator.generate([1] * 299, in_turns=False))
    short = SpeechTokenGenerator(generator.model, least=3.0, most=3.0)
    assert len(list(short.generate([1, 2, 3], in_turns=False))) == 9


def test_wrong_tokens_are_refused(generator) -> None:
    with pytest.raises(ValueError, match=r"text token 40 is outside 0 … 39"):
        generator.begin().push([40])
    with pytest.raises(ValueError, match=r"speech code -1 is outside 0 … 29"):
        generator.begin([], [-1])
    script = generator.begin()
    script.finish()
    with pytest.raises(ValueError, match="the text has ended"):
        script.push([1])


def test_the_prompt_of_cosyvoice_3_has_an_end() -> None:
    layout = SpeechLayout.cosyvoice3(TEXT, CODES, end_of_prompt=END)
    script = Script.begin(layout, [1, 2], [7], in_turns=True)
    script.push([3, END, 4, 5])
    assert not script.ready()
    assert script.due == [layout.start, 1, 2, 3, END]
    script.push([6, 8, 9])
    assert script.ready()
    assert script.due[5:] == [4, 5, 6, 8, 9, TEXT + 7]
    assert script.room == 14
    with pytest.raises(ValueError, match=r"has the token 39, <\|endofprompt\|>"):
        Script.begin(layout, [1, 2], in_turns=True).finish()
