"""Reads a Marian model that a user brings: a folder, or a file in one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from torch import Tensor

from loquent.speech.json_files import read_json_object
from loquent.speech.nn.skeleton import Skeletons
from loquent.speech.weight_files import check_weight
from loquent.translate.marian.config import MarianConfig
from loquent.translate.marian.containers import is_container, read_packed
from loquent.translate.marian.hugging_face import is_hugging_face, read_hugging_face
from loquent.translate.marian.languages import find_languages
from loquent.translate.marian.native import read_native
from loquent.translate.marian.network import MarianNetwork
from loquent.translate.marian.vocabulary import Vocabulary

MODELS = (".npz", ".bin")
MOST_VOCABULARY = 64 << 20  # bytes of a file


class Checkpoint(NamedTuple):
    """A network on the CPU, in evaluation mode, with its vocabularies and the codes of its languages."""

    network: MarianNetwork
    source: Vocabulary
    target: Vocabulary
    languages: tuple[str, str]


def is_marian(path: Path) -> bool:
    """Whether a file or a folder is a model that `read_checkpoint` reads."""
    return is_hugging_face(path) or bool(_containers(path))


def read_checkpoint(path: Path, source: str | None = None, target: str | None = None) -> Checkpoint:
    """Read a model.

    Args:
        path: the folder of a MarianMT model, or of one in Marian's files, or one of these files.
        source, target: codes of the languages, where neither the files nor their names say them.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: one is damaged, or not enough to go by; the message says what to do.
    """
    if is_hugging_face(path):
        languages = find_languages(path, source, target)
        config, weights = read_hugging_face(path)
        vocabularies = _numbered(path, languages, *_numbers_of_hugging_face(path))
    else:
        file = _only(_containers(path), path, "model file (.npz or .bin)")
        languages = find_languages(file, source, target)
        config, weights = read_native(file)
        vocabularies = _vocabularies(file, languages)
    for vocabulary, size in zip(vocabularies, (config.source_vocabulary, config.target_vocabulary), strict=True):
        if vocabulary.size > size:
            raise ValueError(f"{path}: its vocabulary has {vocabulary.size} pieces, but its network {size}")
    return Checkpoint(_network(path, config, weights), vocabularies[0], vocabularies[1], languages)


def _network(path: Path, config: MarianConfig, weights: Mapping[str, Any]) -> MarianNetwork:
    with Skeletons():  # memory for what the files say is asked for only where they hold it
        network = MarianNetwork(config)
    real: dict[int, Tensor] = {}
    state: dict[str, Tensor] = {}
    for name, place in network.state_dict().items():
        weight = weights[name]
        if id(weight) not in real:
            try:
                check_weight(name, weight, place.shape)
            except ValueError as error:
                raise ValueError(f"{path}: {error}") from error
            real[id(weight)] = weight.float()
        state[name] = real[id(weight)]
    network.load_state_dict(state, assign=True)
    if state["target_embedding"] is state["source_embedding"]:
        network.target_embedding = network.source_embedding
    if state["output"] is state["target_embedding"]:
        network.output = network.target_embedding
    return network.eval().requires_grad_(False)


def _containers(path: Path) -> list[Path]:
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    return [
        file for file in files if file.is_file() and set(file.suffixes[-2:]).intersection(MODELS) and is_container(file)
    ]


def _only(files: list[Path], path: Path, what: str) -> Path:
    if len(files) != 1:
        found = f"several: {', '.join(file.name for file in files)}; name the model's file" if files else "none"
        raise ValueError(f"{path}: expected one {what}, found {found}")
    return files[0]


def _numbers_of_hugging_face(folder: Path) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    source, target = folder / "vocab.json", folder / "target_vocab.json"
    return read_json_object(source), read_json_object(target if target.is_file() else source)


def _numbered(
    folder: Path, languages: tuple[str, str], source: Mapping[str, Any], target: Mapping[str, Any]
) -> list[Vocabulary]:
    """Vocabularies of ``source.spm`` and ``target.spm``, whose pieces have other numbers in the network."""
    return [
        _vocabulary(folder / "source.spm", languages[0], source),
        _vocabulary(folder / "target.spm", languages[1], target),
    ]


def _vocabularies(file: Path, languages: tuple[str, str]) -> list[Vocabulary]:
    """Those beside a model in Marian's files: as Firefox has them, or as OPUS-MT."""
    folder = file.parent
    if (folder / "source.spm").is_file():
        listed = _only([*sorted(folder.glob("*vocab.yml")), *sorted(folder.glob("*vocab.json"))], folder, "*.vocab.yml")
        numbers = _numbers(listed)
        return _numbered(folder, languages, numbers, numbers)
    files = sorted(one for one in folder.iterdir() if ".spm" in one.suffixes[-2:])
    own = [one for one in files if f".{''.join(languages)}." in one.name]
    files = own or files
    pair = [[one for one in files if one.name.startswith(side)] for side in ("src", "trg")]
    if not all(len(one) == 1 for one in pair):
        pair = [[_only(files, folder, "vocabulary (*.spm)")]] * 2
    return [_vocabulary(one[0], language) for one, language in zip(pair, languages, strict=True)]


def _vocabulary(file: Path, language: str, numbers: Mapping[str, Any] | None = None) -> Vocabulary:
    content = read_packed(file, MOST_VOCABULARY)
    try:
        return Vocabulary(content, language, numbers)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error


def _numbers(file: Path) -> Mapping[str, Any]:
    """Piece -> number, of YAML, of which JSON is a part."""
    try:
        # All values are strings then: a piece "no" stays one, and nothing that refers to itself is multiplied.
        loader = getattr(yaml, "CBaseLoader", yaml.BaseLoader)
        values = yaml.load(read_packed(file, MOST_VOCABULARY).decode(), loader)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{file} is not YAML: {error}") from error
    if not isinstance(values, dict) or not all(
        isinstance(one, str) and one.isdecimal() and len(one) < 9 for one in values.values()
    ):
        raise ValueError(f"{file} holds no pieces with their numbers")
    return {str(piece): int(value) for piece, value in values.items()}
