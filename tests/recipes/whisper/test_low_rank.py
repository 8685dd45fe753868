"""Training through PEFT is plain low-rank adaptation, and what is exported is what was trained."""

from __future__ import annotations

import copy
import json
import math
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn

from loquent.asr.whisper.lora import AdapterInfo, LoraFactors, load_adapter
from loquent.recipes.loop.low_rank import NAME, WeightLinear, adapted_layers, add_adapter, without_adapter
from loquent.recipes.whisper.low_rank import save, start_from, trained_adapter
from loquent.recipes.whisper.scale_adapter import main

INFO = AdapterInfo("toy", "0" * 64, "en", (100, 300))
PATTERNS: dict[str, Any] = {"rank_pattern": {"value": 2}, "alpha_pattern": {"mlp.0": 3}}


class Toy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attn = nn.ModuleDict({name: nn.Linear(12, 12, bias=name != "key") for name in ("query", "key", "value")})
        self.mlp = nn.Sequential(nn.Linear(12, 24), nn.GELU(), nn.Linear(24, 12))
        self.norm = nn.LayerNorm(12)

    def forward(self, x: Tensor) -> Tensor:
        scores = self.attn["query"](x) @ self.attn["key"](x).mT
        return self.mlp(self.norm(x + scores.softmax(-1) @ self.attn["value"](x)))


@pytest.fixture
def toy() -> Toy:
    torch.manual_seed(0)
    return Toy()


def config(**more: Any) -> LoraConfig:
    return LoraConfig(r=4, lora_alpha=6, target_modules=["query", "key", "value", "mlp.0", "mlp.2"], **more)


def train(model: nn.Module, steps: int = 8) -> None:
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    draw = torch.Generator().manual_seed(1)
    for _ in range(steps):
        x = torch.randn(3, 7, 12, generator=draw)
        optimizer.zero_grad()
        (model(x) - x.roll(1, 1)).square().mean().backward()
        optimizer.step()


class Reference(nn.Module):
    """A frozen layer with x W + s x A B, as the paper has it."""

    def __init__(self, layer: nn.Linear, a: Tensor, scale: float) -> None:
        super().__init__()
        self.layer, self.scale = layer.requires_grad_(False), scale
        self.a, self.b = nn.Parameter(a.clone()), nn.Parameter(torch.zeros(layer.out_features, len(a)))

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) + self.scale * (x @ self.a.mT @ self.b.mT)


@pytest.mark.parametrize(
    ("settings", "scales"),
    [
        ({}, {}),
        ({"use_rslora": True}, {"": 6 / math.sqrt(4)}),
        (PATTERNS, {"attn.value": 6 / 2, "mlp.0": 3 / 4}),
        ({"use_rslora": True, **PATTERNS}, {"": 3.0, "attn.value": 6 / math.sqrt(2), "mlp.0": 3 / math.sqrt(4)}),
    ],
)
def test_training_is_that_of_the_paper(toy: Toy, settings: dict[str, Any], scales: dict[str, float]) -> None:
    models = [copy.deepcopy(toy) for _ in range(3)]
    ours = add_adapter(models[0], config(**settings))
    theirs = get_peft_model(models[1], config(**settings))
    assert all(type(layer) is WeightLinear for layer in adapted_layers(models[0]).values())
    start = trained_adapter(ours, INFO).factors
    start_from(models[1], start)
    references = {}
    models[2].requires_grad_(False)
    for name, factors in start.items():
        parent, _, attribute = name.rpartition(".")
        scale = scales.get(name, scales.get("", 6 / 4))
        assert factors.scale == pytest.approx(scale)
        layer = Reference(models[2].get_submodule(name), factors.a, scale)
        references[name] = layer
        models[2].get_submodule(parent)._modules[attribute] = layer
    assert references.keys() == {"attn.query", "attn.key", "attn.value", "mlp.0", "mlp.2"}
    for model in models:
        train(model)
    by_peft = trained_adapter(theirs, INFO).factors
    for name, factors in trained_adapter(ours, INFO).factors.items():
        assert float(factors.b.abs().max()) > 1e-2
        for other in (references[name], by_peft[name]):
            torch.testing.assert_close(factors.a, other.a.detach(), rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(factors.b, other.b.detach(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("settings", [{}, {"use_rslora": True, **PATTERNS}])
def test_the_export_is_what_was_trained(toy: Toy, tmp_path: Path, settings: dict[str, Any]) -> None:
    model, x = copy.deepcopy(toy), torch.randn(2, 5, 12)
    adapted = add_adapter(model, config(**settings))
    train(model)
    trained = model(x)
    save(adapted, tmp_path, INFO)
    assert {path.name for path in tmp_path.iterdir()} == {
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
    }

    loaded, in_memory = load_adapter(tmp_path), trained_adapter(adapted, INFO)
    assert loaded.info == in_memory.info == INFO
    assert loaded.digest == in_memory.digest
    merged = copy.deepcopy(toy)
    for name, factors in loaded.factors.items():
        merged.get_submodule(name).weight.data += factors.delta
    torch.testing.assert_close(merged(x), trained, rtol=1e-4, atol=1e-5)

    with warnings.catch_warnings():
        warnings.simplefilter("error")  # of keys that PEFT does not know
        by_peft = PeftModel.from_pretrained(copy.deepcopy(toy), str(tmp_path))
    torch.testing.assert_close(by_peft(x), trained, rtol=1e-4, atol=1e-5)
    assert json.loads((tmp_path / "adapter_config.json").read_text())["base_model_name_or_path"] == "toy"


def test_without_its_adapter_a_model_is_what_it_was(toy: Toy) -> None:
    model, x = copy.deepcopy(toy), torch.randn(2, 5, 12)
    add_adapter(model, config(init_lora_weights=False))
    trainable = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trainable == {f"{layer}.lora_{ab}.{NAME}.weight" for layer in adapted_layers(model) for ab in "AB"}
    assert not torch.allclose(model(x), toy(x), atol=1e-2)
    changed = model(x)
    with without_adapter(model):
        torch.testing.assert_close(model(x), toy(x), rtol=0, atol=0)
    torch.testing.assert_close(model(x), changed, rtol=0, atol=0)
    assert {name for name, p in model.named_parameters() if p.requires_grad} == trainable


@pytest.mark.parametrize("settings", [{"lora_dropout": 0.5}, {"use_dora": True}])
def test_what_is_not_plain_is_left_to_peft(toy: Toy, settings: dict[str, Any]) -> None:
    ours, theirs, x = copy.deepcopy(toy), copy.deepcopy(toy), torch.randn(2, 5, 12)
    add_adapter(ours, config(init_lora_weights=False, **settings))
    get_peft_model(theirs, config(init_lora_weights=False, **settings))
    theirs.load_state_dict(ours.state_dict())
    outputs = []
    for model in (ours, theirs):
        torch.manual_seed(0)
        outputs.append(model(x))
    torch.testing.assert_close(*outputs, rtol=0, atol=0)


def test_factors_stay_in_single_precision(toy: Toy) -> None:
    model = copy.deepcopy(toy).bfloat16()
    add_adapter(model, config(init_lora_weights=False))
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}
    assert model(torch.randn(2, 5, 12, dtype=torch.bfloat16)).dtype == torch.bfloat16


def test_going_on_from_an_adapter_that_does_not_fit(toy: Toy) -> None:
    adapted = add_adapter(toy, config())
    given = dict(trained_adapter(adapted, INFO).factors)
    one = given["mlp.0"]
    with pytest.raises(ValueError, match=r"its rank is 3 at mlp\.0, here it is 4"):
        start_from(toy, given | {"mlp.0": LoraFactors(one.a[:3], one.b[:, :3], one.scale)})
    with pytest.raises(ValueError, match="it changes other layers"):
        start_from(toy, {"mlp.0": one})


def test_a_weaker_adapter_adds_a_share_of_the_same(toy: Toy, tmp_path: Path) -> None:
    adapted = add_adapter(toy, config(**PATTERNS))
    train(adapted)
    save(adapted, tmp_path / "whole", INFO)
    main([str(tmp_path / "whole"), str(tmp_path / "weaker"), "--share", "0.8"])
    whole, weaker = load_adapter(tmp_path / "whole"), load_adapter(tmp_path / "weaker")
    assert weaker.info == whole.info
    assert weaker.factors.keys() == whole.factors.keys()
    for name, factors in whole.factors.items():
        torch.testing.assert_close(weaker.factors[name].delta, 0.8 * factors.delta)
    for share in ("0", "1.5"):
        with pytest.raises(SystemExit, match="expected above 0 and at most 1"):
            main([str(tmp_path / "whole"), str(tmp_path / "none"), "--share", share])
    assert not (tmp_path / "none").exists()


def test_there_is_no_share_of_a_dora(toy: Toy, tmp_path: Path) -> None:
    save(get_peft_model(toy, config(use_dora=True)), tmp_path / "dora", INFO)
    with pytest.raises(SystemExit, match="is a DoRA"):
        main([str(tmp_path / "dora"), str(tmp_path / "weaker"), "--share", "0.8"])
