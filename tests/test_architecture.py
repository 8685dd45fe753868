"""Who may import whom, and other promises about the shape of the tree."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).parents[1]

# What each folder may import of the others: kernels <- speech <- {asr, tts} <- {translate, recipes}.
MAY_IMPORT = {
    "kernels": {"kernels"},
    "speech": {"kernels", "speech"},
    "asr": {"kernels", "speech", "asr"},
    "tts": {"kernels", "speech", "tts"},
    "translate": {"kernels", "speech", "asr", "tts", "translate"},
    "recipes": {"kernels", "speech", "asr", "tts", "translate", "recipes"},
}
COMPILERS = {"numba", "llvmlite", "triton"}
SLOW_OR_OPTIONAL = {*COMPILERS, "peft", "transformers", "sounddevice", "starlette", "uvicorn"}
LONGEST_FILE = 500  # lines; most files have 100 to 400


def sources() -> list[PurePosixPath]:
    """Every Python file of the packages, relative to the root."""
    return [PurePosixPath(p.relative_to(ROOT)) for layer in MAY_IMPORT for p in sorted((ROOT / layer).rglob("*.py"))]


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


def layer_faults(source: str, path: PurePosixPath) -> list[str]:
    """The imports of a file that its folder is not allowed."""
    layer, faults = path.parts[0], []
    for name, line, _ in imports_of(source, path):
        top, *rest = name.split(".")
        if top == "loquent" and (not rest or rest[0] not in MAY_IMPORT[layer]):
            faults.append(f"{path}:{line} imports {name}; {layer} may import {', '.join(sorted(MAY_IMPORT[layer]))}")
        elif top in MAY_IMPORT:
            faults.append(f"{path}:{line} imports {name}; write loquent.{name}")
        elif top in COMPILERS and layer != "kernels":
            faults.append(f"{path}:{line} imports {name}; only kernels may")
    return faults


def module_name(path: PurePosixPath) -> str:
    parts = path.with_suffix("").parts
    return ".".join(("loquent", *(parts[:-1] if parts[-1] == "__init__" else parts)))


def compiler_faults(files: Iterable[tuple[PurePosixPath, str]]) -> list[str]:
    """Modules that load a compiler when they are imported, unless their name says so: `numba_…` and `triton_…`."""
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
        f"importing {module} loads numba or triton: import it within a function, or name the module for it"
        for module in sorted(loading)
        if not module.startswith(("loquent.kernels.numba_", "loquent.kernels.triton_"))
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


def test_layers_import_only_what_is_below_them() -> None:
    faults = [fault for path in sources() for fault in layer_faults(text_of(path), path)]
    assert not faults, "\n".join(faults)


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
        ("kernels/softmax.py", "import loquent.speech.state"),
        ("kernels/softmax.py", "def f():\n    from loquent.speech import state"),
        ("speech/server.py", "def f():\n    from loquent.asr.whisper import Whisper"),
        ("speech/server.py", "import importlib\nimportlib.import_module('loquent.asr')"),
        ("speech/commands/serve.py", "from ...asr import whisper"),
        ("speech/server.py", "from loquent import asr"),
        ("speech/server.py", "import loquent"),
        ("speech/server.py", "from speech import state"),
        ("asr/ctc.py", "from ..tts import vocoder"),
        ("tts/vocoder.py", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import loquent.asr"),
        ("translate/policy.py", "import loquent.recipes.train"),
        ("asr/ctc.py", "def f():\n    import numba.core"),
        ("speech/state.py", "from triton import language"),
    ],
)
def test_checker_finds_a_forbidden_import(path: str, source: str) -> None:
    assert len(layer_faults(source, PurePosixPath(path))) == 1


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("kernels/softmax.py", "import numba\nfrom loquent.kernels import backend\nfrom . import backend"),
        ("speech/attention.py", "import torch\nfrom loquent.kernels.softmax import softmax\nfrom .state import State"),
        ("asr/__init__.py", "from .whisper import Whisper\nfrom ..speech import state"),
        ("translate/task.py", "import loquent.asr.task, loquent.tts.task"),
        ("recipes/train.py", "from loquent import asr, tts, translate"),
        ("speech/server.py", "import asrlib, kernelspace"),
    ],
)
def test_checker_allows_what_is_below(path: str, source: str) -> None:
    assert layer_faults(source, PurePosixPath(path)) == []


@pytest.mark.parametrize(
    ("source", "faults"),
    [
        ("from loquent.kernels.numba_softmax import softmax", 2),
        ("from loquent.kernels import numba_softmax", 2),
        ("from . import numba_softmax", 2),
        ("try:\n    import numba\nexcept ImportError:\n    numba = None", 2),
        ("def softmax(x):\n    from loquent.kernels.numba_softmax import softmax\n    return softmax(x)", 0),
        ("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from numba import types", 0),
        ("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    pass\nelse:\n    from numba import types", 2),
    ],
)
def test_checker_follows_compilers_through_modules(source: str, faults: int) -> None:
    files = {
        "kernels/numba_softmax.py": "from loquent.kernels.numba_runtime import jit",
        "kernels/numba_runtime.py": "import numba",
        "kernels/softmax.py": source,
        "speech/attention.py": "from loquent.kernels.softmax import softmax",
    }
    assert len(compiler_faults([(PurePosixPath(path), text) for path, text in files.items()])) == faults


def test_checker_sees_what_is_loaded() -> None:
    assert loaded_by("json", ["json", "numba"]) == {"json"}


def test_checker_finds_places() -> None:
    for place in ("work", "root", "tmp"):
        assert machine_faults(f"open('/{place}/data')")
        assert not machine_faults(f"net/{place}/data /{place} home/{place}/")
    assert machine_faults("--index-url https://download.pytorch" + ".org/whl")
