"""The training loop that all recipes share: on a CPU, a GPU or many, stopped and resumed without a trace.

All randomness of step n follows from the seed, n and the process, and so do the batches, so a checkpoint needs no
states of random generators: weights, their average, the optimizer and the step are all there is. A run that was stopped
and resumed ends with the same bits as one that was not.
"""

from __future__ import annotations

import contextlib
import json
import math
import signal
import sys
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from loquent.recipes.loop.checkpoints import Checkpoints
from loquent.recipes.loop.schedule import AveragedWeights, Schedule, learning_rate

if TYPE_CHECKING:
    from accelerate import Accelerator

EXIT_STOPPED = 128 + signal.SIGTERM


class TrainingError(ValueError):
    """Training cannot begin or go on; the message says what to do."""


@dataclass(frozen=True)
class TrainingOptions:
    """How long and how fast."""

    steps: int  # updates of the weights; with none what the run begins with is judged and kept
    learning_rate: float = 1e-3  # the highest
    schedule: Schedule = "cosine"
    warmup: int = 500  # steps
    weight_decay: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.98)
    accumulate: int = 1  # batches for each step
    clip_norm: float = 5.0
    average: float = 0.999  # decay of the averaged weights, which are evaluated and kept; 0 for none
    start_share: float = 0.0  # of the weights that the run began with, in those: fine-tuning forgets less
    precision: Literal["fp32", "bf16"] = "fp32"
    workers: int = 0  # processes that read and augment recordings
    log_every: int = 20  # steps
    evaluate_every: int = 500
    checkpoint_every: int = 500
    seed: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.start_share < 1 or (self.start_share and not self.average):
            raise ValueError(
                f"start_share must be from 0 to below 1, and goes with average above 0; got {self.start_share}"
            )


class Recipe(Protocol):
    """What is trained, on what, and how well it does."""

    module: nn.Module  # called with a batch; returns the loss, a scalar, and figures for the log
    judged_by: str  # which figure of `evaluate` chooses the best weights: the lowest wins

    def batches(self, epoch: int, rank: int, processes: int) -> Sequence[Any]:
        """What the batches of an epoch are made of, for this process."""

    def collate(self, items: Any, epoch: int) -> Mapping[str, Any]:
        """Make one batch, in this process or in a worker. Tensors in it are moved to the device."""

    def evaluate(self) -> dict[str, float]:
        """Figures on held-out data, with the module as it is."""

    def save(self, folder: Path) -> None:
        """Export what was trained, ready for use."""

    def test(self, folder: Path) -> dict[str, float]:
        """Figures of an export on the evaluation data; called once, at the end."""


class Training:
    """One run in a folder: ``checkpoints/`` to resume from, ``best/`` the export, ``log.jsonl``, ``curve.svg``.

    Args:
        recipe: what is trained.
        options: how.
        folder: of the run; if it holds checkpoints, the run goes on.
        config: the settings of the run, kept with it; resuming with others is refused.
    """

    def __init__(self, recipe: Recipe, options: TrainingOptions, folder: Path, config: Mapping[str, Any]) -> None:
        from accelerate import Accelerator
        from accelerate.utils import DistributedDataParallelKwargs

        self.recipe, self.options, self.folder = recipe, options, folder
        if options.precision == "bf16" and not _multiplies_bf16():
            message = "this processor cannot multiply bfloat16; training.precision=fp32 is several times as fast"
            warnings.warn(message, RuntimeWarning, stacklevel=2)
        self.accelerator: Accelerator = Accelerator(
            cpu=not torch.cuda.is_available(),  # without it several processes on CPUs would not find each other
            mixed_precision={"fp32": "no", "bf16": "bf16"}[options.precision],
            kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
        )
        self.checkpoints = Checkpoints(folder / "checkpoints")
        self.main = self.accelerator.is_main_process
        if self.main:
            folder.mkdir(parents=True, exist_ok=True)
            _keep_config(folder / "config.json", config)
        self.accelerator.wait_for_everyone()
        trained = [p for p in recipe.module.parameters() if p.requires_grad]
        if not trained:
            raise TrainingError("nothing to train: no parameter requires a gradient")
        optimizer = torch.optim.AdamW(
            _groups(trained, options.weight_decay), lr=options.learning_rate, betas=options.betas, foreach=True
        )
        self.module, self.optimizer = self.accelerator.prepare(recipe.module, optimizer)
        self.average = AveragedWeights(recipe.module, options.average, options.start_share)
        self.step, self.epoch, self.position = 0, 0, 0  # position: batches of this epoch that this process has had
        self.best = math.inf
        self._stopping = False

    def run(self) -> dict[str, float] | None:
        """`train`, then `test`; None if SIGTERM stopped the run on its way."""
        return self.test() if self.train() else None

    def train(self) -> bool:
        """Train to the end, where a run that was finished before already is; False if SIGTERM stopped it."""
        self._resume()
        with self._log() as log, self._stop_on_sigterm(), self._progress() as progress:
            if not self.options.steps:
                self._evaluate(log)
            for batches in self._stream():
                log.add(self._update(batches))
                progress.update()
                if self.step % self.options.log_every == 0:
                    means = log.means()
                    log.write(self.step, {"epoch": self.epoch, **means})
                    progress.set_postfix(loss=f"{means['loss']:.3f}")
                done = self.step == self.options.steps
                if self.step % self.options.evaluate_every == 0 or done:
                    progress.set_description("evaluating", refresh=True)
                    self._evaluate(log)
                    progress.set_description("training", refresh=False)
                stop = self._asked_to_stop()
                if self.step % self.options.checkpoint_every == 0 or done or stop:
                    self._save()
                if done:
                    break
                if stop:
                    return False
        return True

    def test(self) -> dict[str, float]:
        """Figures of the best weights on the evaluation data, once the run is finished.

        Only the first process has figures; the others return an empty mapping.
        """
        figures: dict[str, float] = {}
        if self.main:
            with torch.no_grad(), self._log() as log:
                figures = self.recipe.test(self.folder / "best")
                log.write(self.step, {f"test/{name}": value for name, value in figures.items()})
            self._draw()
            (self.folder / "results.json").write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
        self.accelerator.wait_for_everyone()
        return figures

    def _update(self, batches: Sequence[Any]) -> dict[str, Any]:
        """One step of the optimizer; returns its figures, some of which the device may still be at work on."""
        options = self.options
        share = learning_rate(options.schedule, self.step, options.steps, options.warmup)
        for group in self.optimizer.param_groups:
            group["lr"] = share * options.learning_rate
        torch.manual_seed(hash((options.seed, self.step, self.accelerator.process_index)) & (2**63 - 1))
        self.module.train()
        totals: dict[str, Any] = {"learning_rate": share * options.learning_rate}
        for number, batch in enumerate(batches):
            last = number == len(batches) - 1
            with _nothing() if last else self.accelerator.no_sync(self.module):
                loss, figures = self.module(batch)
                self.accelerator.backward(loss / len(batches))
            for name, value in {"loss": loss.detach(), **figures}.items():
                totals[name] = totals.get(name, 0.0) + value / len(batches)
        norm = self.accelerator.clip_grad_norm_(self.module.parameters(), options.clip_norm)
        if bool(torch.isfinite(norm)):  # a batch that overflows is left out
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.average.update()
        self.step += 1
        self.position += len(batches)
        return totals | {"grad_norm": norm}

    def _stream(self) -> Iterator[list[Any]]:
        """Batches for each remaining step, epoch after epoch. The last few of an epoch that make no step are left."""
        accelerator, accumulate = self.accelerator, self.options.accumulate
        while self.step < self.options.steps:
            items = self.recipe.batches(self.epoch, accelerator.process_index, accelerator.num_processes)
            if len(items) < accumulate:
                raise TrainingError(
                    f"an epoch has {len(items)} batches for each process, fewer than accumulate={accumulate}; "
                    "make batches smaller"
                )
            usable = len(items) // accumulate * accumulate
            loader: DataLoader[Any] = DataLoader(
                _Items(self.recipe, items[self.position : usable], self.epoch),
                batch_size=None,
                num_workers=self.options.workers,
            )
            gathered: list[Any] = []
            for batch in loader:
                gathered.append(_to_device(batch, accelerator.device))
                if len(gathered) == accumulate:
                    yield gathered
                    gathered = []
            self.epoch, self.position = self.epoch + 1, 0

    def _evaluate(self, log: _Log) -> None:
        """Judge the averaged weights, and export them if they are the best so far."""
        if self.main:
            self.recipe.module.eval()
            with torch.no_grad(), self._averaged():
                figures = self.recipe.evaluate()
                log.write(self.step, {f"valid/{name}": value for name, value in figures.items()})
                if figures[self.recipe.judged_by] < self.best:
                    self.best = figures[self.recipe.judged_by]
                    self.recipe.save(self.folder / "best")
            self._draw()
        self.accelerator.wait_for_everyone()

    def _draw(self) -> None:
        """Draw the curve so far, if matplotlib is there to draw it."""
        from loquent.recipes.loop.curve import draw_curve

        with contextlib.suppress(ImportError):
            draw_curve([self.folder / "log.jsonl"], self.folder / "curve.svg")

    def _averaged(self) -> Any:
        return self.average.in_place() if self.options.average else _nothing()

    def _save(self) -> None:
        if self.main:
            place = {"step": self.step, "epoch": self.epoch, "position": self.position, "best": self.best}
            self.checkpoints.save(self.step, self.recipe.module, self.average, self.optimizer.state_dict(), place)
        self.accelerator.wait_for_everyone()

    def _resume(self) -> None:
        found = self.checkpoints.load(self.recipe.module, self.average, self.accelerator.device)
        if found is not None:
            optimizer, place = found
            self.optimizer.load_state_dict(optimizer)
            self.step, self.epoch, self.position = place["step"], place["epoch"], place["position"]
            self.best = place["best"]

    @contextmanager
    def _stop_on_sigterm(self) -> Iterator[None]:
        """SIGTERM lets the step under way finish, and be kept."""

        def stop(*_: object) -> None:
            self._stopping = True

        before = signal.signal(signal.SIGTERM, stop)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)

    def _asked_to_stop(self) -> bool:
        if self.accelerator.num_processes == 1:
            return self._stopping
        flag = torch.tensor(float(self._stopping), device=self.accelerator.device)
        return bool(self.accelerator.reduce(flag, "sum") > 0)

    def _progress(self) -> Any:
        return tqdm(
            total=self.options.steps,
            initial=self.step,
            desc="training",
            unit="step",
            file=sys.stderr,
            disable=not self.main,
            mininterval=1,
        )

    @contextmanager
    def _log(self) -> Iterator[_Log]:
        log = _Log(self.folder, self.step) if self.main else _Log(None, self.step)
        try:
            yield log
        finally:
            log.close()


class _Items(torch.utils.data.Dataset[Any]):
    """The batches of an epoch for a `DataLoader`, which makes them in worker processes if it has any."""

    def __init__(self, recipe: Recipe, items: Sequence[Any], epoch: int) -> None:
        self.recipe, self.items, self.epoch = recipe, items, epoch

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Any:
        if index >= len(self.items):
            raise IndexError(index)
        return self.recipe.collate(self.items[index], self.epoch)


class _Log:
    """The curve: a line of JSON for each report, and the same for TensorBoard. Without a folder it forgets."""

    def __init__(self, folder: Path | None, step: int) -> None:
        self._sums: dict[str, Any] = {}
        self._counts: dict[str, int] = {}
        self._since = time.perf_counter()
        self._file = self._board = None
        if folder is None:
            return
        path = folder / "log.jsonl"
        kept = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
        kept = [line for line in kept if line.endswith("\n") and json.loads(line)["step"] <= step]
        path.write_text("".join(kept), encoding="utf-8")
        from torch.utils.tensorboard import SummaryWriter

        self._file = path.open("a", encoding="utf-8")
        self._board = SummaryWriter(str(folder), purge_step=step + 1 if step else None)

    def add(self, figures: Mapping[str, Any]) -> None:
        """Take in the figures of a step."""
        for name, value in figures.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
            self._counts[name] = self._counts.get(name, 0) + 1

    def means(self) -> dict[str, float]:
        """Means of the figures since the last call, and the seconds that a step took."""
        now = time.perf_counter()
        means = {name: float(total) / self._counts[name] for name, total in self._sums.items()}
        means["step_s"] = (now - self._since) / max(self._counts.values(), default=1)
        self._sums, self._counts, self._since = {}, {}, now
        return means

    def write(self, step: int, figures: Mapping[str, float]) -> None:
        """Add a line."""
        if self._file is None or self._board is None:
            return
        rounded = {name: float(f"{value:.6g}") for name, value in figures.items()}
        self._file.write(json.dumps({"step": step, "time": round(time.time(), 1), **rounded}) + "\n")
        self._file.flush()
        for name, value in figures.items():
            self._board.add_scalar(name if "/" in name else f"train/{name}", value, step)

    def close(self) -> None:
        if self._file is not None and self._board is not None:
            self._file.close()
            self._board.close()


def _multiplies_bf16() -> bool:
    """Whether this machine does so faster than one number at a time; Arm's libraries are not asked."""
    if torch.cuda.is_available() or not torch.backends.mkldnn.is_available():
        return True
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


@contextmanager
def _nothing() -> Iterator[None]:
    yield


def _groups(parameters: Sequence[nn.Parameter], decay: float) -> list[dict[str, Any]]:
    """Biases and scales of norms are not decayed."""
    matrices = [p for p in parameters if p.ndim >= 2]
    vectors = [p for p in parameters if p.ndim < 2]
    return [{"params": matrices, "weight_decay": decay}, {"params": vectors, "weight_decay": 0.0}]


def _to_device(batch: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    return {
        name: value.to(device, non_blocking=True) if isinstance(value, Tensor) else value
        for name, value in batch.items()
    }


def _keep_config(path: Path, config: Mapping[str, Any]) -> None:
    text = json.dumps(config, indent=2, sort_keys=True, default=str) + "\n"
    if not path.exists():
        path.write_text(text, encoding="utf-8")
    elif path.read_text(encoding="utf-8") != text:
        raise TrainingError(
            f"{path.parent} holds a run of another configuration, see {path.name} there; choose another folder"
        )
