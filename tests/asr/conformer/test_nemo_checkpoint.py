"""`.nemo` files: read without NeMo, written for it, refused with the reason."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
import zipfile
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor

from loquent.asr.conformer.encoder import ConformerConfig
from loquent.asr.conformer.model import ConformerModel, ConformerModelConfig
from loquent.asr.conformer.nemo_checkpoint import load_nemo, save_nemo
from loquent.asr.conformer.tokenizer import SubwordTokenizer
from loquent.asr.heads.transducer import TransducerConfig

DATA = Path(__file__).parent / "data"
NAMES = ("hybrid", "ctc", "rnnt")


def parts_of(file: Path) -> dict[str, bytes]:
    with tarfile.open(file) as archive:
        return {entry.name.removeprefix("./"): archive.extractfile(entry).read() for entry in archive if entry.isfile()}


def packed(parts: dict[str, bytes], file: Path) -> Path:
    with tarfile.open(file, "w") as archive:
        for name, content in parts.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return file


Change = Callable[[dict[str, Any], dict[str, Tensor]], None]


@pytest.fixture
def changed(tmp_path: Path) -> Callable[[str, Change], Path]:
    """NeMo's own file, with something changed in its settings or weights."""

    def change(name: str, what: Change) -> Path:
        parts = parts_of(DATA / f"nemo_{name}.nemo")
        settings = yaml.safe_load(parts["model_config.yaml"])
        weights = torch.load(io.BytesIO(parts["model_weights.ckpt"]), weights_only=True)
        what(settings, weights)
        stored = io.BytesIO()
        torch.save(weights, stored)
        parts |= {"model_config.yaml": yaml.safe_dump(settings).encode(), "model_weights.ckpt": stored.getvalue()}
        return packed(parts, tmp_path / "changed.nemo")

    return change


def setting(path: str, value: Any) -> Change:
    def change(settings: dict[str, Any], weights: dict[str, Tensor]) -> None:
        *sections, key = path.split(".")
        for section in sections:
            settings = settings[section]
        settings[key] = value

    return change


def test_reads_what_nemo_wrote():
    hybrid, ctc, rnnt = (load_nemo(DATA / f"nemo_{name}.nemo") for name in NAMES)
    assert hybrid.config == ConformerModelConfig(
        ConformerConfig(80, 32, 2, 4, subsampling_channels=12, left_context=28, lookaheads=(13, 6, 1, 0)),
        vocabulary=32,
        ctc=True,
        transducer=TransducerConfig(32, 32, predictor_dim=24, joint_dim=40),
    )
    assert (ctc.config.ctc, ctc.config.transducer, ctc.config.encoder.lookaheads) == (True, None, (6,))
    assert (ctc.config.encoder.conv_norm, ctc.config.encoder.xscaling, ctc.config.encoder.bias) == (
        "batch_norm",
        True,
        False,
    )
    assert (rnnt.config.ctc, rnnt.config.encoder.n_mels, rnnt.config.transducer.predictor_layers) == (False, 128, 2)
    assert hybrid.warnings == ctc.warnings == rnnt.warnings == ()
    assert hybrid.tokenizer.decode(hybrid.tokenizer.encode("the quick fox")) == "the quick fox"


@pytest.mark.parametrize("name", NAMES)
def test_what_is_written_reads_back_the_same(name, tmp_path):
    checkpoint = load_nemo(DATA / f"nemo_{name}.nemo")
    save_nemo(tmp_path / "copy.nemo", checkpoint.build(), checkpoint.tokenizer)
    copy = load_nemo(tmp_path / "copy.nemo")
    assert copy.config == checkpoint.config
    assert copy.weights.keys() == checkpoint.weights.keys()
    assert all(torch.equal(copy.weights[key], weight) for key, weight in checkpoint.weights.items())
    assert copy.tokenizer.to_bytes() == checkpoint.tokenizer.to_bytes()
    assert [file.name for file in tmp_path.iterdir()] == ["copy.nemo"]


@pytest.mark.parametrize("name", NAMES)
def test_what_is_written_has_every_weight_and_artefact_that_nemo_wants(name, tmp_path):
    """NeMo loads its state dictionary strictly, and looks for each file that the settings name."""
    checkpoint = load_nemo(DATA / f"nemo_{name}.nemo")
    save_nemo(tmp_path / "copy.nemo", checkpoint.build(), checkpoint.tokenizer)
    ours, theirs = parts_of(tmp_path / "copy.nemo"), parts_of(DATA / f"nemo_{name}.nemo")
    found, expected = (
        torch.load(io.BytesIO(parts["model_weights.ckpt"]), weights_only=True) for parts in (ours, theirs)
    )
    assert {key: weight.shape for key, weight in found.items()} == {
        key: weight.shape for key, weight in expected.items()
    }
    for key, weight in expected.items():
        torch.testing.assert_close(found[key], weight, rtol=0, atol=1e-6 if key.startswith("preprocessor") else 0)
    mine, nemos = (yaml.safe_load(parts["model_config.yaml"]) for parts in (ours, theirs))
    assert mine["target"] == nemos["target"]
    assert mine["encoder"] == mine["encoder"] | nemos["encoder"]
    named = [mine["tokenizer"][key].removeprefix("nemo:") for key in ("model_path", "vocab_path")]
    assert set(named) <= ours.keys()


def test_normalisation_of_the_whole_recording_needs_statistics(changed):
    file = changed("hybrid", setting("preprocessor.normalize", "per_feature"))
    with pytest.raises(ValueError, match=r"whole recording, which a stream does not have. Pass feature_statistics"):
        load_nemo(file)
    mean, deviation = torch.linspace(-12, -6, 80), torch.linspace(1, 3, 80)
    checkpoint = load_nemo(file, (mean, deviation))
    assert "inexact" in checkpoint.warnings[0]
    model = checkpoint.build()
    mel = torch.randn(1, 9, 80)
    torch.testing.assert_close(model.normalize(mel), (mel - mean) / deviation)
    with pytest.raises(ValueError, match="positive deviation of 80 mel bins"):
        load_nemo(file, (mean, -deviation))
    running = load_nemo(file, "running")
    assert "running statistics, which is inexact" in running.warnings[0]
    samples = torch.randn(2, 9_000)
    mel, frames = running.build().log_mel(samples, torch.tensor([9_000, 5_000]))
    plain = load_nemo(DATA / "nemo_hybrid.nemo").build().features(samples[1:, :5_000])[0]
    # At its last frame a recording has been heard whole.
    expected = (plain[-1] - plain.mean(0)) / (plain.std(0) + 1e-5)
    torch.testing.assert_close(mel[1, frames[1] - 1], expected, rtol=1e-3, atol=1e-3)
    with pytest.raises(ValueError, match="does not normalise its features"):
        load_nemo(DATA / "nemo_hybrid.nemo", (mean, deviation))


def test_fixed_statistics_are_exact_and_written_back(changed, tmp_path):
    statistics = {"fixed_mean": [-9.5] * 80, "fixed_std": [2.5] * 80}
    checkpoint = load_nemo(changed("hybrid", setting("preprocessor.normalize", statistics)))
    assert checkpoint.warnings == ()
    save_nemo(tmp_path / "copy.nemo", checkpoint.build(), checkpoint.tokenizer)
    settings = yaml.safe_load(parts_of(tmp_path / "copy.nemo")["model_config.yaml"])
    assert settings["preprocessor"]["normalize"] == statistics


def test_causal_attention_without_chunks_is_look_ahead_zero(changed):
    def regular(settings: dict[str, Any], weights: dict[str, Tensor]) -> None:
        settings["encoder"] |= {"att_context_style": "regular", "att_context_size": [28, 0]}

    assert load_nemo(changed("hybrid", regular)).config.encoder.lookaheads == (0,)


@pytest.mark.parametrize(
    ("path", "value", "reason"),
    [
        ("preprocessor.sample_rate", 8000, "sample_rate: 8000 cannot be loaded, expected 16000"),
        ("preprocessor.window", "hamming", "window: hamming"),
        ("encoder.causal_downsampling", False, "subsampling is not causal"),
        ("encoder.subsampling", "striding", "subsampling: striding"),
        ("encoder.subsampling_factor", 4, "subsampling_factor: 4"),
        ("encoder.conv_context_size", None, "lets every layer see later frames"),
        ("encoder.conv_norm_type", "group_norm4", "normalises over time"),
        ("encoder.att_context_size", [-1, -1], "attention would have to wait for the end"),
        ("encoder.att_context_size", [[28, 13], [14, 0]], "several left contexts"),
        ("encoder.att_context_size", "all", "not a pair of numbers"),
        ("encoder.att_context_style", "regular", "looks further ahead with every layer"),
        ("encoder.self_attention_model", "abs_pos", "self_attention_model: abs_pos"),
        ("encoder.xscaling", "${model.scaling}", "refers to another setting"),
        ("encoder._target_", "nemo.collections.asr.modules.SqueezeformerEncoder", "expected a ConformerEncoder"),
        ("model_defaults.tdt_durations", [0, 1, 2], "TDT"),
        ("tokenizer.type", "wpe", "type 'wpe', expected 'bpe'"),
        ("tokenizer", None, "labels"),
        ("tokenizer.model_path", "nemo:../../etc/passwd", "is missing"),
        ("encoder", [], "expected"),
        ("encoder.dropout", [0.1], "not a fraction"),
        ("joint.jointnet.activation", ["relu"], "is none of relu"),
        ("joint.jointnet.activation", "gelu", "gelu is none of relu"),
        ("preprocessor.features", "eighty", "not a positive number"),
    ],
)
def test_models_that_cannot_be_streamed_are_refused_with_the_reason(path, value, reason, changed):
    with pytest.raises(ValueError, match=reason) as error:
        load_nemo(changed("hybrid", setting(path, value)))
    assert "changed.nemo" in str(error.value)


@pytest.mark.parametrize(
    ("name", "weight", "reason"),
    [
        ("encoder.out_proj.weight", torch.zeros(3, 3), "no place in a streaming FastConformer"),
        ("prompt_kernel.0.weight", torch.zeros(3, 3), "language prompt"),
        ("encoder.layers.1.norm_out.bias", None, r"norm_out.bias is missing"),
        ("encoder.layers.1.norm_out.bias", torch.zeros(31), r"shape \[31\], expected \[32\]"),
        ("joint.joint_net.2.weight", torch.zeros(38, 40), "33 rows and the joint network 38 outputs"),
        ("preprocessor.featurizer.fb", torch.zeros(1, 80, 257), "mel filters"),
        ("preprocessor.featurizer.fb", torch.zeros(257), "mel filters"),
        ("encoder.layers.1000000000.norm_out.bias", torch.zeros(32), "layers 0, 1, 1000000000"),
        ("encoder.layers.0.norm_out.bias", torch.zeros(1).expand(1 << 50), "larger than what the file stores"),
    ],
)
def test_weights_that_do_not_fit_are_refused(name, weight, reason, changed):
    def change(settings: dict[str, Any], weights: dict[str, Tensor]) -> None:
        if weight is None:
            del weights[name]
        else:
            weights[name] = weight

    with pytest.raises(ValueError, match=reason):
        load_nemo(changed("hybrid", change))


class Malice:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("executed",)


def test_nothing_in_a_file_is_executed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    stored = io.BytesIO()
    torch.save({"encoder": Malice()}, stored)
    parts = parts_of(DATA / "nemo_ctc.nemo") | {"model_weights.ckpt": stored.getvalue()}
    with pytest.raises(ValueError, match="refused: it is damaged or holds objects other than tensors"):
        load_nemo(packed(parts, tmp_path / "malice.nemo"))
    parts["model_config.yaml"] = b"!!python/object/apply:os.mkdir [executed]"
    with pytest.raises(ValueError, match="not YAML"):
        load_nemo(packed(parts, tmp_path / "malice.nemo"))
    assert not (tmp_path / "executed").exists()


def test_what_a_file_cannot_account_for_is_refused(tmp_path, monkeypatch):
    file = tmp_path / "large.nemo"
    file.write_bytes(gzip.compress(bytes(40 << 20)))
    with pytest.raises(ValueError, match="20 times its size"):
        load_nemo(file)
    parts = parts_of(DATA / "nemo_ctc.nemo")
    monkeypatch.setattr("loquent.asr.conformer.nemo_checkpoint.LARGEST_TEXT", 100)
    with pytest.raises(ValueError, match=r"model_config.yaml has \d+ bytes, expected 100 at most"):
        load_nemo(packed(parts, file))
    monkeypatch.undo()
    deflated = io.BytesIO()
    with zipfile.ZipFile(deflated, "w", zipfile.ZIP_DEFLATED) as records:
        records.writestr("archive/data.pkl", bytes(1 << 20))
    with pytest.raises(ValueError, match="compressed"):
        load_nemo(packed(parts | {"model_weights.ckpt": deflated.getvalue()}, file))


def test_damaged_files_say_so(tmp_path):
    whole, file = (DATA / "nemo_hybrid.nemo").read_bytes(), tmp_path / "damaged.nemo"
    for size in (0, 300, 5_000, 40_000, 200_000, 395_000):
        file.write_bytes(whole[:size])
        with pytest.raises(ValueError, match=r"damaged\.nemo"):
            load_nemo(file)
    file.write_bytes((DATA / "nemo_ctc.nemo").read_bytes()[:-1000])
    with pytest.raises(ValueError, match="truncated"):
        load_nemo(file)
    with pytest.raises(FileNotFoundError):
        load_nemo(tmp_path / "absent.nemo")
    with pytest.raises(ValueError, match=r"model_config.yaml is missing; found notes.txt"):
        load_nemo(packed({"notes.txt": b""}, file))
    link = tarfile.TarInfo("model_config.yaml")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    with tarfile.open(file, "w") as archive:
        archive.addfile(link)
    with pytest.raises(ValueError, match=r"model_config\.yaml is missing"):
        load_nemo(file)


def test_a_vocabulary_of_another_size_is_refused(tmp_path):
    checkpoint = load_nemo(DATA / "nemo_ctc.nemo")
    other = SubwordTokenizer.train(["some other words entirely"], 20, "char")
    with pytest.raises(ValueError, match="tokens, the model 32"):
        save_nemo(tmp_path / "copy.nemo", checkpoint.build(), other)
    parts = parts_of(DATA / "nemo_ctc.nemo")
    name = next(name for name in parts if name.endswith("tokenizer.model"))
    with pytest.raises(ValueError, match="the heads are for 32 and the blank"):
        load_nemo(packed(parts | {name: other.to_bytes()}, tmp_path / "other.nemo"))


def test_a_decoder_without_rows_is_refused(changed):
    def change(settings: dict[str, Any], weights: dict[str, Tensor]) -> None:
        weights["decoder.decoder_layers.0.weight"] = torch.tensor(1.0)

    with pytest.raises(ValueError, match=r"decoder_layers\.0\.weight has shape \[\]"):
        load_nemo(changed("ctc", change))


def test_models_that_nemo_has_not_are_not_written(tmp_path):
    tokenizer = load_nemo(DATA / "nemo_ctc.nemo").tokenizer
    shape = {"dim": 16, "layers": 1, "heads": 2, "subsampling_channels": 4, "left_context": 28}
    stateless = TransducerConfig(32, 16, "stateless", 8, joint_dim=8)
    for lookahead, parts, reason in (
        (2, {}, "28 frames are not a multiple of 3"),
        (0, {"transducer": stateless}, "only LSTM predictors"),
        (0, {"adaptive_lookahead": 2}, "no encoder that decides its look-ahead"),
    ):
        encoder = ConformerConfig(**shape, lookaheads=(lookahead,))
        model = ConformerModel(ConformerModelConfig(encoder, 32, **parts))
        with pytest.raises(ValueError, match=reason):
            save_nemo(tmp_path / "copy.nemo", model, tokenizer)
    assert not list(tmp_path.iterdir())


def nan_in(name: str) -> Change:
    return lambda settings, weights: weights[name].view(-1)[:1].fill_(float("nan"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (nan_in("encoder.pre_encode.out.bias"), r"encoder\.pre_encode\.out\.bias has numbers that are not finite"),
        (
            lambda settings, weights: weights.update({"encoder.pre_encode.out.bias": torch.zeros(1).expand(32)}),
            "is larger than what the file stores of it",
        ),
        (
            lambda settings, weights: weights.update({"encoder.pre_encode.out.bias": torch.zeros(32, device="meta")}),
            "is no plain tensor",
        ),
        (setting("encoder.att_context_size", [10**9, 6]), "left_context is '1000000000', expected a whole number"),
        (setting("encoder.att_context_size", [28, 10**9]), "lookaheads must be numbers of frames up to"),
        (setting("encoder.dropout", float("nan")), "encoder.dropout: nan is not a fraction"),
        (setting("encoder.dropout", "much"), "encoder.dropout: much is not a fraction"),
    ],
)
def test_sizes_and_numbers_that_cannot_be_are_refused(changed, change, message):
    with pytest.raises(ValueError, match=message):
        load_nemo(changed("ctc", change))


@pytest.mark.parametrize(
    "bomb", [["&a [x, x]"] + [f"&{b} [*{a}{f', *{a}' * 9}]" for a, b in pairwise("abcdefghi")], ["&a [*a]"]]
)
def test_settings_that_repeat_themselves_are_refused(bomb, tmp_path):
    parts = parts_of(DATA / "nemo_ctc.nemo")
    lines = "".join(f"bomb{n}: {line}\n" for n, line in enumerate(bomb))
    parts["model_config.yaml"] = lines.encode() + parts["model_config.yaml"]
    with pytest.raises(ValueError, match="has more than 500000 values; aliases"):
        load_nemo(packed(parts, tmp_path / "bomb.nemo"))
