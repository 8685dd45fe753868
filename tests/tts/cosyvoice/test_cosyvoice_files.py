"""The files of a checkpoint: what is read of them, what is refused, and that nothing in them is run."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import ModuleType

import pytest
import torch

from loquent.tts.cosyvoice.config import CosyVoiceConfig
from loquent.tts.cosyvoice.model import CosyVoice
from loquent.tts.cosyvoice.voice import read_voices
from loquent.tts.cosyvoice.yaml_values import YamlValues
from loquent.tts.lm.sampling import RepetitionAwareSampling
from loquent.tts.vocoder.hift import HiftConfig


def test_settings_are_read(checkpoint: Path) -> None:
    config = CosyVoiceConfig.read(checkpoint)
    three = config.version == 3
    assert config == CosyVoiceConfig(
        version=config.version,
        codes=6561,
        blocks=(5, 15),
        sampling=RepetitionAwareSampling(),
        chunk=5,
        guidance=0.7,
        head_size=16,
        hift=HiftConfig(base_channels=16, f0_channels=12, causal=three),
        f_max=None if three else 8000.0,
        silent=config.silent,
    )
    assert config.sample_rate == 24_000
    assert not (checkpoint / "trap").exists()


def test_nothing_in_the_settings_is_run(tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text(f"a: !apply:os.mkdir [{tmp_path / 'trap'}]\nb: !!python/object/apply:os.getpid []\n")
    with pytest.raises(ValueError, match=r"settings\.yaml is not YAML"):
        YamlValues.read(file)
    file.write_text(f"a: !apply:os.mkdir [{tmp_path / 'trap'}]\nb: !new:os.system\n    command: !ref <c>\nc: true\n")
    values = YamlValues.read(file)
    assert values["b", "command"] is True
    assert values["a"] == [str(tmp_path / "trap")]
    assert values.tag("b") == "new:os.system"
    assert not (tmp_path / "trap").exists()


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        ("a: !ref <b>\nb: !ref <a>", ("a",), "in a circle"),
        ("a: !ref <b> * 2\nb: 1", ("a",), "the settings refer to '<b> \\* 2'"),
        ("a: 1", ("b",), "the settings have no b"),
        ("a: 1", ("a", "b"), "the settings have no a.b"),
        ("a: {b: 1}", ("a",), "a is a dict, expected a plain value"),
        ("a: [[[[[1]]]]]", ("a",), "a is a list, expected a plain value"),
    ],
)
def test_values_that_are_none_are_told(text: str, place: tuple[str, ...], message: str, tmp_path: Path) -> None:
    (tmp_path / "settings.yaml").write_text(text)
    with pytest.raises(ValueError, match=message):
        YamlValues.read(tmp_path / "settings.yaml")[place]


@pytest.mark.parametrize("content", ["- 1\n- 2", "[" * 5000, "a: b: c", "x" * (1 << 20) + "y"])
def test_files_that_are_no_settings_are_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "cosyvoice2.yaml").write_text(content)
    with pytest.raises(ValueError, match=r"cosyvoice2\.yaml"):
        CosyVoiceConfig.read(tmp_path)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("num_mels: 80", "num_mels: 100", "feat_extractor.num_mels is '100', expected 80"),
        ("base_channels: 16", "base_channels: -1", "hift.base_channels is '-1'"),
        ("base_channels: 16", "base_channels: 20", "base_channels=20 must be a multiple of 8"),
        ("upsample_rates: [8, 5, 3]", "upsample_rates: [8, 5, 5]", "hift makes 800 samples of a frame"),
        ("top_p: 0.8", "top_p: high", "llm.sampling.top_p is 'high'"),
        ("token_mel_ratio: 2", "token_mel_ratio: 4", "expected 2 frames for a token"),
        ("mix_ratio: [5, 15]", "mix_ratio: [5]", "expected 2 numbers"),
        ("llm: !new:cosyvoice.llm.llm.", "llm: !new:other.", "llm is 'new:other"),
    ],
)
def test_settings_of_other_models_are_refused(
    old: str, new: str, message: str, checkpoint: Path, tmp_path: Path
) -> None:
    (file,) = checkpoint.glob("cosyvoice*.yaml")
    text = file.read_text(encoding="utf-8")
    assert old in text
    broken = new.replace("other.", "other.Model_") if "other" in new else new
    (tmp_path / file.name).write_text(text.replace(old, broken, 1), encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        CosyVoiceConfig.read(tmp_path)


@pytest.fixture
def copied(checkpoint: Path, tmp_path: Path) -> Path:
    """A checkpoint that may be changed."""
    return Path(shutil.copytree(checkpoint, tmp_path / "copy"))


@pytest.mark.parametrize("name", ["llm.pt", "flow.pt", "hift.pt", "CosyVoice-BlankEN/config.json"])
def test_missing_files_are_named(name: str, copied: Path) -> None:
    (copied / name).unlink()
    with pytest.raises(FileNotFoundError, match=Path(name).name):
        CosyVoice.from_pretrained(copied)


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"neither cosyvoice2.yaml nor cosyvoice3.yaml"):
        CosyVoice.from_pretrained(tmp_path)


@pytest.mark.parametrize("name", ["llm.pt", "flow.pt", "hift.pt"])
def test_weights_that_do_not_fit_are_refused(name: str, copied: Path) -> None:
    weights = torch.load(copied / name, weights_only=True)
    removed = sorted(key for key in weights if key.endswith("bias") or "speech_embedding" in key)[0]
    for broken in (
        {key: value for key, value in weights.items() if key != removed},
        weights | {"unknown.weight": torch.zeros(3)},
        weights | {removed: torch.zeros(2, 3)},
        weights | {removed: torch.full_like(weights[removed], torch.nan)},
    ):
        torch.save(broken, copied / name)
        with pytest.raises(ValueError, match=name.replace(".", r"\.")):
            CosyVoice.from_pretrained(copied)


class Mine:
    """An object that no file of weights should hold."""


@pytest.mark.parametrize("name", ["llm.pt", "flow.pt", "hift.pt", "spk2info.pt"])
def test_objects_are_not_unpickled(name: str, copied: Path) -> None:
    torch.save({"a": Mine()}, copied / name)
    with pytest.raises(ValueError, match=r"is refused: it is damaged or holds objects other than tensors"):
        CosyVoice.from_pretrained(copied)


def test_a_tokenizer_of_another_model_is_refused(copied: Path) -> None:
    config = copied / "CosyVoice-BlankEN" / "config.json"
    config.write_text(config.read_text().replace("800", "100"))
    with pytest.raises(ValueError, match=r"the tokenizer has \d+ tokens, the model 100"):
        CosyVoice.from_pretrained(copied)
    (copied / "CosyVoice-BlankEN" / "tokenizer.json").write_text("{}")
    with pytest.raises(ValueError, match="no text tokenizer that can be read"):
        CosyVoice.from_pretrained(copied)


def test_known_voices_are_read(checkpoint: Path, tiny: ModuleType, tmp_path: Path) -> None:
    voices = read_voices(checkpoint / "spk2info.pt")
    assert sorted(voices) == ["Anna", "Ben"]
    assert voices["Anna"].speaker.shape == (tiny.SPEAKER,)
    assert voices["Anna"].speech == ()
    assert voices["Ben"].speech == (5, 4, 3, 2, 9, 8, 7)
    assert voices["Ben"].mel is not None
    assert voices["Ben"].mel.shape == (14, 80)
    for broken, message in (({"Anna": 3}, "has a int for the voice"), ({"Anna": {}}, "flow_embedding is NoneType")):
        torch.save(broken, tmp_path / "spk2info.pt")
        with pytest.raises(ValueError, match=message):
            read_voices(tmp_path / "spk2info.pt")
