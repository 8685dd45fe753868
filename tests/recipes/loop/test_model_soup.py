"""The mean of trained models: of folders, and of the stages of a run."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from loquent.recipes.loop.config import ConfigError
from loquent.recipes.loop.model_soup import write_mean


def folder(path: Path, value: float, tokens: bytes = b"ab", file: str = "model.safetensors") -> Path:
    path.mkdir(exist_ok=True)
    save_file({"weight": torch.full((2, 3), value), "count": torch.tensor(int(value))}, path / file)
    (path / "tokenizer.model").write_bytes(tokens)
    (path / "config.json").write_text(f'{{"value": {value}}}')
    return path


def test_weights_are_averaged_and_the_rest_is_the_first_ones(tmp_path: Path) -> None:
    one, other, third = (
        folder(tmp_path / name, value) for name, value in (("one", 1.0), ("other", 4.0), ("third", 4.0))
    )
    for source, value in ((one, 0.5), (other, 0.0)):  # the third has none
        folder(source, value, file="auxiliary.safetensors")
    write_mean({str(one): 1, str(other): 3, str(third): 4}, tmp_path / "mean")
    weights = load_file(tmp_path / "mean" / "model.safetensors")
    torch.testing.assert_close(weights["weight"], torch.full((2, 3), 3.625))
    assert int(weights["count"]) == 1
    auxiliary = load_file(tmp_path / "mean" / "auxiliary.safetensors")["weight"]
    torch.testing.assert_close(auxiliary, torch.full((2, 3), 0.125))
    assert (tmp_path / "mean" / "config.json").read_text() == (one / "config.json").read_text()
    folder(other, 100.0)
    write_mean({str(one): 1, str(other): 3}, tmp_path / "mean")  # a run that goes on has what it began with
    torch.testing.assert_close(load_file(tmp_path / "mean" / "model.safetensors")["weight"], weights["weight"])


def test_what_does_not_fit_together_is_refused(tmp_path: Path) -> None:
    one, out = folder(tmp_path / "one", 1.0), tmp_path / "mean"
    with pytest.raises(ConfigError, match=r"mean_of: no model in '.*nothing'"):
        write_mean({str(one): 1, str(tmp_path / "nothing"): 1}, out)
    other = folder(tmp_path / "other", 1.0, tokens=b"cd")
    with pytest.raises(ConfigError, match="different tokens"):
        write_mean({str(one): 1, str(other): 1}, out)
    save_file({"weight": torch.zeros(3)}, other / "model.safetensors")
    with pytest.raises(ConfigError, match=r"other/model.safetensors is of another shape than .*one/"):
        write_mean({str(one): 1, str(other): 1}, out)
    assert not out.exists()
