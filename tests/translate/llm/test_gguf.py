"""GGUF files: written here byte by byte, read to the same numbers, and refused when they are damaged."""

from __future__ import annotations

import contextlib
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from loquent.translate.llm.gguf import open_gguf
from loquent.translate.llm.gguf_blocks import BLOCKS
from loquent.translate.llm.gguf_model import read_gguf
from loquent.translate.llm.model import load_llm


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value.encode())) + value.encode()


def value(one: Any) -> bytes:
    """A value with its type."""
    if isinstance(one, str):
        return struct.pack("<I", 8) + text(one)
    if isinstance(one, float):
        return struct.pack("<If", 6, one)
    if isinstance(one, int):
        return struct.pack("<II", 4, one)
    inner = 8 if isinstance(one[0], str) else 5
    items = b"".join(text(item) if inner == 8 else struct.pack("<i", item) for item in one)
    return struct.pack("<IIQ", 9, inner, len(one)) + items


def gguf_file(values: dict[str, Any], tensors: dict[str, tuple[int, tuple[int, ...], bytes]]) -> bytes:
    """A file, version 3; tensors are a type, a shape and bytes."""
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(values))
    head += b"".join(text(name) + value(one) for name, one in values.items())
    data = b""
    for name, (kind, shape, content) in tensors.items():
        head += text(name) + struct.pack("<I", len(shape)) + struct.pack(f"<{len(shape)}Q", *shape[::-1])
        head += struct.pack("<IQ", kind, len(data))
        data += content + b"\0" * (-len(content) % 32)
    return head + b"\0" * (-len(head) % 32) + data


def half(number: float) -> bytes:
    return np.float16(number).tobytes()


@pytest.mark.parametrize(
    ("kind", "content", "expected"),
    [
        (0, np.arange(4, dtype="<f4").tobytes(), [0, 1, 2, 3]),
        (1, np.arange(4, dtype="<f2").tobytes(), [0, 1, 2, 3]),
        (30, b"\x80\x3f\x00\x40\xc0\xbf\x00\x00", [1, 2, -1.5, 0]),
        (
            2,
            half(0.5) + bytes([0x0F + 0x10 * at for at in range(16)]),
            [3.5] * 16 + [0.5 * (at - 8) for at in range(16)],
        ),
        (
            3,
            half(0.25) + half(-1) + bytes([at + 0xF0 for at in range(16)]),
            [0.25 * at - 1 for at in range(16)] + [2.75] * 16,
        ),
        (8, half(2) + np.arange(-16, 16, dtype=np.int8).tobytes(), [2 * at for at in range(-16, 16)]),
    ],
)
def test_blocks_are_their_numbers(tmp_path: Path, kind: int, content: bytes, expected: list[float]) -> None:
    file = tmp_path / "one.gguf"
    file.write_bytes(gguf_file({}, {"other": (0, (1,), b"\0" * 4), "one": (kind, (1, len(expected)), content)}))
    with open_gguf(file) as content_of:
        assert content_of.tensor("one").tolist() == [expected]


@pytest.mark.parametrize("kind", sorted(BLOCKS))
def test_blocks_are_what_the_package_of_the_format_reads(kind: int) -> None:
    gguf = pytest.importorskip("gguf")
    block, rng = BLOCKS[kind], np.random.default_rng(kind)
    numbers = rng.normal(size=(3, 2 * block.numbers)).astype(np.float32)
    theirs = gguf.GGMLQuantizationType(kind)
    if block.name == "Q6_K":  # which it only reads
        blocks = rng.integers(0, 256, (6, block.size), dtype=np.uint8)
        blocks[:, 208:] = np.frombuffer(half(0.125), np.uint8)
    else:
        blocks = np.ascontiguousarray(gguf.quantize(numbers, theirs)).view(np.uint8).reshape(-1, block.size)
    expected = gguf.dequantize(blocks.reshape(3, -1), theirs)
    np.testing.assert_array_equal(block.decode(blocks).reshape(expected.shape), expected)


def model_file(tiny_lm: Any, theirs: Any) -> bytes:
    """A Llama as llama.cpp writes it: neighbouring rotary pairs, in single precision."""
    tokenizer, config = tiny_lm.tiny_tokenizer(), theirs.config
    vocabulary = sorted(tokenizer.get_vocab(with_added_tokens=True).items(), key=lambda item: item[1])
    names = [name for name, _ in vocabulary] + [f"unused {at}" for at in range(config.vocab_size - len(vocabulary))]
    merges = [" ".join(pair) for pair in json.loads(tokenizer.to_str())["model"]["merges"]]
    values = {
        "general.architecture": "llama",
        "llama.block_count": config.num_hidden_layers,
        "llama.embedding_length": config.hidden_size,
        "llama.feed_forward_length": config.intermediate_size,
        "llama.attention.head_count": config.num_attention_heads,
        "llama.attention.head_count_kv": config.num_key_value_heads,
        "llama.rope.freq_base": 10_000.0,
        "llama.attention.layer_norm_rms_epsilon": config.rms_norm_eps,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": names,
        "tokenizer.ggml.token_type": [3 if name in tiny_lm.MARKS else 1 for name in names],
        "tokenizer.ggml.merges": merges,
    }
    renamed = {
        "model.embed_tokens": "token_embd",
        "model.norm": "output_norm",
        "lm_head": "output",
        "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
    }
    tensors = {}
    for name, weight in theirs.state_dict().items():
        heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}.get(name.split(".")[-2])
        if heads:
            weight = weight.view(heads, 2, -1, weight.shape[-1]).transpose(1, 2).reshape(weight.shape)
        name = name.replace("model.layers", "blk")
        for long, short in renamed.items():
            name = name.replace(long, short)
        tensors[name] = (0, tuple(weight.shape), weight.contiguous().numpy().tobytes())
    return gguf_file(values, tensors)


@torch.no_grad()
def test_a_file_is_the_model_that_was_written(tiny_lm: Any, tmp_path: Path) -> None:
    theirs, file = tiny_lm.hugging_face(), tmp_path / "model.gguf"
    file.write_bytes(model_file(tiny_lm, theirs))
    config, weights, tokenizer = read_gguf(file)
    assert weights.keys() == theirs.state_dict().keys()
    assert all(torch.equal(weights[name], weight) for name, weight in theirs.state_dict().items())
    assert config.kv_heads == 2
    sample = "<|im_start|>" + tiny_lm.made_up(20, seed=9) + "<|im_end|>\n"
    assert tokenizer.encode(sample).ids == tiny_lm.tiny_tokenizer().encode(sample).ids
    ours = load_llm(file, source="en", target="es")
    assert ours.settings.end == ("<|im_end|>",)
    with pytest.raises(ValueError, match="give source and target"):
        load_llm(file)


def test_damaged_files_are_refused(tiny_lm: Any, tmp_path: Path) -> None:
    whole, file = model_file(tiny_lm, tiny_lm.hugging_face()), tmp_path / "model.gguf"
    for size in (0, 3, 4, 10, 30, 200, 5000, len(whole) // 2, len(whole) - 32):
        file.write_bytes(whole[:size])
        with pytest.raises(ValueError, match=r"model\.gguf"):
            read_gguf(file)
    rng = np.random.default_rng(0)
    for at in range(60):  # whatever is damaged, it is told as a ValueError, at once and in little memory
        broken = bytearray(whole)
        place = int(rng.integers(4, 30 if at % 2 else 12_000))
        broken[place : place + 8] = rng.integers(0, 256, 8, dtype=np.uint8).tobytes()
        file.write_bytes(broken)
        with contextlib.suppress(ValueError):
            read_gguf(file)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"GGML" + b"\0" * 40, "begins with"),
        (b"GGUF" + struct.pack("<IQQ", 1, 0, 0), "version is 1"),
        (b"GGUF" + struct.pack("<IQQ", 3, 2**60, 0), "claims 1152921504606846976 entries"),
        (gguf_file({"general.alignment": 0}, {}), "general.alignment"),
        (gguf_file({}, {"one": (99, (4,), b"\0" * 16)}), "type 99"),
        (gguf_file({}, {"one": (8, (33,), b"\0" * 64)}), "whole blocks of 32"),
        (gguf_file({}, {"one": (0, (2**40, 2**20), b"\0" * 64)}), "behind the end"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + text("a") + struct.pack("<IIQ", 9, 8, 2**50), "claims"),
    ],
)
def test_claims_are_not_believed(tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "one.gguf"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=message), open_gguf(file) as content_of:
        content_of.tensor("one")
