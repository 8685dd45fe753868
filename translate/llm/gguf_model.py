"""A Llama or Qwen2 and its tokenizer out of a GGUF file, under the names that Hugging Face gives their parts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor

from loquent.speech.lm.decoder_config import DecoderConfig
from loquent.translate.llm.gguf import GGUF, open_gguf, whole

KINDS = ("llama", "qwen2", "qwen3")
_OUTER = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
_INNER = {
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
}
_UNUSED = "rope_freqs"  # of scaled positions, which are refused


def read_gguf(file: Path, tokenizer: Tokenizer | None = None) -> tuple[DecoderConfig, dict[str, Tensor], Tokenizer]:
    """Shape, weights in float32, and tokenizer.

    Args:
        tokenizer: taken instead of the file's own.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, or of a kind that is not supported; the message names it.
    """
    with open_gguf(file) as content:
        config = _config(content.values)
        weights = {_rename(name): content.tensor(name) for name in content.names if _UNUSED not in name}
        if content.values["general.architecture"] == "llama":
            for name, weight in weights.items():
                if name.endswith(("q_proj.weight", "k_proj.weight")):
                    heads = config.heads if "q_proj" in name else config.kv_heads
                    weights[name] = _halves(weight, heads, config.head_dim)
        return config, weights, tokenizer or _tokenizer(content)


def _config(values: Mapping[str, Any]) -> DecoderConfig:
    kind = values.get("general.architecture")
    if kind not in KINDS:
        raise ValueError(f"general.architecture is {str(kind)[:40]!r}, expected one of {', '.join(KINDS)}")
    if values.get(f"{kind}.rope.scaling.type", "none") != "none":
        raise ValueError(f"positions are scaled ({values[f'{kind}.rope.scaling.type']!r}), which is not supported")
    heads, dim = whole(values, f"{kind}.attention.head_count"), whole(values, f"{kind}.embedding_length")
    found = {
        "model_type": kind,
        "vocab_size": len(_texts(values, "tokenizer.ggml.tokens")),
        "hidden_size": dim,
        "intermediate_size": whole(values, f"{kind}.feed_forward_length"),
        "num_hidden_layers": whole(values, f"{kind}.block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": values.get(f"{kind}.attention.head_count_kv"),
        "head_dim": values.get(f"{kind}.attention.key_length"),
        "rope_theta": values.get(f"{kind}.rope.freq_base", 10_000.0),
        "rms_norm_eps": values.get(f"{kind}.attention.layer_norm_rms_epsilon"),
    }
    return DecoderConfig.from_hugging_face(found)


def _rename(name: str) -> str:
    block = re.fullmatch(r"blk\.(\d{1,4})\.(\w+)\.(weight|bias)", name)
    if block and block[2] in _INNER:
        return f"model.layers.{block[1]}.{_INNER[block[2]]}.{block[3]}"
    stem, _, end = name.rpartition(".")
    if stem in _OUTER and end == "weight":
        return f"{_OUTER[stem]}.{end}"
    raise ValueError(f"there is no place for the tensor {name[:80]!r}")


def _halves(weight: Tensor, heads: int, head_dim: int) -> Tensor:
    """Rows of a projection whose rotary pairs are neighbours, as llama.cpp wants them, to pairs half a head apart."""
    if weight.ndim != 2 or len(weight) != heads * head_dim:
        raise ValueError(f"a projection to {heads} heads of {head_dim} has shape {list(weight.shape)}")
    return weight.view(heads, head_dim // 2, 2, -1).transpose(1, 2).reshape(weight.shape)


# How texts are cut before pieces are joined, by the name in `tokenizer.ggml.pre`; GPT-2's rule is ByteLevel's own.
_CUTS = {
    "llama-bpe": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|"
    r"\s*[\r\n]+|\s+(?!\S)|\s+",
    "qwen2": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|"
    r"\s*[\r\n]+|\s+(?!\S)|\s+",
}
_CONTROL = 3  # in `tokenizer.ggml.token_type`


def _tokenizer(content: GGUF) -> Tokenizer:
    values = content.values
    model, cut = values.get("tokenizer.ggml.model"), values.get("tokenizer.ggml.pre", "default")
    if model != "gpt2" or cut not in ("gpt-2", "default", "smollm", *_CUTS):
        raise ValueError(f"its tokenizer is {model!r} {cut!r}; expected 'gpt2'. Put a tokenizer.json beside the file")
    names = _texts(values, "tokenizer.ggml.tokens")
    vocabulary = {name: piece for piece, name in enumerate(names)}
    merges = []
    for line in _texts(values, "tokenizer.ggml.merges"):
        first, _, second = line.partition(" ")
        if not {first, second, first + second} <= vocabulary.keys():
            raise ValueError(f"tokenizer.ggml.merges joins {line[:80]!r}, which are no pieces")
        merges.append((first, second))
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=cut not in _CUTS)
    first_cut = (
        pre_tokenizers.Split(Regex(_CUTS[cut]), "isolated")
        if cut in _CUTS
        else pre_tokenizers.Digits(individual_digits=True)
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([first_cut, level]) if cut in (*_CUTS, "smollm") else level
    tokenizer.decoder = decoders.ByteLevel()
    kinds = values.get("tokenizer.ggml.token_type") or [0] * len(names)
    if len(kinds) != len(names):
        raise ValueError(f"there are {len(names)} pieces but {len(kinds)} types of pieces")
    tokenizer.add_special_tokens(
        [AddedToken(name, special=True) for name, kind in zip(names, kinds, strict=True) if kind == _CONTROL]
    )
    return tokenizer


def _texts(values: Mapping[str, Any], name: str) -> list[str]:
    texts = values.get(name)
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
        raise ValueError(f"{name} is no list of texts")
    return texts
