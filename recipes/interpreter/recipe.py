"""The recipe of interpreters: a low-rank adapter that teaches a language model when to read and when to write."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from loquent.recipes.data.batching import BatchOptions, DurationBatches
from loquent.recipes.interpreter.examples import IGNORED, ChunkSizes, InterpreterExamples
from loquent.recipes.loop.config import ConfigError
from loquent.recipes.translation.corpus import ParallelText, read_pairs
from loquent.speech.lm.language_model import LanguageModel
from loquent.translate.llm.model import load_llm
from loquent.translate.llm.settings import ENTRY, INTERPRETER, LATENCIES, LanguageModelSettings

MOST_VALID = 200
ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
FEED_FORWARD = ("gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True)
class InterpreterDataOptions:
    """What is translated.

    source, target: codes of the languages.
    texts:          files of pairs.
    most_words:     of a sentence.
    most_pairs:     that are aligned and trained on.
    """

    source: str
    target: str
    texts: tuple[ParallelText, ...]
    most_words: int = 60
    most_pairs: int = 20_000


@dataclass(frozen=True)
class InterpreterAdapterOptions:
    """The low-rank update; the defaults are EAST's second stage.

    alpha: the update is scaled by alpha / rank.
    feed_forward: whether also the feed-forward layers are changed.
    """

    rank: int = 64
    alpha: int = 128
    feed_forward: bool = True


@dataclass(frozen=True)
class InterpreterConfig:
    """Data and model.

    model:  folder or GGUF file of a language model; see `load_llm`.
    before: text before the source, with {source}, {target} and {latency} in it.
    end_of_read, end_of_write: pieces of the model's vocabulary that become the marks; ones that no text has, such as
            tokens that were reserved. The embedding is not trained, so there can be no new ones.
    batch:  ``duration_s`` counts pieces.
    """

    data: InterpreterDataOptions
    model: str
    end_of_read: str
    end_of_write: str
    before: str = f"{INTERPRETER}\n"
    chunks: ChunkSizes = field(default_factory=ChunkSizes)
    adapter: InterpreterAdapterOptions = field(default_factory=InterpreterAdapterOptions)
    batch: BatchOptions = field(default_factory=BatchOptions)
    seed: int = 1


class InterpreterRecipe:
    """Trains an adapter; see `Recipe` for the interface. Source: EAST, Fu et al. 2025 (arXiv 2504.09570).

    Args:
        config: data and model.
        folder: of the run.
    """

    Config: ClassVar[type[InterpreterConfig]] = InterpreterConfig
    judged_by = "loss"

    def __init__(self, config: InterpreterConfig, folder: Path) -> None:
        from peft import LoraConfig

        from loquent.recipes.loop.low_rank import add_adapter

        self.config, data = config, config.data
        pairs, _, held_out = read_pairs(data.texts, data.most_words)
        pairs = pairs[: data.most_pairs]
        self.settings = LanguageModelSettings(
            data.source,
            data.target,
            "interleaved",
            before=config.before,
            end_of_read=config.end_of_read,
            end_of_write=config.end_of_write,
        )
        try:
            translator = load_llm(config.model, settings=self.settings)
        except (OSError, ValueError) as error:
            raise ConfigError(f"model: {error}") from error
        torch.manual_seed(config.seed)
        model = translator.decoding.model
        layers = [*ATTENTION, *(FEED_FORWARD if config.adapter.feed_forward else ())]
        options = LoraConfig(r=config.adapter.rank, lora_alpha=config.adapter.alpha, target_modules=layers)
        self.adapted = add_adapter(model, options)
        self.module: nn.Module = TrainedInterpreter(model)
        held_out = held_out[:MOST_VALID]
        self.examples = InterpreterExamples([*pairs, *held_out], translator, config.chunks, config.seed)
        self.valid = range(len(pairs), len(pairs) + len(held_out))
        lengths = [float(self.examples.length(item)) for item in range(len(pairs))]
        self._batches = DurationBatches(lengths, config.batch, config.seed)

    def batches(self, epoch: int, rank: int, processes: int) -> list[list[int]]:
        """Numbers of pairs."""
        return self._batches.epoch(epoch, rank, processes)

    def collate(self, items: Sequence[int], epoch: int) -> Mapping[str, Tensor]:
        """See `InterpreterExamples.batch`."""
        return self.examples.batch(items, epoch)

    def evaluate(self) -> dict[str, float]:
        """Cross-entropy of a piece, over all latencies in turn."""
        return self._judge(self.module)

    def save(self, folder: Path) -> None:
        """Write the adapter as PEFT does, with the settings beside it: a folder for `load_llm`."""
        folder.mkdir(parents=True, exist_ok=True)
        self.adapted.peft_config["default"].base_model_name_or_path = os.path.abspath(self.config.model)
        with tempfile.TemporaryDirectory(dir=folder) as unfinished:  # moved, so that no reader sees half a file
            self.adapted.save_pretrained(unfinished, save_embedding_layers=False)
            entry = {name: value for name, value in asdict(self.settings).items() if value is not None}
            (Path(unfinished) / "config.json").write_text(json.dumps({ENTRY: entry}, indent=2) + "\n", encoding="utf-8")
            for file in Path(unfinished).iterdir():
                os.replace(file, folder / file.name)

    def test(self, folder: Path) -> dict[str, float]:
        """The figures of validation of what was saved."""
        device = next(self.module.parameters()).device
        return self._judge(TrainedInterpreter(load_llm(folder, device=device).decoding.model).eval())

    def _judge(self, module: nn.Module) -> dict[str, float]:
        total, count, device = 0.0, 0.0, next(module.parameters()).device
        for at in range(0, len(self.valid), 8):
            some = self.valid[at : at + 8]
            batch = self.examples.of([(item, LATENCIES[item % len(LATENCIES)]) for item in some])
            loss, figures = module({name: value.to(device) for name, value in batch.items()})
            total += float(loss) * figures["pieces"]
            count += figures["pieces"]
        return {"loss": total / count}


class TrainedInterpreter(nn.Module):
    """The language model with its loss."""

    def __init__(self, model: LanguageModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Any]]:
        """The mean cross-entropy of a piece: of the source, the target and the marks."""
        hidden = self.model.model(self.model.model.embed_tokens(batch["given"]))
        wanted = batch["wanted"] != IGNORED
        loss = F.cross_entropy(self.model.scores(hidden[wanted]).float(), batch["wanted"][wanted])
        return loss, {"pieces": float(wanted.sum())}
