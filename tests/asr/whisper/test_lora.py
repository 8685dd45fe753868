"""Adapters as files: what PEFT writes is read, what is written PEFT reads, and what is not supported is refused."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from loquent.asr.whisper.adapter_bank import AdapterBank
from loquent.asr.whisper.conversion import from_hugging_face, hugging_face_config
from loquent.asr.whisper.lora import (
    AdapterInfo,
    LoraAdapter,
    LoraFactors,
    adapter_info,
    check_adapter,
    load_adapter,
    merge,
    save_adapter,
    unmerge,
    write_info,
)
from loquent.asr.whisper.model import Whisper
from loquent.speech.hub import CheckpointError

MakeAdapter = Callable[..., LoraAdapter]
LAYER = "encoder.blocks.0.attn.query"


@pytest.fixture
def model(toy_whisper: Whisper) -> Whisper:
    return copy.deepcopy(toy_whisper)


@pytest.fixture
def mixed(model: Whisper, random_adapter: MakeAdapter) -> LoraAdapter:
    """Ranks and scales that differ from layer to layer."""
    adapter = random_adapter(model, 1, chunk_ms=(100, 300))
    factors = dict(adapter.factors)
    factors[LAYER] = random_adapter(model, 2, rank=3, size=0.2, part=LAYER).factors[LAYER]
    return LoraAdapter(factors, adapter.info)


@torch.no_grad()
def output(model: Any) -> Tensor:
    """Scores for some tokens, given some audio."""
    draw = torch.Generator().manual_seed(5)
    audio = model.encoder(torch.randn(2, 60, 80, generator=draw))
    return model.decoder(torch.randint(0, 900, (2, 7), generator=draw), audio)


def close(a: Tensor, b: Tensor) -> bool:
    return bool(((a - b).norm() / b.norm()) < 1e-4)


def test_what_is_saved_is_loaded(
    model: Whisper, mixed: LoraAdapter, random_adapter: MakeAdapter, tmp_path: Path
) -> None:
    save_adapter(tmp_path / "one", mixed)
    loaded = load_adapter(tmp_path / "one")
    assert loaded.info == mixed.info
    assert loaded.digest == mixed.digest
    assert loaded.rank == 4
    assert loaded.digest != random_adapter(model, 1).digest
    check_adapter(loaded, model)


def test_merging_and_taking_out(model: Whisper, mixed: LoraAdapter, random_adapter: MakeAdapter) -> None:
    before, shared = output(model), model.get_submodule(LAYER).weight
    kept = shared.clone()
    factors = mixed.factors[LAYER]
    merge(model, mixed)
    torch.testing.assert_close(
        model.get_submodule(LAYER).weight, kept + factors.scale * factors.b @ factors.a, rtol=1e-5, atol=1e-6
    )
    assert not close(output(model), before)
    assert model.merged == (mixed.digest,)
    assert torch.equal(shared, kept), "whoever shares the tensor is not affected"
    with pytest.raises(ValueError, match="not merged into this model"):
        unmerge(model, random_adapter(model, 9))
    unmerge(model, mixed)
    assert close(output(model), before)
    assert model.merged == ()


def test_peft_loads_what_we_save(model: Whisper, mixed: LoraAdapter, tmp_path: Path) -> None:
    from peft import PeftModel

    save_adapter(tmp_path, mixed)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # of keys that PEFT does not know
        with_peft = PeftModel.from_pretrained(copy.deepcopy(model), str(tmp_path))
    merge(model, mixed)
    assert close(output(with_peft.base_model.model.eval()), output(model))


def test_what_an_adapter_is_for_is_kept_beside_what_peft_says(
    model: Whisper, random_adapter: MakeAdapter, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=r"no adapter_config\.json in .*save the adapter there with PEFT first"):
        write_info(tmp_path, AdapterInfo())
    adapter = random_adapter(model, 1)
    save_adapter(tmp_path, adapter)
    info = AdapterInfo("tiny.en", "0" * 64, "de", (100, 300), 2000)
    write_info(tmp_path, info)
    assert adapter_info(tmp_path) == info
    assert load_adapter(tmp_path).digest == adapter.digest
    settings = json.loads((tmp_path / "adapter_config.json").read_text())
    told = settings["auto_mapping"].pop("loquent")
    (tmp_path / "adapter_config.json").write_text(json.dumps(settings | {"loquent": told}))  # as first versions did
    assert adapter_info(tmp_path) == info


@pytest.mark.parametrize("rank_stabilised", [False, True])
def test_we_load_what_peft_saves(model: Whisper, tmp_path: Path, rank_stabilised: bool) -> None:
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=4,
        lora_alpha=6,
        target_modules=r".*(attn\.(query|key|value|out)|mlp\.[02])",
        rank_pattern={r"decoder\.blocks\.0\.attn\.query": 8},
        alpha_pattern={r"attn\.out": 3},
        use_rslora=rank_stabilised,
        init_lora_weights=False,
    )
    torch.manual_seed(0)
    with_peft = get_peft_model(copy.deepcopy(model), config)
    with_peft.save_pretrained(str(tmp_path))
    adapter = load_adapter(tmp_path)
    assert len(adapter.factors) == 2 * 6 + 2 * 10
    assert adapter.rank == 8
    assert adapter.factors[LAYER].scale == 6 / (math.sqrt(4) if rank_stabilised else 4)
    assert adapter.factors["encoder.blocks.1.attn.out"].scale == 3 / (math.sqrt(4) if rank_stabilised else 4)
    before = output(model)
    merge(model, adapter)
    assert not close(output(model), before)
    assert close(output(with_peft.base_model.model.eval()), output(model))


def test_dora_is_merged_exactly(model: Whisper, random_adapter: MakeAdapter, tmp_path: Path) -> None:
    from peft import LoraConfig, PeftModel, get_peft_model

    config = LoraConfig(r=4, lora_alpha=6, target_modules=["query", "mlp.0"], use_dora=True, init_lora_weights=False)
    torch.manual_seed(0)
    with_peft = get_peft_model(copy.deepcopy(model), config)
    for name, weight in with_peft.named_parameters():
        if "magnitude" in name:
            weight.data *= 1 + 0.3 * torch.rand_like(weight)
    with_peft.save_pretrained(str(tmp_path / "theirs"))
    adapter = load_adapter(tmp_path / "theirs")
    assert adapter.scales_weights
    merged = copy.deepcopy(model)
    merge(merged, adapter)
    expected = output(with_peft.base_model.model.eval())
    assert close(output(merged), expected)
    assert not close(output(model), expected)

    save_adapter(tmp_path / "ours", adapter)
    assert load_adapter(tmp_path / "ours").digest == adapter.digest
    again = PeftModel.from_pretrained(copy.deepcopy(model), str(tmp_path / "ours"))
    assert close(output(again.base_model.model.eval()), expected)

    with pytest.raises(ValueError, match="others are merged into them; unmerge those"):
        merge(merged, adapter)
    with pytest.raises(ValueError, match="cannot be taken out of the weights; load the model again"):
        unmerge(merged, adapter)
    with pytest.raises(ValueError, match="'mine' is a DoRA, which scales the model's own weights"):
        AdapterBank(model).add("mine", adapter)
    mixed = LoraAdapter(dict(adapter.factors) | dict(random_adapter(model, 1, part="attn.value").factors))
    with pytest.raises(ValueError, match="and others none; PEFT has no such adapters"):
        save_adapter(tmp_path / "mixed", mixed)


def test_adapters_of_hugging_face_models(tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    torch.manual_seed(0)
    settings = WhisperConfig(
        vocab_size=1000, d_model=64, encoder_layers=2, decoder_layers=2, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=256, decoder_ffn_dim=256, max_source_positions=30,
        max_target_positions=20, pad_token_id=0, bos_token_id=0, eos_token_id=0, decoder_start_token_id=1,
    )  # fmt: skip
    theirs = WhisperForConditionalGeneration(settings).eval()
    ours = Whisper.from_weights(hugging_face_config(settings.to_dict()), from_hugging_face(theirs.state_dict()))
    ours = copy.deepcopy(ours)
    config = LoraConfig(r=4, target_modules=["q_proj", "v_proj", "out_proj", "fc1", "fc2"], init_lora_weights=False)
    with_peft = get_peft_model(theirs, config)
    with_peft.save_pretrained(str(tmp_path))
    merge(ours, load_adapter(tmp_path))
    mel, tokens = torch.randn(1, 60, 80), torch.tensor([[1, 5, 9]])
    with torch.no_grad():
        wanted = with_peft(input_features=mel.transpose(1, 2), decoder_input_ids=tokens).logits
        assert close(ours.decoder(tokens, ours.encoder(mel)), wanted)


def edit_config(folder: Path, **values: Any) -> None:
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def edit_weights(folder: Path, change: Callable[[dict[str, Tensor]], Any]) -> None:
    tensors = load_file(folder / "adapter_model.safetensors")
    change(tensors)
    save_file(tensors, folder / "adapter_model.safetensors")


KEY = f"base_model.model.{LAYER}.lora_"
LONG = f"base_model.model.{'a' * 200}.lora_A.weight"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: edit_config(f, peft_type="IA3"), "says peft_type 'IA3'; only 'LORA'"),
        (lambda f: edit_config(f, use_dora=True), r"expected A \(r, in\) and B \(out, r\), and magnitude \(out,\)"),
        (lambda f: edit_config(f, modules_to_save=["ln"]), r"says modules_to_save = \[\"ln\"\], which is not"),
        (lambda f: edit_config(f, bias="all"), "says bias = 'all'; only 'none'"),
        (lambda f: edit_config(f, init_lora_weights="pissa_niter_4"), "only true, .* Convert the adapter"),
        (lambda f: edit_config(f, init_lora_weights="lora_ga"), r"\"lora_ga\"; only true, .* Convert the adapter"),
        (lambda f: edit_config(f, init_lora_weights="OLoRA"), r"\"OLoRA\"; only true, .* Convert the adapter"),
        (lambda f: edit_config(f, init_lora_weights=["eva"]), "only true, .* Convert the adapter"),
        (lambda f: edit_config(f, use_bdlora={"nblocks": 2}), "says use_bdlora = .*, which is not supported"),
        (lambda f: edit_config(f, lora_alpha=math.nan), "lora_alpha is 'nan', expected a number"),
        (lambda f: edit_config(f, lora_alpha=-math.inf), "lora_alpha is '-inf', expected a number"),
        (lambda f: edit_config(f, lora_alpha=1e300), r"lora_alpha is '1e\+300', expected a number"),
        (lambda f: edit_config(f, lora_alpha=True), "lora_alpha is 'True', expected a number"),
        (lambda f: edit_config(f, alpha_pattern={"query": math.nan}), r"alpha_pattern\['query'\] is 'nan', expected"),
        (lambda f: edit_config(f, alpha_pattern=[3]), "alpha_pattern is a list, expected numbers by pattern"),
        (lambda f: edit_config(f, alpha_pattern={"(query": 3}), r"the pattern '\(query' for layers is not a regular"),
        (lambda f: edit_config(f, rank_pattern={"query": "4"}), r"rank_pattern\['query'\] is '4', expected a number"),
        (lambda f: edit_config(f, rank_pattern={"query": 8}), r"query has rank 4, but adapter_config\.json says 8"),
        (lambda f: edit_config(f, r=131072), "r is '131072', expected a rank from 1 to 4096"),
        (lambda f: edit_config(f, r=-4), "r is '-4', expected a rank from 1 to 4096"),
        (lambda f: edit_config(f, r=5), r"has rank 4, but adapter_config\.json says 5"),
        (lambda f: edit_config(f, auto_mapping=[1]), "entry 'auto_mapping' of adapter_config.json is a list"),
        (lambda f: edit_config(f, auto_mapping={"loquent": [1]}), "entry 'loquent' of adapter_config"),
        (lambda f: edit_config(f, auto_mapping={"loquent": {"chunk_ms": [True]}}), "entry 'loquent' of adapter_con"),
        (lambda f: (f / "adapter_config.json").write_text("[" * 100_000), "adapter_config.json is not JSON"),
        (lambda f: edit_weights(f, lambda t: t.update({f"{KEY}A.weight": torch.zeros(4, 64).int()})), "torch.int32"),
        (
            lambda f: edit_weights(f, lambda t: t.update({LONG: t.pop(f"{KEY}A.weight")})),
            "is not supported; expected base_model",
        ),
        (lambda f: edit_config(f, lora_alpha=None), "lora_alpha is .None., expected a number"),
        (lambda f: edit_config(f, auto_mapping={"loquent": {"chunks": 1}}), "entry 'loquent' of adapter_config"),
        (lambda f: edit_config(f, auto_mapping={"loquent": {"chunk_ms": ["short"]}}), "entry 'loquent' of adapter_c"),
        (lambda f: (f / "adapter_config.json").write_text("{"), "adapter_config.json is not JSON"),
        (lambda f: (f / "adapter_config.json").write_text("[]"), "holds a list, expected an object"),
        (lambda f: (f / "adapter_model.safetensors").write_bytes(b"short"), "begins with b.short."),
        (lambda f: (f / "adapter_model.safetensors").unlink(), "has neither adapter_model.safet"),
        (lambda f: edit_weights(f, dict.clear), "the adapter changes 0 layers, expected from 1"),
        (lambda f: edit_weights(f, lambda t: t.pop(f"{KEY}A.weight")), r"has \{'B': \[64, 4\]\}; expected"),
        (lambda f: edit_weights(f, lambda t: t.update({f"{KEY}A.weight": torch.ones(3, 64)})), "expected A"),
        (lambda f: edit_weights(f, lambda t: t[f"{KEY}A.weight"].fill_(math.nan)), "that are not finite"),
        (
            lambda f: edit_weights(f, lambda t: t.update({"base_model.model.ln.lora_magnitude_vector": torch.ones(3)})),
            r"ln has \{'magnitude': \[3\]\}; expected A",
        ),
    ],
)  # fmt: skip
def test_damaged_and_unsupported_ones_are_refused(
    model: Whisper, random_adapter: MakeAdapter, tmp_path: Path, damage: Callable[[Path], Any], message: str
) -> None:
    save_adapter(tmp_path, random_adapter(model, 1))
    damage(tmp_path)
    with pytest.raises(ValueError, match=message):
        load_adapter(tmp_path)


@pytest.mark.parametrize("start", [True, False, None, "gaussian", "eva", "orthogonal", "mica"])
def test_starts_that_leave_the_weights_of_the_model_alone(
    start: object, model: Whisper, random_adapter: MakeAdapter, tmp_path: Path
) -> None:
    save_adapter(tmp_path, random_adapter(model, 1, part=LAYER))
    edit_config(tmp_path, init_lora_weights=start)
    assert LAYER in load_adapter(tmp_path).factors


def test_pickled_adapters(model: Whisper, random_adapter: MakeAdapter, tmp_path: Path) -> None:
    adapter = random_adapter(model, 1)
    save_adapter(tmp_path, adapter)
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_model.safetensors").unlink()
    torch.save(tensors, tmp_path / "adapter_model.bin")
    assert load_adapter(tmp_path).digest == adapter.digest
    for content, message in [
        (tensors | {f"{KEY}A.weight": torch.zeros(1, 1).expand(4, 64)}, "larger than what the file stores of it"),
        (tensors | {f"{KEY}A.weight": "text"}, "is str, expected a tensor"),
        (tensors | {f"{KEY}A.weight": print}, r"adapter_model\.bin is refused"),
        ([1], "holds a list, expected a dictionary"),
    ]:
        torch.save(content, tmp_path / "adapter_model.bin")
        with pytest.raises(ValueError, match=message):
            load_adapter(tmp_path)


def test_ones_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="unknown adapter 'medical'"):
        load_adapter("medical")
    with pytest.raises(CheckpointError, match=r"expected a folder with adapter_config\.json"):
        load_adapter(tmp_path)


def test_adapters_of_another_model_are_refused(model: Whisper, random_adapter: MakeAdapter) -> None:
    fitting = random_adapter(model, 1, part=LAYER)
    for name, factors, message in [
        ("encoder.blocks.7.attn.query", fitting.factors[LAYER], "which this model does not have; it was made for toy"),
        ("encoder.ln_post", fitting.factors[LAYER], "a LayerNorm; expected a linear layer"),
        (LAYER, LoraFactors(torch.ones(4, 96), torch.ones(96, 4), 1.0), r"of shape \[96, 96\]; here it is \[64, 64\]"),
    ]:
        with pytest.raises(ValueError, match=message):
            merge(model, LoraAdapter({name: factors}, fitting.info))
    other = dataclasses.replace(fitting, info=AdapterInfo("tiny.en", base_digest="0" * 64))
    with pytest.raises(ValueError, match=r"trained on another model .*made for tiny\.en"):
        check_adapter(other, model)
    assert model.merged == ()


def test_the_precision_of_the_base_does_not_matter(model: Whisper, random_adapter: MakeAdapter) -> None:
    adapter = random_adapter(model, 1, part=LAYER)
    half = copy.deepcopy(model).half()
    check_adapter(adapter, half)
    merge(half, adapter)
    assert half.get_submodule(LAYER).weight.dtype == torch.float16
