"""The recipe of the models that write all at once, in miniature: what the teacher writes, and learning from it."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import pytest
import torch
from accelerate.state import AcceleratorState

from loquent.recipes.data.batching import BatchOptions
from loquent.recipes.loop.training import Training, TrainingOptions
from loquent.recipes.translation import retranslation
from loquent.recipes.translation.corpus import ParallelText
from loquent.recipes.translation.distillation import Distilled, distil, sources_of, unfinished
from loquent.recipes.translation.retranslation import (
    DecoderSize,
    DistillationOptions,
    RetranslationRecipe,
    RetranslationRecipeConfig,
)
from loquent.translate.families import load_translation_model
from loquent.translate.seq2seq.checkpoint import save_model


@pytest.fixture(autouse=True)
def another_process() -> None:
    """Accelerate takes its settings once in a process."""
    AcceleratorState._reset_state(reset_partial_state=True)


def test_sources_are_sentences_and_their_beginnings_short_ones_first(toy_translation: ModuleType) -> None:
    sentences = [toy_translation.made_up(words, words) for words in (9, 4, 7, 1, 6, 8)]
    sources = sources_of(sentences, 0.5, 1)
    assert [len(text.split()) for text, _ in sources] == sorted(len(text.split()) for text, _ in sources)
    assert {whole for _, whole in sources} == {True, False}
    for text, whole in sources:
        assert any(text == one if whole else one.startswith(f"{text} ") for one in sentences)
    assert sources == sources_of(sentences, 0.5, 1)


def test_a_beginning_has_no_full_stop() -> None:
    assert unfinished("I want", "Quiero.") == "Quiero"
    assert unfinished("I want.", "Quiero.") == "Quiero."


def test_distilling_goes_on_where_it_was_stopped(
    toy_translation: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher, file = toy_translation.toy_network(), tmp_path / "whole.tsv"
    sources = [(toy_translation.made_up(1 + at % 3, at), at % 2 == 0) for at in range(7)]
    expected = distil(teacher, sources, file)
    assert [(one.source, one.whole) for one in expected] == sources
    stopped = tmp_path / "stopped.tsv"
    stopped.write_bytes(file.read_bytes()[: len(file.read_bytes()) // 2])  # in the middle of a line
    assert distil(teacher, sources, stopped) == expected
    assert stopped.read_bytes() == file.read_bytes()
    monkeypatch.setattr(teacher, "draft", lambda *_: pytest.fail("all of it is known"))
    assert distil(teacher, sources[5:2:-1], stopped) == expected[5:2:-1]


def test_the_loss_falls_and_the_encoder_stays(
    toy_translation: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def copied(teacher: object, sources: list[tuple[str, bool]], file: Path) -> list[Distilled]:
        return [Distilled(text, text, whole) for text, whole in sources]

    monkeypatch.setattr(retranslation, "distil", copied)
    teacher = toy_translation.toy_network()
    save_model(tmp_path / "teacher", teacher.network, teacher.codec, "en", "es")
    pairs = "".join(
        f"{toy_translation.made_up(1 + at % 4, at)}\t{toy_translation.made_up(2, -at)}\ttoy\n" for at in range(600)
    )
    (tmp_path / "pairs.tsv").write_text(pairs, encoding="utf-8")
    config = RetranslationRecipeConfig(
        teacher=str(tmp_path / "teacher"),
        data=DistillationOptions((ParallelText(str(tmp_path / "pairs.tsv"), {"toy": 1.0}),), sentences=300),
        network=DecoderSize(layers=1, upsampling=2),
        batch=BatchOptions(duration_s=200, utterances=32, buckets=3),
    )
    recipe = RetranslationRecipe(config, tmp_path / "run")
    options = TrainingOptions(40, learning_rate=5e-3, warmup=5, average=0.9, evaluate_every=40, log_every=40)
    frozen = {name: one.clone() for name, one in recipe.network.named_parameters() if not one.requires_grad}
    assert {name.partition(".")[0] for name in frozen} == {"embedding", "encoder", "encoder_norm"}
    before = recipe.evaluate()["loss"]
    figures = Training(recipe, options, tmp_path / "run", {}).run()
    assert figures is not None
    assert figures["loss"] < 0.6 * before
    now = dict(recipe.network.named_parameters())
    assert all(torch.allclose(one, now[name], atol=1e-2) for name, one in frozen.items())
    model = load_translation_model(tmp_path / "run" / "best", torch.device("cpu"))
    assert (model.source, model.target, model.default_policy) == ("en", "es", "re-translation")
    logged = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    assert any("valid/wer" in line for line in logged)
