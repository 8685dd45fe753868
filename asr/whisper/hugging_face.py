"""Writes a Whisper as `transformers` does, for other programs: transformers itself, and CTranslate2's converter.

A folder of ours (`save_whisper`) has OpenAI's names and is read by loquent alone. This one has the names, the
configurations and the tokenizer files of the models on the Hugging Face hub. loquent reads it too.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from loquent.asr.whisper.config import WhisperConfig
from loquent.asr.whisper.conversion import weight_shapes
from loquent.asr.whisper.tokenizer import WhisperTokenizer

MAX_INITIAL_TIMESTAMP = 50  # steps of 0.02 s: the first timestamp is at most one second


def save_hugging_face(
    folder: str | Path, config: WhisperConfig, weights: Mapping[str, Tensor], tokenizer_files: Iterable[Path]
) -> None:
    """Write a model that `WhisperForConditionalGeneration.from_pretrained` and `WhisperProcessor.from_pretrained` read.

    Args:
        folder: created if need be; files of the same name are replaced.
        config: dimensions and alignment heads.
        weights: name -> weight in OpenAI's naming, such as ``model.state_dict()``; kept in their type.
        tokenizer_files: those of a `WhisperCheckpoint`.

    Raises:
        ValueError: weights are missing, or there is no tokenizer that transformers reads among the files.
    """
    folder = Path(folder)
    expected = weight_shapes(config)
    if missing := expected.keys() - weights.keys():
        raise ValueError(f"{len(missing)} weights are missing, such as {min(missing)}")
    files = {file.name: file for file in tokenizer_files}
    if "tokenizer.json" not in files and not {"vocab.json", "merges.txt"} <= files.keys():
        raise ValueError(
            f"the tokenizer's files are {', '.join(files) or 'missing'}; transformers needs a tokenizer.json, or "
            "vocab.json and merges.txt, of a model of the same vocabulary"
        )
    folder.mkdir(parents=True, exist_ok=True)
    for name, file in files.items():
        # CTranslate2's lists of tokens are in the converter's way, which writes its own.
        if not name.startswith("vocabulary.") and file.parent.resolve() != folder.resolve():
            shutil.copyfile(file, folder / name)
    tokenizer = WhisperTokenizer.load(folder)
    tensors = {_their_name(name): weights[name].detach().cpu().clone().contiguous() for name in expected}
    partial = folder / "model.safetensors.partial"  # renamed, so that no reader sees half a file
    save_file(tensors, partial, {"format": "pt"})
    os.replace(partial, folder / "model.safetensors")
    _write(folder / "config.json", _config(config, tokenizer))
    _write(folder / "generation_config.json", _generation(config, tokenizer))
    _write(folder / "preprocessor_config.json", _preprocessor(config))
    if not (folder / "tokenizer_config.json").is_file():
        _write(folder / "tokenizer_config.json", _tokenizer_config())


# In order: the norms of a block come before the norm of the stack.
_NAMES = (
    (r"^", "model."),
    (r"\.blocks\.", ".layers."),
    (r"\.positional_embedding$", ".embed_positions.weight"),
    (r"\.token_embedding\.", ".embed_tokens."),
    (r"\.cross_attn_ln\.", ".encoder_attn_layer_norm."),
    (r"\.attn_ln\.", ".self_attn_layer_norm."),
    (r"\.mlp_ln\.", ".final_layer_norm."),
    (r"\.ln_post\.", ".layer_norm."),
    (r"\.decoder\.ln\.", ".decoder.layer_norm."),
    (r"\.cross_attn\.", ".encoder_attn."),
    (r"\.attn\.", ".self_attn."),
    (r"\.query\.", ".q_proj."),
    (r"\.key\.", ".k_proj."),
    (r"\.value\.", ".v_proj."),
    (r"\.out\.", ".out_proj."),
    (r"\.mlp\.0\.", ".fc1."),
    (r"\.mlp\.2\.", ".fc2."),
)


def _their_name(name: str) -> str:
    """The inverse of `rename_hugging_face`."""
    for pattern, replacement in _NAMES:
        name = re.sub(pattern, replacement, name)
    return name


def _ids(tokenizer: WhisperTokenizer) -> dict[str, Any]:
    """What `config.json` and `generation_config.json` both say."""
    ends = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), tokenizer.eot)
    return {**ends, "decoder_start_token_id": tokenizer.sot}


def _config(config: WhisperConfig, tokenizer: WhisperTokenizer) -> dict[str, Any]:
    return {
        "architectures": ["WhisperForConditionalGeneration"],
        "model_type": "whisper",
        "is_encoder_decoder": True,
        "activation_function": "gelu",
        "d_model": config.n_audio_state,
        "num_mel_bins": config.n_mels,
        "vocab_size": config.n_vocab,
        "max_source_positions": config.n_audio_ctx,
        "max_target_positions": config.n_text_ctx,
        "encoder_layers": config.n_audio_layer,
        "encoder_attention_heads": config.n_audio_head,
        "encoder_ffn_dim": 4 * config.n_audio_state,
        "decoder_layers": config.n_text_layer,
        "decoder_attention_heads": config.n_text_head,
        "decoder_ffn_dim": 4 * config.n_text_state,
        "num_hidden_layers": config.n_audio_layer,
        "scale_embedding": False,
        **_ids(tokenizer),
    }


def _generation(config: WhisperConfig, tokenizer: WhisperTokenizer) -> dict[str, Any]:
    values = {
        **_ids(tokenizer),
        "begin_suppress_tokens": list(tokenizer.blank_tokens),
        "suppress_tokens": list(tokenizer.suppressed_tokens),
        "alignment_heads": [list(pair) for pair in config.alignment_heads],
        "is_multilingual": tokenizer.is_multilingual,
        "max_initial_timestamp_index": MAX_INITIAL_TIMESTAMP,
        "max_length": config.n_text_ctx,
        "no_timestamps_token_id": tokenizer.no_timestamps,
        "prev_sot_token_id": tokenizer.sot_prev,
        "return_timestamps": False,
    }
    if tokenizer.is_multilingual:
        values["lang_to_id"] = {f"<|{code}|>": token for code, token in tokenizer.language_tokens.items()}
        values["task_to_id"] = {"transcribe": tokenizer.transcribe, "translate": tokenizer.translate}
    return values


def _preprocessor(config: WhisperConfig) -> dict[str, Any]:
    window_s = config.n_audio_ctx // 50
    return {
        "feature_extractor_type": "WhisperFeatureExtractor",
        "processor_class": "WhisperProcessor",
        "feature_size": config.n_mels,
        "sampling_rate": 16_000,
        "hop_length": 160,
        "n_fft": 400,
        "chunk_length": window_s,
        "n_samples": window_s * 16_000,
        "nb_max_frames": window_s * 100,
        "padding_side": "right",
        "padding_value": 0.0,
        "return_attention_mask": False,
    }


def _tokenizer_config() -> dict[str, Any]:
    end = "<|endoftext|>"
    return {
        "tokenizer_class": "WhisperTokenizer",
        "processor_class": "WhisperProcessor",
        "bos_token": end,
        "eos_token": end,
        "pad_token": end,
        "unk_token": end,
    }


def _write(file: Path, values: Mapping[str, Any]) -> None:
    file.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
