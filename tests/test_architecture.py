"""Who may import whom, and other promises about the shape of the tree."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).parents[1]

# What each folder may import of the others, besides itself. A parent's name stands for the files in it, not for what is
# below: kernels <- speech <- {asr, tts} <- {translate, recipes}, and in speech
# nn <- audio, text <- runtime <- agent <- net <- commands.
NN = {"kernels", "speech/nn"}
RUNTIME = {*NN, "speech/audio", "speech/text", "speech/runtime"}
SPEECH = {*RUNTIME, "speech", "speech/policies"}
ASR = {*SPEECH, "asr", "asr/recordings"}
WHISPER = {*ASR, "asr/search", "asr/whisper", "asr/whisper/offline", "asr/whisper/live"}
CONFORMER = {*ASR, "asr/heads", "asr/search", "asr/conformer"}
TTS = {*SPEECH, "tts"}
TRANSLATE = {*SPEECH, "translate"}
TRAINING = {*SPEECH, "recipes", "recipes/loop", "recipes/data"}
NET_ROOMS = ("connections", "deepgram", "dialects", "openai", "operation", "sessions", "wyoming")
MAY_IMPORT = {
    "kernels": {"kernels/cpu", "kernels/gpu"},
    "kernels/cpu": {"kernels"},
    "kernels/gpu": {"kernels"},
    "speech/nn": NN,
    "speech/audio": NN,
    "speech/text": NN,
    "speech/lm": {*NN, "speech"},
    "speech/runtime": RUNTIME,
    "speech/policies": set(),
    "speech": {*RUNTIME, "speech/commands"},
    "speech/agent": {*RUNTIME, "speech"},
    "speech/net": {*SPEECH, "speech/agent", *(f"speech/net/{room}" for room in NET_ROOMS)},
    "speech/net/connections": {*SPEECH, "speech/net", "speech/net/operation"},
    "speech/net/deepgram": {*SPEECH, "speech/net", "speech/net/dialects"},
    "speech/net/dialects": {*SPEECH, "speech/net", "speech/net/openai"},
    "speech/net/openai": {*SPEECH, "speech/net"},
    "speech/net/wyoming": {*SPEECH, "speech/net", "speech/net/operation"},
    "speech/net/operation": {*SPEECH, "speech/net", "speech/net/openai"},
    "speech/net/sessions": {*SPEECH, "speech/net", "speech/net/connections"},
    "speech/corpus": SPEECH,
    "speech/commands": {
        *(*SPEECH, "speech/agent", "speech/corpus", "speech/net", "speech/net/operation"),
        *(f"speech/commands/{room}" for room in ("serving", "talking", "translation")),
    },
    "speech/commands/serving": {*SPEECH, "speech/commands", "speech/commands/translation", "speech/net/operation"},
    "speech/commands/talking": {*SPEECH, "speech/agent", "speech/commands"},
    "speech/commands/translation": {*SPEECH, "speech/commands"},
    "asr": {*ASR, "asr/speakers", "asr/whisper/offline", "asr/whisper/live"},
    "asr/recordings": SPEECH,
    "asr/heads": SPEECH,
    "asr/search": {*SPEECH, "asr/heads"},
    "asr/emission": SPEECH,
    "asr/whisper": WHISPER,
    "asr/whisper/offline": WHISPER,
    "asr/whisper/live": WHISPER,
    "asr/conformer": CONFORMER,
    "asr/speakers": ASR,
    "tts": {*TTS, "tts/frontend"},
    "tts/frontend": {*SPEECH, "tts/frontend/normalization", "tts/frontend/pronunciation"},
    "tts/frontend/normalization": SPEECH,
    "tts/frontend/pronunciation": {*SPEECH, "tts/frontend/normalization"},
    "tts/vocoder": TTS,
    "tts/hibari": {*TTS, "tts/vocoder"},
    "tts/flow": SPEECH,
    "tts/tokens": SPEECH,
    "tts/lm": {*SPEECH, "speech/lm", "tts/tokens"},
    "tts/cosyvoice": {*TTS, "speech/lm", "tts/flow", "tts/lm", "tts/tokens", "tts/vocoder"},
    "tts/flow_voice": {*TTS, "tts/flow", "tts/vocoder"},
    "translate": TRANSLATE,
    "translate/search": TRANSLATE,
    "translate/seq2seq": {*TRANSLATE, "translate/search"},
    "translate/non_autoregressive": {*TRANSLATE, "translate/search", "translate/seq2seq"},
    "translate/marian": {*TRANSLATE, "translate/search", "translate/seq2seq"},
    "translate/llm": {*TRANSLATE, "speech/lm", "translate/search"},
    "translate/whisper": {*TRANSLATE, *WHISPER},
    "translate/spoken": {*TRANSLATE, *WHISPER, "tts", "translate/whisper"},
    "translate/agents": {*TRANSLATE, "translate/spoken"},
    "translate/score": RUNTIME,
    "recipes": TRAINING,
    "recipes/loop": SPEECH,
    "recipes/data": {*SPEECH, "speech/corpus", "recipes/loop"},
    "recipes/whisper": {*TRAINING, *WHISPER, "asr/emission"},
    "recipes/conformer": {*TRAINING, *CONFORMER, "asr/emission", "asr/whisper"},
    "recipes/translation": {
        *(*TRAINING, "translate", "translate/score", "translate/seq2seq", "translate/non_autoregressive"),
    },
    "recipes/interpreter": {*TRAINING, "speech/lm", "recipes/translation", "translate", "translate/llm"},
    "recipes/voice": {*TRAINING, *TTS, "tts/flow", "tts/flow_voice", "tts/frontend", "tts/hibari", "tts/vocoder"},
    "recipes/commands": {*TRAINING, *CONFORMER, "recipes/conformer", "recipes/whisper"},
}
LAYERS = ("kernels", "speech", "asr", "tts", "translate", "recipes")
MOST_FILES = 20  # Python files in a folder
COMPILERS = {"numba", "llvmlite", "triton"}
SLOW_OR_OPTIONAL = {*COMPILERS, "peft", "transformers", "sounddevice", "starlette", "uvicorn"}
LONGEST_FILE = 500  # lines; most files have 100 to 400


def sources() -> list[PurePosixPath]:
    """Every Python file of the packages, relative to the root."""
    return [PurePosixPath(p.relative_to(ROOT)) for layer in LAYERS for p in sorted((ROOT / layer).rglob("*.py"))]


def tracked_files() -> list[PurePosixPath]:
    """Every file of the project: those in git, or without git all but hidden and generated ones."""
    listing = subprocess.run(["git", "-C", ROOT, "ls-files", "-z"], capture_output=True, text=True)
    if listing.returncode == 0:
        paths = [PurePosixPath(name) for name in listing.stdout.split("\0") if name]
    else:
        paths = [PurePosixPath(path.relative_to(ROOT)) for path in sorted(ROOT.rglob("*"))]
        generated = re.compile(r"\.(?!ci\b).+|build|dist|__pycache__|.+\.egg-info")
        paths = [path for path in paths if not any(generated.fullmatch(part) for part in path.parts)]
    return [path for path in paths if (ROOT / path).is_file()]


def text_of(path: PurePosixPath) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def imports_of(source: str, path: PurePosixPath) -> Iterator[tuple[str, int, bool]]:
    """The absolute name, line and laziness of everything imported, wherever it stands.

    Lazy means within a function or under `if TYPE_CHECKING`. `from .. import speech` counts as `loquent.speech`.
    """
    package = ["loquent", *path.parent.parts]

    def walk(node: ast.AST, lazy: bool) -> Iterator[tuple[str, int, bool]]:
        match node:
            case ast.Import(names=names):
                yield from ((alias.name, node.lineno, lazy) for alias in names)
            case ast.ImportFrom(module=module, names=names, level=level):
                base = package[: len(package) - level + 1] if level else []
                within = [*base, module] if module else base
                yield from ((".".join([*within, alias.name]), node.lineno, lazy) for alias in names)
            case ast.Call(func=func, args=[ast.Constant(value=str(name)), *_]):
                if ast.unparse(func).rpartition(".")[2] in ("import_module", "__import__"):
                    yield name, node.lineno, lazy
        lazy = lazy or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        unseen = node.body if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING") else []
        for child in ast.iter_child_nodes(node):
            yield from walk(child, lazy or child in unseen)

    yield from walk(ast.parse(source), False)


def module_name(path: PurePosixPath) -> str:
    parts = path.with_suffix("").parts
    return ".".join(("loquent", *(parts[:-1] if parts[-1] == "__init__" else parts)))


def owner(name: str, modules: Iterable[str]) -> str | None:
    """The module that an imported name belongs to: itself, or the one that it is an attribute of."""
    while name and name not in modules:
        name = name.rpartition(".")[0]
    return name or None


def folder_of(name: str, modules: Mapping[str, PurePosixPath]) -> str:
    """The folder of an imported name, as `MAY_IMPORT` writes it; of modules that do not exist, their parent."""
    module = owner(name, modules)
    if module in modules:
        return str(modules[module].parent)
    parts = name.split(".")[1:]
    return "/".join(parts[:-1]) or parts[0] if parts else ""


def import_faults(source: str, path: PurePosixPath, modules: Mapping[str, PurePosixPath]) -> list[str]:
    """The imports of a file that its folder is not allowed."""
    folder, faults = str(path.parent), []
    allowed = {folder, *MAY_IMPORT.get(folder, ())}
    for name, line, _ in imports_of(source, path):
        top, *rest = name.split(".")
        if top == "loquent" and (not rest or folder_of(name, modules) not in allowed):
            faults.append(f"{path}:{line} imports {name}; {folder} may import {', '.join(sorted(allowed))}")
        elif top in LAYERS:
            faults.append(f"{path}:{line} imports {name}; write loquent.{name}")
        elif top in COMPILERS and path.parts[0] != "kernels":
            faults.append(f"{path}:{line} imports {name}; only kernels may")
    return faults


def circles(files: Iterable[tuple[PurePosixPath, str]]) -> list[list[str]]:
    """Groups of modules that import each other, lazily or not (Tarjan 1972)."""
    sources = list(files)
    modules = {module_name(path) for path, _ in sources}
    graph = {
        module_name(path): {owner(name, modules) for name, *_ in imports_of(source, path)} - {None, module_name(path)}
        for path, source in sources
    }
    number: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(module: str) -> None:
        number[module] = lowest[module] = len(number)
        stack.append(module)
        for other in graph[module]:
            if other not in number:
                visit(other)
            if other in stack:
                lowest[module] = min(lowest[module], lowest[other])
        if lowest[module] == number[module]:
            at = stack.index(module)
            if len(stack) - at > 1:
                found.append(sorted(stack[at:]))
            del stack[at:]

    for module in graph:
        if module not in number:
            visit(module)
    return found


def compiler_faults(files: Iterable[tuple[PurePosixPath, str]]) -> list[str]:
    """Modules that load a compiler when they are imported; those in `kernels/cpu` and `kernels/gpu` may."""
    at_once = {
        module_name(path): {name for name, _, lazy in imports_of(source, path) if not lazy} for path, source in files
    }
    loading = {module for module, names in at_once.items() if {name.split(".")[0] for name in names} & COMPILERS}
    while more := {
        module
        for module, names in at_once.items()
        if module not in loading
        and any(name == other or name.startswith(f"{other}.") for name in names for other in loading)
    }:
        loading |= more
    return [
        f"importing {module} loads numba or triton: import it within a function"
        for module in sorted(loading)
        if not module.startswith(("loquent.kernels.cpu.", "loquent.kernels.gpu."))
    ]


def loaded_by(module: str, watched: Iterable[str]) -> set[str]:
    """Those of the watched top-level modules that importing `module` loads, in a fresh interpreter."""
    program = f"import sys, {module}; print(*(set({sorted(watched)!r}) & set(sys.modules)))"
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT / "tests", check=False
    )
    assert run.returncode == 0, run.stderr
    return set(run.stdout.split())


def packages_of(paths: Iterable[PurePosixPath]) -> set[str]:
    return {".".join(("loquent", *path.parent.parts)) for path in paths}


# Spelt so that this file does not contain what it looks for.
MACHINE_PATH = re.compile(r"(?<![\w.}])/(?:" + "|".join(("work", "root", "tmp")) + r")/")
REGISTRY_HOST = re.compile(
    r"\b(?:pythonhosted|registry\.npmjs|deb\.debian|download\.pytorch)\.org\b|\bpypi\.org/simple\b"
)


def machine_faults(text: str) -> list[str]:
    """Places of one machine that a text names: folders, and hosts that serve packages."""
    return MACHINE_PATH.findall(text) + REGISTRY_HOST.findall(text)


def test_folders_import_only_what_they_may() -> None:
    modules = {module_name(path): path for path in sources()}
    faults = [fault for path in sources() for fault in import_faults(text_of(path), path, modules)]
    assert not faults, "\n".join(faults)


def test_every_folder_says_what_it_may_import() -> None:
    assert {str(path.parent) for path in sources()} <= MAY_IMPORT.keys()


def test_no_circle_of_imports() -> None:
    assert circles((path, text_of(path)) for path in sources()) == []


def test_no_folder_is_a_heap() -> None:
    counts = Counter(path.parent for path in tracked_files() if path.suffix == ".py")
    assert not {str(folder): count for folder, count in counts.items() if count > MOST_FILES}


def test_compilers_are_imported_lazily() -> None:
    faults = compiler_faults([(path, text_of(path)) for path in sources()])
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize("module", ["loquent.speech", "loquent.asr"])
def test_importing_loads_nothing_slow_or_optional(module: str) -> None:
    assert loaded_by(module, SLOW_OR_OPTIONAL) == set()


def test_every_package_is_listed_in_pyproject() -> None:
    settings = tomllib.loads(text_of(PurePosixPath("pyproject.toml")))["tool"]
    found = packages_of(sources())
    assert set(settings["setuptools"]["packages"]) == found
    assert all(any(name == p or name.startswith(f"{p}.") for p in settings["mypy"]["packages"]) for name in found)


def test_namespace_packages_have_no_init() -> None:
    assert not (ROOT / "__init__.py").exists()
    assert not (ROOT / "kernels" / "__init__.py").exists()
    missing = {path.parent for path in sources() if path.parts[0] != "kernels"} - {
        path.parent for path in sources() if path.name == "__init__.py"
    }
    assert not missing, f"no __init__.py in {sorted(map(str, missing))}"


def test_no_file_is_too_long() -> None:
    python = [path for path in tracked_files() if path.suffix == ".py"]
    long = {str(path): n for path in python if (n := text_of(path).count("\n")) > LONGEST_FILE}
    assert not long, f"longer than {LONGEST_FILE} lines, split them: {long}"


def test_test_files_have_unique_names() -> None:
    names = [path.name for path in tracked_files() if path.parts[0] == "tests" and path.name.startswith("test_")]
    assert len(names) == len(set(names)), sorted({name for name in names if names.count(name) > 1})


def test_files_name_no_place_of_one_machine() -> None:
    faults = {}
    for path in tracked_files():
        content = (ROOT / path).read_bytes()
        if b"\0" not in content and (found := machine_faults(content.decode("utf-8"))):
            faults[str(path)] = found
    assert not faults


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("kernels/softmax.py", "import loquent.speech.nn.state"),
        ("kernels/softmax.py", "def f():\n    from loquent.speech.nn import state"),
        ("speech/net/server.py", "def f():\n    from loquent.asr.whisper.model import Whisper"),
        ("speech/net/server.py", "import importlib\nimportlib.import_module('loquent.asr')"),
        ("speech/net/server.py", "from loquent.speech.commands import serve"),
        ("speech/runtime/engine.py", "from loquent.speech.net import server"),
        ("speech/nn/state.py", "from ..audio import resample"),
        ("speech/commands/serve.py", "from ...asr.whisper import model"),
        ("speech/net/server.py", "from loquent import asr"),
        ("speech/net/server.py", "import loquent"),
        ("speech/net/server.py", "from speech import state"),
        ("asr/heads/ctc.py", "from ...tts import vocoder"),
        ("asr/whisper/model.py", "from loquent.asr.conformer.model import ConformerModel"),
        (
            "asr/conformer/model.py",
            "if TYPE_CHECKING:\n    import loquent.asr.whisper.model",
        ),
        ("recipes/conformer/recipe.py", "from loquent.recipes.commands.data import prepare"),
        ("asr/heads/ctc.py", "import loquent.recipes.train"),
        ("asr/heads/ctc.py", "def f():\n    import numba.core"),
        ("speech/nn/state.py", "from triton import language"),
    ],
)
def test_checker_finds_a_forbidden_import(path: str, source: str) -> None:
    modules = {module_name(path): path for path in sources()}
    assert len(import_faults(source, PurePosixPath(path), modules)) == 1


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("kernels/softmax.py", "import numba\nfrom loquent.kernels import registry\nfrom . import registry"),
        ("speech/nn/attention.py", "import torch\nfrom loquent.kernels.linear import linear\nfrom .state import State"),
        ("asr/whisper/live/task.py", "from ..model import Whisper\nfrom ....speech.nn import state"),
        ("speech/net/server.py", "import asrlib, kernelspace"),
    ],
)
def test_checker_allows_what_is_below(path: str, source: str) -> None:
    modules = {module_name(path): path for path in sources()}
    assert import_faults(source, PurePosixPath(path), modules) == []


def test_checker_finds_circles() -> None:
    files = {
        "speech/a.py": "from loquent.speech.b import f",
        "speech/b.py": "def f():\n    from loquent.speech import c",
        "speech/c.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .a import g",
        "speech/d.py": "from loquent.speech import a",
    }
    assert circles((PurePosixPath(path), source) for path, source in files.items()) == [
        ["loquent.speech.a", "loquent.speech.b", "loquent.speech.c"]
    ]


@pytest.mark.parametrize(
    ("source", "faults"),
    [
        ("from loquent.kernels.cpu.softmax import softmax", 2),
        ("from loquent.kernels.cpu import softmax", 2),
        ("from .cpu import softmax", 2),
        ("try:\n    import numba\nexcept ImportError:\n    numba = None", 2),
        ("def softmax(x):\n    from loquent.kernels.cpu.softmax import softmax\n    return softmax(x)", 0),
        ("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from numba import types", 0),
        ("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    pass\nelse:\n    from numba import types", 2),
    ],
)
def test_checker_follows_compilers_through_modules(source: str, faults: int) -> None:
    files = {
        "kernels/cpu/softmax.py": "from loquent.kernels.cpu.runtime import jit",
        "kernels/cpu/runtime.py": "import numba",
        "kernels/softmax.py": source,
        "speech/nn/attention.py": "from loquent.kernels.softmax import softmax",
    }
    assert len(compiler_faults([(PurePosixPath(path), text) for path, text in files.items()])) == faults


def test_checker_sees_what_is_loaded() -> None:
    assert loaded_by("json", ["json", "numba"]) == {"json"}


def test_checker_finds_places() -> None:
    for place in ("work", "root", "tmp"):
        assert machine_faults(f"open('/{place}/data')")
        assert not machine_faults(f"net/{place}/data /{place} home/{place}/")
    assert machine_faults("--index-url https://download.pytorch" + ".org/whl")
