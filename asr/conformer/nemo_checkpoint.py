"""Reads and writes NeMo's `.nemo` files: streaming FastConformers with CTC, RNN-T or both, without NeMo.

A `.nemo` is a tar, in older files gzipped, of `model_config.yaml`, `model_weights.ckpt` and the tokenizer. Nothing is
unpacked to disk, nothing in it is executed, and no part may be larger than the file can account for.
"""

from __future__ import annotations

import dataclasses
import gzip
import io
import os
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any, Literal

import torch
import yaml
from torch import Tensor

from loquent.asr.conformer.model import ConformerModel, ConformerModelConfig
from loquent.asr.conformer.nemo_conversion import from_nemo, to_nemo
from loquent.asr.conformer.nemo_settings import Statistics
from loquent.asr.conformer.tokenizer import SubwordTokenizer
from loquent.speech.text.languages import language_code
from loquent.speech.weight_files import check_finite, check_stored, read_pytorch

CONFIG, WEIGHTS = "model_config.yaml", "model_weights.ckpt"
LARGEST_TEXT = 32 << 20  # bytes of settings or tokenizer; vocabularies of 100,000 words take a tenth
MOST_VALUES = 500_000  # of settings, with vocabularies
LARGEST_RATIO = 20  # unpacked to packed; weights compress to nine tenths, gzip can do a thousandth


@dataclass(frozen=True)
class NemoCheckpoint:
    """A model read from a `.nemo`; `build` makes it.

    Attributes:
        config: what `ConformerModel` is made of.
        weights: name -> weight on the CPU under `ConformerModel`'s names, in the file's type.
        tokenizer: the sentencepiece model.
        warnings: how the model differs from what NeMo makes of the file; usually none.
    """

    config: ConformerModelConfig
    weights: dict[str, Tensor]
    tokenizer: SubwordTokenizer
    warnings: tuple[str, ...]

    def build(self) -> ConformerModel:
        """The model, in evaluation mode and float32."""
        return ConformerModel.from_weights(self.config, self.weights)


def load_nemo(
    file: str | os.PathLike[str],
    feature_statistics: Statistics | Literal["running"] | None = None,
    language: str = "en",
) -> NemoCheckpoint:
    """Read a `.nemo`.

    Args:
        file: its path.
        feature_statistics: for a model trained on features normalised by mean and deviation of the whole recording
            (`per_feature`), which a stream does not have: "running" for those of the stream so far, or fixed ones of
            each mel bin. With either it streams, inexactly.
        language: what the model recognises, as code or English name; the file does not say.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged or unsafe, holds another kind of model, or one that cannot be streamed exactly; the
            message says which. Or the language is unknown.
    """
    language = language_code(language)
    path = Path(file)
    if not path.is_file():
        raise FileNotFoundError(f"no such file: {path}")
    try:
        with _opened(path) as archive:
            members = _members(archive)
            settings = _read_settings(archive, members)
            tokenizer = _read_tokenizer(archive, members, settings)
            weights = _read_weights(archive, members)
        config, converted, warnings = from_nemo(settings, weights, feature_statistics)
        if tokenizer.vocab_size != config.vocabulary:
            raise ValueError(
                f"the tokenizer has {tokenizer.vocab_size} tokens, the heads are for {config.vocabulary} and the blank"
            )
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise ValueError(f"{path} is truncated or not a .nemo file: {error}") from error
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return NemoCheckpoint(dataclasses.replace(config, language=language), converted, tokenizer, warnings)


def save_nemo(file: str | os.PathLike[str], model: ConformerModel, tokenizer: SubwordTokenizer) -> None:
    """Write a `.nemo` that NeMo's `restore_from` takes, with float32 weights; a file of that name is replaced.

    NeMo's own code can apply fixed feature statistics to one recording at a time only.

    Raises:
        ValueError: NeMo has no such model, or the tokenizer is not the model's.
    """
    if tokenizer.vocab_size != model.config.vocabulary:
        raise ValueError(f"the tokenizer has {tokenizer.vocab_size} tokens, the model {model.config.vocabulary}")
    settings, weights = to_nemo(model.config, model.state_dict())
    settings["tokenizer"] = {
        "dir": ".",
        "type": "bpe",  # NeMo's word for sentencepiece of any kind
        "model_path": "nemo:tokenizer.model",
        "vocab_path": "nemo:vocab.txt",
    }
    path = Path(file)
    partial = path.with_name(f"{path.name}.partial")
    with (
        tempfile.TemporaryFile(dir=path.parent) as stored,
        tarfile.open(partial, "w") as archive,
    ):
        torch.save(weights, stored)
        stored.flush()
        parts: dict[str, IO[bytes]] = {
            CONFIG: io.BytesIO(yaml.safe_dump(settings, sort_keys=False).encode()),
            "tokenizer.model": io.BytesIO(tokenizer.to_bytes()),
            "vocab.txt": io.BytesIO("".join(f"{piece}\n" for piece in tokenizer.pieces).encode()),
            WEIGHTS: stored,
        }
        for name, content in parts.items():
            entry = tarfile.TarInfo(name)
            entry.size = content.seek(0, os.SEEK_END)
            content.seek(0)
            archive.addfile(entry, content)
    os.replace(partial, path)


@contextmanager
def _opened(path: Path) -> Iterator[tarfile.TarFile]:
    """The tar, out of its gzip if it is in one."""
    with path.open("rb") as packed, tempfile.TemporaryFile() as unpacked:
        plain: IO[bytes] = packed
        if packed.read(2) == b"\x1f\x8b":
            packed.seek(0)
            limit = LARGEST_RATIO * path.stat().st_size + LARGEST_TEXT
            with gzip.open(packed) as content:
                while block := content.read(1 << 20):
                    unpacked.write(block)
                    if unpacked.tell() > limit:
                        raise ValueError(f"it unpacks to more than {limit} bytes, {LARGEST_RATIO} times its size")
            plain = unpacked
        plain.seek(0)
        with tarfile.open(fileobj=plain, mode="r:") as archive:
            yield archive


def _members(archive: tarfile.TarFile) -> dict[str, tarfile.TarInfo]:
    """Regular files by name, without the leading `./`."""
    members: dict[str, tarfile.TarInfo] = {}
    for entry in archive:
        name = str(PurePosixPath(entry.name))
        if name.startswith("model_weights/"):
            raise ValueError("its weights are a distributed checkpoint; let NeMo restore it and save it again")
        if entry.isreg() and not entry.issparse():
            if name in members:
                raise ValueError(f"{name} is in it twice")
            members[name] = entry
    return members


def _part(archive: tarfile.TarFile, members: Mapping[str, tarfile.TarInfo], name: str) -> IO[bytes]:
    if name not in members:
        raise ValueError(f"{name} is missing; found {', '.join(sorted(members)[:10]) or 'no files'}")
    stream = archive.extractfile(members[name])
    assert stream is not None  # a regular file
    return stream


def _small_part(archive: tarfile.TarFile, members: Mapping[str, tarfile.TarInfo], name: str) -> bytes:
    stream = _part(archive, members, name)
    if members[name].size > LARGEST_TEXT:
        raise ValueError(f"{name} has {members[name].size} bytes, expected {LARGEST_TEXT} at most")
    content = stream.read()
    if len(content) < members[name].size:
        raise EOFError(f"{name} is cut short")
    return content


def _read_settings(archive: tarfile.TarFile, members: Mapping[str, tarfile.TarInfo]) -> dict[str, Any]:
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the compiled one, ten times as fast, is optional
    try:
        settings = yaml.load(_small_part(archive, members, CONFIG), loader)
    except (yaml.YAMLError, RecursionError, UnicodeDecodeError) as error:
        raise ValueError(f"{CONFIG} is not YAML: {error}") from error
    if isinstance(settings, dict) and isinstance(settings.get("model"), dict):
        settings = settings["model"]
    if not isinstance(settings, dict):
        raise ValueError(f"{CONFIG} holds a {type(settings).__name__}, expected a mapping")
    _check_extent(settings)
    return settings


def _check_extent(settings: dict[str, Any]) -> None:
    """Refuse settings that are endless, or short only because they repeat parts of themselves (YAML's aliases)."""
    seen, waiting = 0, list[Any]([settings])
    while waiting:
        value = waiting.pop()
        parts = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
        seen += len(parts)
        if seen > MOST_VALUES:
            raise ValueError(f"{CONFIG} has more than {MOST_VALUES} values; aliases (&name, *name) may repeat them")
        waiting += parts


def _read_tokenizer(
    archive: tarfile.TarFile, members: Mapping[str, tarfile.TarInfo], settings: Mapping[str, Any]
) -> SubwordTokenizer:
    section = settings.get("tokenizer")
    if not isinstance(section, dict):
        raise ValueError("it has no tokenizer: models that spell with `labels` (characters) cannot be loaded")
    if section.get("type") != "bpe":
        raise ValueError(f"its tokenizer is of type {section.get('type')!r}, expected 'bpe' (sentencepiece)")
    reference = str(section.get("model_path", ""))
    # `nemo:` names a part of the archive; the oldest files name none and hold a `tokenizer.model`.
    name = reference.removeprefix("nemo:") if reference.startswith("nemo:") else "tokenizer.model"
    return SubwordTokenizer(_small_part(archive, members, str(PurePosixPath(name))))


def _read_weights(archive: tarfile.TarFile, members: Mapping[str, tarfile.TarInfo]) -> dict[str, Tensor]:
    stream = _part(archive, members, WEIGHTS)
    try:
        with zipfile.ZipFile(stream) as records:
            if any(record.compress_type != zipfile.ZIP_STORED for record in records.infolist()):
                raise ValueError(f"{WEIGHTS} is compressed, which PyTorch never does")
    except zipfile.BadZipFile as error:
        raise ValueError(f"{WEIGHTS} is truncated, or older than PyTorch 1.6: {error}") from error
    stream.seek(0)
    content = read_pytorch(stream, WEIGHTS)
    for name, weight in content.items():
        if not isinstance(weight, Tensor):
            raise ValueError(f"{WEIGHTS} holds {name!r}, which is no tensor")
        check_stored(name, weight)
        check_finite(name, weight)
    return content
