"""Files of weights from elsewhere: what they hold is believed only as far as it is there."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from loquent.speech.weight_files import check_weight, read_weights


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        (torch.zeros(1, 1).expand(40, 8), "is larger than what the file stores of it"),
        (torch.zeros(40, 8).to_sparse(), "is no plain tensor"),
        (torch.zeros(40, 8, device="meta"), "is no plain tensor"),
        (torch.full((40, 8), math.nan), "has numbers that are not finite"),
        (torch.tensor([math.inf, -math.inf]), "has numbers that are not finite"),
        (torch.zeros(3, dtype=torch.int8), r"is torch\.int8, expected a tensor of floating-point numbers"),
        ("text", "is str, expected a tensor of floating-point numbers"),
    ],
)
@pytest.mark.filterwarnings("ignore:Sparse invariant checks")
def test_tensors_without_sound_numbers_are_refused(weight: object, message: str, tmp_path: Path) -> None:
    torch.save({"a": weight}, tmp_path / "any.name")
    with pytest.raises(ValueError, match=f"^a .*{message}"):
        check_weight("a", read_weights(tmp_path / "any.name")["a"])


def test_a_sum_that_overflows_is_of_finite_numbers() -> None:
    check_weight("a", torch.full((100,), 60_000).half(), (100,))
    with pytest.raises(ValueError, match=r"a has shape \[100\], expected \[10, 10\]"):
        check_weight("a", torch.ones(100), (10, 10))


def test_damage_anywhere_is_told_or_harmless(tmp_path: Path) -> None:
    file = tmp_path / "pytorch_model.bin"
    torch.save({"a": torch.arange(100.0)}, file)
    sound = file.read_bytes()
    for at in range(0, len(sound), 37):
        file.write_bytes(sound[:at] + bytes([sound[at] ^ 0x55]) + sound[at + 1 :])
        try:
            read_weights(file)
        except ValueError as error:
            assert "pytorch_model.bin" in str(error)  # noqa: PT017  damage in the numbers themselves goes unnoticed


@pytest.mark.parametrize(
    "shard",
    [
        "../../etc/passwd",
        "/etc/passwd",
        "model.index.json",
        "sub/model.safetensors",
        "../here/model.safetensors",
        "sub",
        "config.json",
        "absent.safetensors",
        "",
        ".",
        "..",
        "a\0b",
        "a" * 5000,
    ],
)
def test_shards_that_are_no_weights_beside_the_index_are_refused(shard: str, tmp_path: Path) -> None:
    folder = tmp_path / "here"
    (folder / "sub").mkdir(parents=True)
    for place in (folder, folder / "sub"):
        save_file({"a": torch.ones(1)}, place / "model.safetensors")
    (folder / "config.json").write_text("{}")
    index = folder / "model.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "model.safetensors"}}))
    assert list(read_weights(index)) == ["a"]
    index.write_text(json.dumps({"weight_map": {"a": "model.safetensors", "b": shard}}))
    with pytest.raises(ValueError, match=r"index\.json names the shard .*not in its folder or no file of weights"):
        read_weights(index)


@pytest.mark.parametrize(
    "index", [{}, {"weight_map": {}}, {"weight_map": []}, {"weight_map": {"a": 3, "b": ["c"]}}, {"weight_map": "a"}]
)
def test_index_without_names_is_refused(index: dict, tmp_path: Path) -> None:
    (tmp_path / "model.index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match=r"index\.json has no weight_map"):
        read_weights(tmp_path / "model.index.json")
