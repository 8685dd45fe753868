"""The training loop: exact resumption, averaged weights, the best kept, a curve."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from loquent.recipes.loop.schedule import AveragedWeights, learning_rate
from loquent.recipes.loop.training import Training, TrainingError, TrainingOptions

OPTIONS = TrainingOptions(steps=23, learning_rate=0.05, warmup=3, log_every=2, evaluate_every=5, checkpoint_every=4)


@pytest.fixture(autouse=True)
def another_process() -> None:
    """Accelerate takes its settings once in a process."""
    AcceleratorState._reset_state(reset_partial_state=True)


class Regression(nn.Module):
    """A little network with dropout and running statistics: everything that resuming could get wrong."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 1))

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        loss = (self.layers(batch["x"])[:, 0] - batch["y"]).square().mean()
        return loss, {"root": loss.detach().sqrt()}


class Toy:
    """Learns y = x·w from random x; evaluated on other x."""

    judged_by = "error"

    def __init__(self, stop_at: int | None = None) -> None:
        torch.manual_seed(0)
        self.module, self.stop_at, self.made = Regression(), stop_at, 0

    def batches(self, epoch: int, rank: int, processes: int) -> list[int]:
        return list(range(7))

    def collate(self, items: Any, epoch: int) -> dict[str, Tensor]:
        self.made += 1
        if self.made == self.stop_at:
            os.kill(os.getpid(), signal.SIGTERM)
        x = torch.randn(16, 3, generator=torch.Generator().manual_seed(100 * epoch + items))
        return {"x": x, "y": x @ torch.tensor([1.0, -2.0, 0.5])}

    def evaluate(self) -> dict[str, float]:
        with torch.no_grad():
            loss, _ = self.module(self.collate(0, 99))
        return {"error": float(loss)}

    def save(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        save_file({name: p.detach().clone() for name, p in self.module.named_parameters()}, folder / "w.safetensors")

    def test(self, folder: Path) -> dict[str, float]:
        with torch.no_grad():
            for name, p in self.module.named_parameters():
                p.copy_(load_file(folder / "w.safetensors")[name])
        return self.evaluate()


def bits(folder: Path) -> dict[str, bytes]:
    """All weights of the last checkpoint and of the best export."""
    files = [*sorted(folder.glob("checkpoints/step-00000023/*.safetensors")), folder / "best" / "w.safetensors"]
    return {f"{file.name}/{name}": t.numpy().tobytes() for file in files for name, t in load_file(file).items()}


def lines(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(("accumulate", "start_share"), [(1, 0.0), (2, 0.0), (1, 0.3)])
def test_a_run_that_was_stopped_ends_with_the_same_bits(tmp_path: Path, accumulate: int, start_share: float) -> None:
    options = TrainingOptions(**{**vars(OPTIONS), "accumulate": accumulate, "start_share": start_share})
    whole = Training(Toy(), options, tmp_path / "whole", {"a": 1}).run()
    for stop_at in (6, 11):  # in the middle of an epoch, between two checkpoints
        assert Training(Toy(stop_at), options, tmp_path / "parts", {"a": 1}).run() is None
    parts = Training(Toy(), options, tmp_path / "parts", {"a": 1}).run()
    assert bits(tmp_path / "whole") == bits(tmp_path / "parts")
    assert whole == parts

    def curve(name: str) -> list[tuple[float, float]]:
        return [(line["step"], line["valid/error"]) for line in lines(tmp_path / name) if "valid/error" in line]

    assert curve("whole") == curve("parts")


def test_sigterm_is_as_before_afterwards(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    Training(Toy(), OPTIONS, tmp_path, {}).run()
    assert signal.getsignal(signal.SIGTERM) is before


def test_the_best_is_kept_and_tested(tmp_path: Path) -> None:
    figures = Training(Toy(), OPTIONS, tmp_path, {}).run()
    assert figures is not None
    curve = [line["valid/error"] for line in lines(tmp_path) if "valid/error" in line]
    assert len(curve) == 5  # every fifth step, and the last
    assert min(curve) < 0.5 * curve[0]
    assert json.loads((tmp_path / "results.json").read_text()) == figures
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["step-00000020", "step-00000023"]
    assert list(tmp_path.glob("events.out.tfevents.*"))


def test_workers_change_nothing(tmp_path: Path) -> None:
    Training(Toy(), OPTIONS, tmp_path / "none", {}).run()
    Training(Toy(), TrainingOptions(**{**vars(OPTIONS), "workers": 1}), tmp_path / "one", {}).run()
    assert bits(tmp_path / "none") == bits(tmp_path / "one")


def test_another_configuration_is_refused(tmp_path: Path) -> None:
    Training(Toy(), OPTIONS, tmp_path, {"a": 1}).run()
    with pytest.raises(TrainingError, match="holds a run of another configuration"):
        Training(Toy(), OPTIONS, tmp_path, {"a": 2})


def test_too_few_batches_are_refused(tmp_path: Path) -> None:
    options = TrainingOptions(**{**vars(OPTIONS), "accumulate": 8})
    with pytest.raises(TrainingError, match="an epoch has 7 batches for each process, fewer than accumulate=8"):
        Training(Toy(), options, tmp_path, {}).run()


class Poisoned(Toy):
    """Its third batch is not finite."""

    def collate(self, items: Any, epoch: int) -> dict[str, Tensor]:
        batch = super().collate(items, epoch)
        return {"x": batch["x"], "y": batch["y"] * float("inf")} if (epoch, items) == (0, 2) else batch


def test_a_batch_that_overflows_is_left_out(tmp_path: Path) -> None:
    figures = Training(Poisoned(), OPTIONS, tmp_path, {}).run()
    assert figures is not None
    assert figures["error"] < 5


@pytest.mark.filterwarnings("ignore:this processor")
def test_bfloat16(tmp_path: Path) -> None:
    options = TrainingOptions(**{**vars(OPTIONS), "precision": "bf16"})
    figures = Training(Toy(), options, tmp_path, {}).run()
    assert figures is not None
    assert figures["error"] < 5


def test_slow_bfloat16_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loquent.recipes.loop.training._multiplies_bf16", lambda: False)
    options = TrainingOptions(**{**vars(OPTIONS), "precision": "bf16"})
    with pytest.warns(RuntimeWarning, match=r"training\.precision=fp32 is several times as fast"):
        Training(Toy(), options, tmp_path, {})


def rates(schedule: Any, steps: Sequence[int], warmup: int = 10) -> list[float]:
    return [learning_rate(schedule, step, 100, warmup) for step in steps]


def test_schedules() -> None:
    for schedule in ("cosine", "noam", "constant"):
        assert rates(schedule, [0, 4, 9]) == [0.1, 0.5, 1.0]
    assert rates("cosine", [10, 55, 100]) == pytest.approx([1.0, 0.505, 0.01])
    assert rates("noam", [9, 39]) == pytest.approx([1.0, 0.5])
    assert rates("constant", [10, 99]) == [1.0, 1.0]
    assert rates("cosine", [0], warmup=0) == [1.0]


def test_averaged_weights() -> None:
    module = nn.Linear(1, 1, bias=False)
    module.weight.data.fill_(0.0)
    average = AveragedWeights(module, decay=0.9)
    module.weight.data.fill_(1.0)
    for _ in range(200):
        average.update()
    with average.in_place():
        assert float(module.weight.detach()) == pytest.approx(1.0, abs=1e-6)
    average.load({"weight": torch.tensor([[0.25]])}, updates=1000)
    module.weight.data.fill_(1.25)
    average.update()
    with average.in_place():
        assert float(module.weight.detach()) == pytest.approx(0.35)
    assert float(module.weight.detach()) == 1.25


def test_weights_from_the_start_are_mixed_in() -> None:
    module = nn.Linear(1, 1, bias=False)
    module.weight.data.fill_(2.0)
    average = AveragedWeights(module, decay=0.0, start_share=0.25)
    module.weight.data.fill_(6.0)
    average.update()
    with average.in_place():
        assert float(module.weight.detach()) == pytest.approx(5.0)
    assert float(module.weight.detach()) == 6.0
    for wrong in ({"start_share": 1.0}, {"start_share": -0.1}, {"start_share": 0.5, "average": 0.0}):
        with pytest.raises(ValueError, match="start_share must be from 0 to below 1"):
            TrainingOptions(steps=1, **wrong)
