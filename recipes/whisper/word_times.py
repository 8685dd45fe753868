"""When each word of the training data was said: found once by a stock Whisper, kept in files, read by every run."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F
from tqdm import tqdm

from loquent.asr.whisper.alignment import AlignedWord, align
from loquent.asr.whisper.beam_search import DecodingOptions
from loquent.asr.whisper.offline.decoding import WindowDecoder
from loquent.recipes.data.manifest import SAMPLE_RATE, Utterance
from loquent.recipes.data.written_text import written
from loquent.recipes.whisper.adapter_options import stock_tokenizer, stock_whisper
from loquent.speech.audio.features import WhisperLogMel, normalize_window

HOP = 160  # samples of a mel frame
TRAILING_SILENCE = 100  # mel frames: word times are those of a window of 30 s to within 0.1 s for 95 % of words


@dataclass(frozen=True)
class WordTimesOptions:
    """The models that find times and texts, where these are kept, and which of them are plausible."""

    folder: str = ""  # by default in the user's cache folder
    aligner: str = "tiny.en"  # the Whisper whose cross-attention times the words
    transcriber: str = "base"  # the Whisper that writes the texts of sources with ``pseudo: true``
    find: bool = True  # what is not known yet, before training; without, recordings that have no times are left out
    longest_s: float = 29.0  # longer recordings are left out
    least_probability: float = 0.02  # of a text's words to the aligner, as their geometric mean
    words_per_second: float = 7.0  # at most
    longest_word_s: float = 3.0


@dataclass(frozen=True)
class TimedText:
    """What an utterance is taken to say: words with leading spaces, their times in seconds, how probable they are."""

    words: tuple[tuple[str, float, float], ...]
    probability: float  # geometric mean over the words

    @property
    def text(self) -> str:
        """The words as one text."""
        return "".join(word for word, _, _ in self.words)

    @property
    def spoken(self) -> list[tuple[str, float, float]]:
        """The words without punctuation, which takes what silence the words leave."""
        return [word for word in self.words if any(character.isalnum() for character in word[0])]

    def plausible(self, duration: float, options: WordTimesOptions) -> bool:
        """Whether the text is likely to be what was said, and the times to be right."""
        words = self.spoken
        return (
            bool(words)
            and self.probability >= options.least_probability
            and len(words) <= options.words_per_second * duration + 1
            and max(end - start for _, start, end in words) <= options.longest_word_s
        )


class WordTimes:
    """Files of timed texts, ``<set>.jsonl`` and ``<set>.<shard>.jsonl``, in a folder of the aligner's own.

    Args:
        options: the folder and the models.
    """

    def __init__(self, options: WordTimesOptions) -> None:
        self.options = options
        self.folder = Path(options.folder or _default_folder()) / options.aligner.replace("/", "--")

    def read(self, rows: Iterable[Utterance], pseudo: bool) -> dict[str, TimedText]:
        """What is known of utterances, by their ids; texts that have changed since are not."""
        known: dict[str, TimedText] = {}
        wanted = {row.id: _key(row, pseudo, self.options) for row in rows}
        for name in sorted({identifier.partition("/")[0] for identifier in wanted}):
            for file in sorted(self.folder.glob(f"{name}.jsonl")) + sorted(self.folder.glob(f"{name}.*.jsonl")):
                for line in file.read_bytes().splitlines():
                    try:
                        entry = json.loads(line)
                    except ValueError:
                        continue  # half a line of a process that was killed
                    if wanted.get(entry["id"]) == entry["of"]:
                        words = tuple((word, start, end) for word, start, end in entry["words"])
                        known[entry["id"]] = TimedText(words, entry["probability"])
        return known

    def prepare(self, rows: Sequence[Utterance], pseudo: bool = False, shard: tuple[int, int] = (0, 1)) -> None:
        """Find and keep what is not known yet, with a progress bar.

        Args:
            rows: of any sets.
            pseudo: write the texts as well, with the transcriber, whatever the rows say.
            shard: (index, count): work on every count-th utterance only.
        """
        known = self.read(rows, pseudo)
        rows = [row for row in rows if row.duration <= self.options.longest_s]
        missing = [row for row in rows[shard[0] :: shard[1]] if row.id not in known]
        if not missing:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        ending = ".jsonl" if shard[1] == 1 else f".{shard[0]}-{shard[1]}.jsonl"
        with tqdm(total=len(missing), desc="word times", unit="rec", file=sys.stderr, mininterval=2) as progress:
            for row in missing:
                samples = row.samples()[: int(self.options.longest_s * SAMPLE_RATE)]
                text = self._transcribe(samples, row.language) if pseudo else written(row.text)
                words = self._align(samples, text, row.language)
                logs = [math.log(max(word.probability, 1e-6)) for word in words]
                entry = {
                    "id": row.id,
                    "of": _key(row, pseudo, self.options),
                    "words": [[word.text, round(word.start, 2), round(word.end, 2)] for word in words],
                    "probability": round(math.exp(sum(logs) / len(logs)), 5) if logs else 0.0,
                }
                file = self.folder / f"{row.id.partition('/')[0]}{ending}"
                _append(file, json.dumps(entry, ensure_ascii=False))
                progress.update()

    @cached_property
    def _align(self) -> _Aligner:
        return _Aligner(self.options.aligner)

    @cached_property
    def _transcribe(self) -> _Transcriber:
        return _Transcriber(self.options.transcriber)


class _Whisper:
    """A stock model for one window at a time."""

    def __init__(self, name: str) -> None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
        self.model = stock_whisper(name).to(device)
        self.tokenizer = stock_tokenizer(name, self.model)
        self.decoder = WindowDecoder(self.model, self.tokenizer)
        self._features = WhisperLogMel(self.model.config.n_mels)

    def encode(self, samples: Any, frames: int) -> Any:
        """Memory of one window that is padded with silence to ``frames`` mel frames."""
        padded = F.pad(torch.from_numpy(samples), (0, max(frames * HOP - len(samples), 0)))
        return self.decoder.encode([normalize_window(self._features(padded[None]))[0, :frames]])


class _Aligner(_Whisper):
    @torch.inference_mode()
    def __call__(self, samples: Any, text: str, language: str) -> list[AlignedWord]:
        tokens = self.tokenizer.encode(" " + text) if text else []
        frames = len(samples) // HOP
        window = self.decoder.window
        if not tokens or not frames or len(tokens) > self.model.config.n_text_ctx - 8:
            return []
        memory = self.encode(samples, min(frames + TRAILING_SILENCE, window))
        heard = (min(frames, window) + 1) // 2
        return align(self.model, self.tokenizer, memory, [0], [tokens], [language], [heard])[0]


class _Transcriber(_Whisper):
    @torch.inference_mode()
    def __call__(self, samples: Any, language: str) -> str:
        memory = self.encode(samples, self.decoder.window)
        options = DecodingOptions(language=language, without_timestamps=True)
        return self.decoder.decode(memory, [0], [options])[0].text.strip()


def _key(row: Utterance, pseudo: bool, options: WordTimesOptions) -> str:
    """What timed texts were made from: they are found again when the text or the transcriber has changed."""
    return f"<{options.transcriber}>" if pseudo else written(row.text)


def _append(file: Path, line: str) -> None:
    """Add a line; half a line that a killed process left is ended first."""
    with file.open("ab+") as stream:
        if stream.tell():
            stream.seek(-1, os.SEEK_END)
            if stream.read(1) != b"\n":
                stream.write(b"\n")
        stream.write(line.encode() + b"\n")


def _default_folder() -> Path:
    from platformdirs import user_cache_path

    return user_cache_path("loquent") / "word_times"
