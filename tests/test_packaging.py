"""What is installed is what the tree says, and what the README and the gate promise can be typed."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from collections.abc import Iterable
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PACKAGES = PROJECT["tool"]["setuptools"]["packages"]
GATE = ROOT / ".ci" / "run"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this tree, built from a copy so that the tree stays as it is."""
    if find_spec("setuptools") is None or find_spec("pip") is None:
        pytest.skip("building a wheel takes pip and setuptools: pip install setuptools")
    copy = tmp_path_factory.mktemp("sources")
    for name in ("pyproject.toml", "README.md", "LICENSE", *{package.split(".")[1] for package in PACKAGES}):
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, copy)
    built = tmp_path_factory.mktemp("wheel")
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--wheel-dir",
        built,
        copy,
    ]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    (path,) = built.glob("*.whl")
    return path


def test_wheel_holds_exactly_the_packages(wheel: Path) -> None:
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    data = PROJECT["tool"]["setuptools"]["package-data"]
    expected = {
        path.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for pattern in ("*.py", "py.typed", *data.get(package, []))
        for path in ROOT.joinpath(*package.split(".")[1:]).glob(pattern)
    }
    assert names == {f"loquent/{name}" for name in expected}
    assert {"loquent/speech/assets/sample.flac", "loquent/speech/assets/sample.txt"} <= names
    assert {"loquent/asr/assets/commands/model.safetensors", "loquent/recipes/configs/commands.yaml"} <= names
    assert {f"loquent/{layer}/py.typed" for layer in ("kernels", "speech", "asr", "recipes")} <= names


def test_wheel_metadata(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        folder = f"loquent-{PROJECT['project']['version']}.dist-info"
        described = metadata.PathDistribution(zipfile.Path(archive, f"{folder}/"))
        assert described.version == PROJECT["project"]["version"]
        assert described.metadata["License-Expression"] == "Apache-2.0"
        assert f"{folder}/licenses/LICENSE" in archive.namelist()
        (script,) = described.entry_points
    assert (script.name, script.value) == ("loquent", "loquent.speech.commands.cli:main")


def test_wheel_imports_on_its_own(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path)
    program = (
        "import loquent.kernels.registry as kernels, loquent.speech as speech, loquent.asr as asr\n"
        "print(kernels.__file__, speech.__file__, asr.__file__, sep='\\n')"
    )
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}  # before an editable install of this tree
    command = [sys.executable, "-c", program]
    run = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert run.returncode == 0, run.stderr
    assert all(Path(line).is_relative_to(tmp_path) for line in run.stdout.splitlines())


def readme_commands() -> dict[str, str]:
    """The fenced blocks of the README that follow `<!-- command: NAME -->`."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    return dict(re.findall(r"^<!-- command: (\w+) -->\n```bash\n(.+?)\n```$", readme, re.MULTILINE | re.DOTALL))


def test_readme_commands_can_be_typed() -> None:
    commands = readme_commands()
    assert set(commands) == {"transcribe", "speak", "translate", "test", "agents", "ray"}
    text = "\n".join(commands.values())
    for extra in re.findall(r'"\.\[(.+?)\]"', text):
        assert set(extra.split(",")) <= set(PROJECT["project"]["optional-dependencies"])
    made = set(re.findall(r"-o (\S+)", text))
    for name in set(re.findall(r"\S+\.(?:flac|wav|py)\b", text)) - made:
        assert (ROOT / name).is_file()
    assert all("\n" not in command for command in commands.values())


def test_gate_runs_the_commands_of_the_readme() -> None:
    script = GATE.read_text(encoding="utf-8")
    assert GATE.stat().st_mode & 0o111
    assert set(re.findall(r"\$\(readme_command (\w+)\)", script)) == set(readme_commands())
    assert "pytest" not in script, "the README says how tests run, the gate repeats it"
    (function,) = re.findall(r"^readme_command\(\) \{.+?^\}", script, re.MULTILINE | re.DOTALL)
    for name, command in readme_commands().items():
        run = subprocess.run(
            ["bash", "-c", f"{function}\nreadme_command {name}"], capture_output=True, text=True, cwd=ROOT
        )
        assert run.stdout.strip() == command
    unknown = subprocess.run(["bash", "-c", f"{function}\nreadme_command nothing"], capture_output=True, cwd=ROOT)
    assert unknown.returncode != 0


def test_command_prints_the_installed_version() -> None:
    command = Path(sysconfig.get_path("scripts")) / "loquent"
    run = subprocess.run([command, "--version"], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout.split()[-1] == metadata.version("loquent") == PROJECT["project"]["version"]


def test_torch_and_torchaudio_are_a_pair() -> None:
    import torch
    import torchaudio

    assert torch.__version__.split("+")[0] == torchaudio.__version__.split("+")[0]
    pinned = {
        requirement.split("==")[0]: requirement.split("==")[1:] for requirement in PROJECT["project"]["dependencies"]
    }
    assert pinned["torch"] == pinned["torchaudio"] != []
    log_probs = torch.full((1, 3, 2), 0.5).log()  # a compiled operation answers
    path, _ = torchaudio.functional.forced_align(log_probs, torch.tensor([[1]], dtype=torch.int32))
    assert 1 in path


def distributions(requirements: Iterable[str]) -> set[str]:
    """Normalised names, with `loquent[extra]` replaced by what the extra asks for."""
    names = set()
    for requirement in requirements:
        name, extras = re.match(r"([\w.-]+)(?:\[(.+?)\])?", requirement).groups()
        if name == "loquent":
            names |= distributions(d for e in extras.split(",") for d in PROJECT["project"]["optional-dependencies"][e])
        else:
            names.add(normalised(name))
    return names


def normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def undeclared(sources: Iterable[str], declared: set[str]) -> set[str]:
    """Installed third-party modules that the sources import and no declared distribution provides."""
    providers = metadata.packages_distributions()
    imported = set()
    for source in sources:
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
                imported.add(node.module.split(".")[0])
    third_party = imported - set(sys.stdlib_module_names) - {"loquent"}
    return {
        name for name in third_party if name in providers and not {normalised(d) for d in providers[name]} & declared
    }


def texts_below(folder: str) -> list[str]:
    return [path.read_text(encoding="utf-8") for path in sorted((ROOT / folder).rglob("*.py"))]


def test_every_import_is_a_declared_dependency() -> None:
    extras = PROJECT["project"]["optional-dependencies"]
    runtime = distributions(PROJECT["project"]["dependencies"])
    for layer in sorted({package.split(".")[1] for package in PACKAGES}):
        extra = {
            "speech": ",ray,talk",
            "recipes": ",train",
            "tts": ",hibari,cosyvoice",
            "translate": ",translate-score,agents",
        }.get(layer, "")
        allowed = runtime | distributions([f"loquent[tiny-en,base{extra}]"])
        assert undeclared(texts_below(layer), allowed) == set()
    assert undeclared(texts_below("tests"), runtime | distributions(extras["test"])) == set()
    assert undeclared(texts_below("benchmarks"), runtime | distributions(extras["benchmark"] + extras["test"])) == set()


def test_checker_finds_an_undeclared_import() -> None:
    assert undeclared(["def f():\n    import pytest.mark"], {"torch"}) == {"pytest"}
    assert undeclared(["from torch import nn\nimport os, loquent.speech"], {"torch"}) == set()
