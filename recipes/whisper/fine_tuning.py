"""The recipe that adapts a stock Whisper to one's own recordings: a voice, an accent, a domain and its words.

What is trained is a low-rank adapter of a few megabytes, as stock Whisper is used: on windows of up to 30 s, with
timestamps or without. The adapter is for recordings and live audio alike; where an adapter for live audio comes with
loquent for the model, the two are also stacked into one.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from loquent.asr.recognizer import Recognizer
from loquent.asr.whisper.lora import (
    AdapterInfo,
    adapter_info,
    base_digest,
    load_adapter,
    save_adapter,
)
from loquent.asr.whisper.model import Whisper
from loquent.asr.whisper.stacking import stack
from loquent.recipes.data.audio_folder import FolderOptions, LeftOut, read_folder
from loquent.recipes.data.augment import AugmentOptions, SpecAugmentOptions
from loquent.recipes.data.batching import BatchOptions
from loquent.recipes.data.dataset import read_noises
from loquent.recipes.data.held_out import first, held_out
from loquent.recipes.data.manifest import ManifestError, Utterance
from loquent.recipes.data.written_text import written
from loquent.recipes.whisper.adapter_options import AdapterOptions, stock_tokenizer, stock_whisper, with_adapter
from loquent.recipes.whisper.evaluation import live_error_rate, recordings_error_rate
from loquent.recipes.whisper.passages import Passage, PassageData, PassageOptions
from loquent.recipes.whisper.teacher_forcing import TeacherForcingLoss
from loquent.speech.hub import SHIPPED_ADAPTERS
from loquent.speech.text.languages import language_code

FEWEST = 5  # recordings
CONTROL_TOKENS = 8  # room for those that open a text, and its end
LEFT_OUT = "left_out.txt"


@dataclass(frozen=True)
class WhisperLoraConfig:
    """Data, model and loss."""

    data: FolderOptions
    model: str = "tiny.en"  # name, folder or hub id
    language: str = "en"  # code or English name, of the recordings
    sentences: bool = True  # texts are brought into Whisper's style: `written_text`
    adapter: AdapterOptions = field(default_factory=AdapterOptions)
    windows: PassageOptions = field(default_factory=PassageOptions)
    batch: BatchOptions = field(default_factory=BatchOptions)
    augment: AugmentOptions = field(default_factory=AugmentOptions)
    spec_augment: SpecAugmentOptions = field(default_factory=SpecAugmentOptions)
    test_recordings: int = 100  # that are measured, at most
    start: str | None = None  # adapter to go on from, of the same layers and ranks: folder or hub id
    seed: int = 1


class WhisperLoraRecipe:
    """Trains an adapter; see `Recipe` for the interface.

    Args:
        config: data, model and loss.
        folder: of the run.

    Raises:
        ManifestError: recordings are missing, or too few can be used.
    """

    Config = WhisperLoraConfig
    judged_by = "loss"  # a few held-out recordings have too few words for an error rate to choose by

    def __init__(self, config: WhisperLoraConfig, folder: Path) -> None:
        self.config, self.folder, self.language = config, folder, language_code(config.language)
        model = stock_whisper(config.model)
        self.tokenizer = stock_tokenizer(config.model, model)
        self.window_s, self.longest_text = model.config.n_audio_ctx / 50, model.config.n_text_ctx - CONTROL_TOKENS
        train, self.valid, self.tested = self._divided()
        noises = read_noises(config.augment)
        self.data = self._passages(train, config.windows, config.augment, noises)
        still = AugmentOptions(speed=(1.0, 1.0), gain_db=(0.0, 0.0), padding_s=(0.0, 0.0))
        alone = replace(config.windows, joined=0.0, timestamps=0.0, whole=0.0)
        self.held = self._passages(self.valid, alone, still, ())
        torch.manual_seed(config.seed)
        self.info = AdapterInfo(config.model, base_digest(model), self.language)
        self.live = live_adapter(model, self.language)
        self.adapted = with_adapter(model, config.adapter, config.start)
        self.module: nn.Module = TeacherForcingLoss(model, config.spec_augment)

    def batches(self, epoch: int, rank: int, processes: int) -> list[list[Passage]]:
        """Plans of windows."""
        return self.data.batches(epoch, rank, processes)

    def collate(self, items: Sequence[Passage], epoch: int) -> dict[str, Tensor]:
        """Recordings and texts."""
        return self.data.collate(items, epoch)

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """The loss on what was held out."""
        device = next(self.module.parameters()).device
        total, tokens = 0.0, 0
        for passages in self.held.batches(0):
            batch = {name: value.to(device) for name, value in self.held.collate(passages, 0).items()}
            count = int((batch["targets"] >= 0).sum())
            total, tokens = total + count * float(self.module(batch)[0]), tokens + count
        return {"loss": total / tokens}

    def save(self, folder: Path) -> None:
        """Write the adapter as PEFT does."""
        from loquent.recipes.whisper.low_rank import save

        save(self.adapted, folder, self.info)

    def test(self, folder: Path) -> dict[str, float]:
        """Error rates of the model without and with a saved adapter, on whole recordings and live.

        Where the model has an adapter for live audio, the stack of the two is written into ``live`` of the run's
        folder, and live audio is measured with it.
        """
        rows, language = first(self.tested, self.config.test_recordings), self.language
        figures: dict[str, float] = {}
        for when in ("before", "after"):
            recognizer = Recognizer.from_pretrained(self.config.model)
            live = recognizer
            if when == "after":
                recognizer.adapt(folder)
                if self.live is not None:
                    save_adapter(self.folder / "live", stack(load_adapter(self.live), load_adapter(folder)))
                    live = Recognizer.from_pretrained(self.config.model, adapter=self.folder / "live")
            figures[f"{when}/recordings/wer"] = recordings_error_rate(recognizer, rows, language, f"{when}: recordings")
            figures[f"{when}/live/wer"] = live_error_rate(live, rows, language, f"{when}: live")
        words = sum(len(row.text.split()) for row in rows)
        return figures | {"tested_recordings": len(rows), "tested_words": words}

    def _divided(self) -> tuple[list[Utterance], list[Utterance], list[Utterance]]:
        """Recordings to train on, to choose the best weights by, and to measure with.

        The folder's own splits if it has them; else those to choose and to measure with are the same.
        """
        data = self.config.data
        found, left_out = read_folder(data, self.language, self.window_s - 0.1)
        rows = []
        for row in found:
            text = written(row.text) if self.config.sentences and row.text.lower() != row.text.upper() else row.text
            if len(self.tokenizer.encode(" " + text)) > self.longest_text - 2:
                left_out.append(LeftOut(row.path, f"its text has more than {self.longest_text - 2} tokens; cut it"))
            elif row.language != self.language:
                left_out.append(LeftOut(row.path, f"it is in {row.language!r}, not in {self.language!r}"))
            else:
                rows.append(replace(row, text=text))
        _tell(left_out, self.folder)
        train, valid, tested = (
            [row for row in rows if (row.split or "train") == split] for split in ("train", "valid", "eval")
        )
        if len(train) < FEWEST:
            raise ManifestError(
                f"{data.folder} has {len(train)} recordings to train on; expected at least {FEWEST}, and better 30"
                + (f". {len(left_out)} were left out: {left_out[0].path}: {left_out[0].why}" if left_out else "")
            )
        if not valid:
            judging = held_out(train, data.held_out)
            valid, train = ([row for row in train if (row.id in judging) == held] for held in (True, False))
        return train, valid, tested or valid

    def _passages(
        self, rows: Sequence[Utterance], windows: PassageOptions, augment: AugmentOptions, noises: Sequence[Any]
    ) -> PassageData:
        config = self.config
        batch = replace(config.batch, duration_s=max(config.batch.duration_s, self.window_s))
        return PassageData(
            rows, self.tokenizer, self.window_s, self.longest_text, windows, batch, augment, noises, config.seed
        )


def live_adapter(model: Whisper, language: str) -> str | None:
    """Name of the adapter for live audio that comes with loquent for a model and a language, if there is one."""
    for name in SHIPPED_ADAPTERS:
        info = adapter_info(name)
        if info.base_digest == base_digest(model) and info.language == language:
            return name
    return None


def _tell(left_out: Sequence[LeftOut], folder: Path) -> None:
    """Warn of recordings that are left out, and list them in a file of the run."""
    if not left_out:
        return
    folder.mkdir(parents=True, exist_ok=True)
    (folder / LEFT_OUT).write_text("".join(f"{one.path}: {one.why}\n" for one in left_out), encoding="utf-8")
    shown = "; ".join(f"{one.path}: {one.why}" for one in left_out[:3])
    warnings.warn(
        f"{len(left_out)} recordings are left out, see {folder / LEFT_OUT}: {shown}{' …' if len(left_out) > 3 else ''}",
        RuntimeWarning,
        stacklevel=2,
    )
