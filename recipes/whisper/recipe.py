"""The recipe of causal Whisper: low-rank adapters that make any Whisper checkpoint a streaming recogniser.

The weights of the checkpoint stay as they are. What is trained is a few MB in PEFT's format, for all chunk sizes at
once: the encoder learns to do without future frames, the decoder to write the words spoken so far and then to stop.
Source: arXiv 2508.12301.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from loquent.asr.whisper.lora import AdapterInfo, LoraAdapter, base_digest, load_adapter, merge
from loquent.recipes.data.augment import AugmentOptions
from loquent.recipes.data.batching import BatchOptions
from loquent.recipes.data.dataset import SourceOptions, read_noises, read_source
from loquent.recipes.data.held_out import first, held_out
from loquent.recipes.data.manifest import ManifestError, Utterance, select
from loquent.recipes.whisper.adapter_options import AdapterOptions, stock_tokenizer, stock_whisper, with_adapter
from loquent.recipes.whisper.evaluation import evaluate_streaming
from loquent.recipes.whisper.loss import CausalWhisperLoss, LossOptions
from loquent.recipes.whisper.windows import TimedUtterance, Window, WindowData, WindowOptions
from loquent.recipes.whisper.word_times import WordTimes, WordTimesOptions


@dataclass(frozen=True)
class LabelledSource(SourceOptions):
    """Some rows of a manifest, and where their texts come from."""

    pseudo: bool = False  # texts are written by a larger Whisper, whatever the rows say
    machine_weight: float = 1.0  # weight of rows whose text a machine wrote, times ``weight``


@dataclass(frozen=True)
class DataOptions:
    """Sources by name; error rates are told apart by these names."""

    train: dict[str, LabelledSource]
    test: dict[str, LabelledSource]
    word_times: WordTimesOptions = field(default_factory=WordTimesOptions)
    held_out: float = 0.05  # share of the training speakers (see `held_out`) whose recordings choose the best
    valid_recordings: int = 12  # of each source that are held out, with human texts
    test_recordings: int | None = None  # of each source; all by default


@dataclass(frozen=True)
class CausalWhisperConfig:
    """Data, model and loss."""

    data: DataOptions
    model: str = "tiny.en"  # name, folder or hub id
    language: str | None = "en"  # of the adapter, and of the rows it is trained on; None for several
    adapter: AdapterOptions = field(default_factory=AdapterOptions)
    loss: LossOptions = field(default_factory=LossOptions)
    windows: WindowOptions = field(default_factory=WindowOptions)
    batch: BatchOptions = field(default_factory=BatchOptions)
    augment: AugmentOptions = field(default_factory=AugmentOptions)
    evaluate_ms: tuple[int, ...] = (100, 300, 1000)
    frozen: Literal["fp32", "bf16"] = "fp32"  # precision of the checkpoint's weights, and of the layers' outputs
    start: str | None = None  # adapter to go on from: folder, hub id, or "loquent/live-tiny.en"
    seed: int = 1


class CausalWhisperRecipe:
    """Trains an adapter; see `Recipe` for the interface.

    Args:
        config: data, model and loss.
        folder: of the run.
    """

    Config = CausalWhisperConfig
    judged_by = "loss"  # a few held-out recordings have too few words for an error rate to choose by

    def __init__(self, config: CausalWhisperConfig, folder: Path) -> None:
        self.config = config
        model = stock_whisper(config.model)
        self.tokenizer = stock_tokenizer(config.model, model)
        if config.data.word_times.find:
            prepare(config)
        train, self.valid = self._divided()
        noises = read_noises(config.augment)
        context = model.config.n_text_ctx // 4  # as in streaming
        self.data = WindowData(
            train, self.tokenizer, config.windows, config.batch, config.augment, noises, config.seed, context
        )
        torch.manual_seed(config.seed)
        loss = config.loss
        self.info = AdapterInfo(config.model, base_digest(model), config.language, loss.chunk_ms, loss.block_ms)
        model = model.to(torch.bfloat16) if config.frozen == "bf16" else model
        self.adapted = with_adapter(model, config.adapter, config.start)
        self.loss = CausalWhisperLoss(model, self.tokenizer.eot, config.loss)
        self.module: nn.Module = self.loss

    def batches(self, epoch: int, rank: int, processes: int) -> list[list[Window]]:
        """Plans of windows."""
        return self.data.batches(epoch, rank, processes)

    def collate(self, items: Sequence[Window], epoch: int) -> dict[str, Any]:
        """Recordings and transcripts."""
        return self.data.collate(items, epoch)

    def evaluate(self) -> dict[str, float]:
        """Streaming error rates and delays on what was held out; the loss at each chunk size, and its mean."""
        figures = self._streaming(self.adapter, self.valid)
        losses = self._losses()
        return figures | losses | {"loss": statistics.fmean(losses.values())}

    def save(self, folder: Path) -> None:
        """Write the adapter as PEFT does."""
        from loquent.recipes.whisper.low_rank import save

        save(self.adapted, folder, self.info)

    @property
    def adapter(self) -> LoraAdapter:
        """What has been trained."""
        from loquent.recipes.whisper.low_rank import trained_adapter

        return trained_adapter(self.adapted, self.info)

    def test(self, folder: Path) -> dict[str, float]:
        """Streaming error rates and delays of a saved adapter on the test sources."""
        data = self.config.data
        sources = {}
        for name, source in data.test.items():
            rows = first(select(_rows(source, "eval", self.config), human_text=True), data.test_recordings)
            WordTimes(data.word_times).prepare(rows)
            sources[name] = _timed(rows, source, data.word_times, only_plausible=False)
        return self._streaming(load_adapter(folder), sources)

    def _streaming(self, adapter: LoraAdapter, sources: Mapping[str, Sequence[TimedUtterance]]) -> dict[str, float]:
        model = stock_whisper(self.config.model).to(next(self.module.parameters()).device)
        merge(model, adapter)
        return evaluate_streaming(model, self.tokenizer, sources, self.config.evaluate_ms, adapter.info.block_ms)

    def _divided(self) -> tuple[list[tuple[list[TimedUtterance], float]], dict[str, list[TimedUtterance]]]:
        """What to train on, with weights, and what is held out."""
        data = self.config.data
        train: list[tuple[list[TimedUtterance], float]] = []
        valid = {}
        timed = {
            name: _timed(_rows(source, "train", self.config), source, data.word_times)
            for name, source in data.train.items()
        }
        all_rows = [one.row for utterances in timed.values() for one in utterances]
        judging = held_out(all_rows, data.held_out) if len(all_rows) > 1 else set()
        for name, source in data.train.items():
            utterances = timed[name]
            held = [one for one in utterances if one.row.id in judging]
            kept = [one for one in utterances if one.row.id not in judging]
            human = {row.id for row in select([one.row for one in utterances], human_text=not source.pseudo)}
            train.append(([one for one in kept if one.row.id in human], source.weight))
            train.append(([one for one in kept if one.row.id not in human], source.weight * source.machine_weight))
            if not source.pseudo:
                rows = first([one.row for one in held if one.row.id in human], data.valid_recordings)
                chosen = {row.id for row in rows}
                valid[name] = [one for one in held if one.row.id in chosen]
        valid = {name: utterances for name, utterances in valid.items() if utterances}
        if not valid or not any(utterances for utterances, _ in train):
            raise ManifestError(
                f"held_out={data.held_out} leaves nothing to train on or nothing to judge by; it needs texts by humans "
                "and word times that are plausible"
            )
        return train, valid

    @torch.no_grad()
    def _losses(self) -> dict[str, float]:
        held = [one for utterances in self.valid.values() for one in utterances]
        options = replace(self.config.windows, joined=0.0, continued=0.0, noise_only=0.0, level_db=(0.0, 0.0))
        still = AugmentOptions(speed=(1.0, 1.0), gain_db=(0.0, 0.0), padding_s=(0.0, 0.0))
        data = WindowData([(held, 1.0)], self.tokenizer, options, self.config.batch, still, (), 0, 0)
        device = next(self.module.parameters()).device
        figures = {}
        for size in self.config.evaluate_ms:
            losses = []
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(self.config.seed)
                for windows in data.batches(0):
                    batch: dict[str, Any] = {**data.collate(windows, 0), "chunk_ms": size}
                    for name in ("samples", "length"):
                        batch[name] = batch[name].to(device)
                    losses.append(float(self.loss(batch)[1]["tokens"]))
            figures[f"{size}ms/loss"] = sum(losses) / len(losses)
        return figures


def prepare(config: CausalWhisperConfig, shard: tuple[int, int] = (0, 1)) -> None:
    """Find the word times of the training data that are not known yet; see `WordTimes.prepare`."""
    times = WordTimes(config.data.word_times)
    for source in config.data.train.values():
        times.prepare(_rows(source, "train", config), source.pseudo, shard)


def _rows(source: SourceOptions, split: str, config: CausalWhisperConfig) -> list[Utterance]:
    return read_source(replace(source, language=source.language or config.language), (), split)


def _timed(
    rows: Sequence[Utterance], source: LabelledSource, options: WordTimesOptions, only_plausible: bool = True
) -> list[TimedUtterance]:
    known = WordTimes(options).read(rows, source.pseudo)
    utterances = [TimedUtterance(row, known[row.id]) for row in rows if row.id in known]
    if not only_plausible:
        return utterances
    return [one for one in utterances if one.timed.plausible(one.row.duration, options)]
