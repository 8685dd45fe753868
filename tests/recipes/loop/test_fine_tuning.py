"""What a finished model can be taught: to emit sooner, to make fewer word errors, to decide how far to look ahead."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from loquent.asr.conformer.adaptive import AdaptiveConformerEncoder
from loquent.asr.conformer.model import ConformerModel
from loquent.recipes.conformer.evaluation import evaluate
from loquent.recipes.conformer.recipe import ConformerRecipe, ConformerRecipeConfig
from loquent.recipes.loop.config import ConfigError, parse_config
from loquent.recipes.train import CONFIGS, read_run
from loquent.speech.audio.files import read_audio, write_audio

SAMPLE = Path(__file__).parents[3] / "speech" / "assets" / "sample.flac"
TEXTS = ("one", "two three", "four", "one two")


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A second of the sample for each text, and a toy model."""
    folder = tmp_path_factory.mktemp("data")
    samples = read_audio(SAMPLE, 16_000).samples
    rows = []
    for number, text in enumerate(TEXTS):
        write_audio(folder / f"{number}.wav", samples[number * 16_000 :][:16_000], 16_000)
        rows.append({"path": f"{number}.wav", "text": text, "duration": 1.0})
    lines = [json.dumps(row | {"split": split}) for split in ("train", "valid", "eval") for row in rows]
    (folder / "manifest.jsonl").write_text("\n".join(lines))
    source = {"set": {"manifest": str(folder)}}
    return {
        "data": {"train": source, "valid": source, "test": source},
        "tokenizer": {"size": 20, "kind": "char"},
        "encoder": {
            "n_mels": 24,
            "dim": 32,
            "layers": 2,
            "heads": 2,
            "conv_kernel": 3,
            "subsampling_channels": 8,
            "left_context": 8,
            "lookaheads": [3, 1],
            "dropout": 0.0,
        },
        "transducer": {"predictor": "stateless", "predictor_dim": 16, "joint_dim": 32, "dropout": 0.0},
    }


@pytest.fixture(scope="module")
def trained(settings: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a model that has learnt its four recordings a little."""
    folder = tmp_path_factory.mktemp("trained")
    made = ConformerRecipe(parse_config(ConformerRecipeConfig, settings), folder)
    train(made, 15)
    made.save(folder / "best")
    return folder / "best"


def train(recipe: ConformerRecipe, steps: int, rate: float = 5e-3) -> dict[str, float]:
    torch.manual_seed(0)
    optimizer = torch.optim.Adam(recipe.module.parameters(), lr=rate)
    figures: dict[str, Any] = {}
    recipe.module.train()
    for step in range(steps):
        loss, figures = recipe.module(recipe.collate(range(len(TEXTS)), step))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    recipe.module.eval()
    return {name: float(value) for name, value in figures.items()}


def going_on(settings: dict[str, Any], trained: Path, folder: Path, **changes: Any) -> ConformerRecipe:
    config = parse_config(ConformerRecipeConfig, settings | {"start": str(trained)} | changes)
    return ConformerRecipe(config, folder)


def test_it_goes_on_from_the_trained_model(settings: dict[str, Any], trained: Path, tmp_path: Path) -> None:
    made = going_on(settings, trained, tmp_path)
    weights = ConformerModel.from_pretrained(trained)[0].state_dict()
    assert all(torch.equal(tensor, weights[name]) for name, tensor in made.model.state_dict().items())
    assert made.tokenizer.to_bytes() == (trained / "tokenizer.model").read_bytes()
    other = settings | {"encoder": settings["encoder"] | {"dim": 16}}
    with pytest.raises(ConfigError, match="another shape"):
        going_on(other, trained, tmp_path)


@pytest.mark.parametrize("purpose", ["low_latency", "word_errors"])
def test_align_with_purpose(settings: dict[str, Any], trained: Path, tmp_path: Path, purpose: str) -> None:
    options = {"purpose": purpose, "weight": 0.1, "after": 1}
    made = going_on(settings, trained, tmp_path, align_with_purpose=options)
    batch = made.collate(range(len(TEXTS)), 0)
    assert set(made.module(batch)[1]) == {"ctc", "transducer"}
    loss, figures = made.module(batch)
    assert set(figures) == {"ctc", "transducer", "align_with_purpose"}
    assert figures["align_with_purpose"] > 0
    mixed = 0.3 * figures["ctc"] + 0.7 * figures["transducer"] + 0.1 * figures["align_with_purpose"]
    torch.testing.assert_close(loss.detach(), mixed)


def test_adaptive_lookahead_goes_down_with_training(settings: dict[str, Any], trained: Path, tmp_path: Path) -> None:
    options = {"lookahead": 2, "latency_weight": 0.5, "cooling": 20}
    made = going_on(settings, trained, tmp_path, adaptive=options)
    assert isinstance(made.model.encoder, AdaptiveConformerEncoder)
    before = made.test(_saved(made, tmp_path / "before"))
    assert {"wait", "ahead"} <= set(train(made, 40))
    assert made.model.encoder.temperature == pytest.approx(0.1)
    after = made.test(_saved(made, tmp_path / "after"))
    assert after["wait_p50_ms"] < before["wait_p50_ms"]
    assert after["ahead"] < before["ahead"]
    assert {"wer", "set/ctc/adaptive", "set/transducer/adaptive/delay_p95_ms"} <= set(after)


def _saved(recipe: ConformerRecipe, folder: Path) -> Path:
    recipe.save(folder)
    return folder


def test_delays_are_what_chunks_add(settings: dict[str, Any], trained: Path) -> None:
    """A model that is its own reference, on what it hears itself: a word is late by less than its chunk."""
    model, tokenizer = ConformerModel.from_pretrained(trained)
    torch.manual_seed(0)
    torch.nn.init.normal_(model.ctc.out.weight)  # babbling
    rows = ConformerRecipe(parse_config(ConformerRecipeConfig, settings), trained.parent).held_out["set"]
    heard = []
    for row in rows:
        samples = torch.from_numpy(row.samples())[None]
        best = model.ctc(model(samples)[0])[0].argmax(-1).unique_consecutive()
        heard.append(replace(row, text=tokenizer.decode(best[best < tokenizer.vocab_size].tolist())))
    figures = evaluate(model, tokenizer, {"set": heard}, reference=model)
    assert figures["set/ctc/320ms"] == 0
    assert figures["set/ctc/320ms/delay_p50_ms"] <= figures["set/ctc/320ms/delay_p95_ms"] <= 3 * 80


@pytest.mark.parametrize("name", ["commands_awp", "commands_adaptive"])
def test_configurations_that_come_with_the_project(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOQUENT_DATA", "data")
    monkeypatch.setenv("LOQUENT_START", "runs/best")
    assert (CONFIGS / f"{name}.yaml").is_file()
    run, plain = read_run(name), read_run("commands")
    assert run.config.start == "runs/best"
    assert run.config.encoder == plain.config.encoder
    assert replace(run.config.data, train={}) == replace(plain.config.data, train={})
    assert all(source.texts for source in run.config.data.train.values() if source.weight)
    assert (run.config.adaptive is None) != (run.config.align_with_purpose is None)
