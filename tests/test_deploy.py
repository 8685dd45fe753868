"""The files for running a server: settings that it takes, metrics that it has, folders that there are."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
import yaml

from loquent.speech.commands.cli import _parsed
from loquent.speech.net.metrics import Metrics

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "examples" / "deploy"


@pytest.mark.parametrize("path", sorted(DEPLOY.rglob("*.yaml")), ids=lambda path: path.name)
def test_yaml_can_be_read(path: Path) -> None:
    assert isinstance(yaml.safe_load(path.read_text("utf-8")), dict)


def test_the_server_takes_its_settings() -> None:
    arguments = _parsed(["serve", "--config", str(DEPLOY / "serve.yaml")])
    assert (arguments.host, arguments.log_format, arguments.speak) == ("0.0.0.0", "json", "none")
    assert arguments.limits["max_duration_s"] == 14400


def test_the_dashboard_shows_metrics_that_there_are() -> None:
    registry = Metrics().registry
    known = {sample for family in registry.collect() for sample in _samples(family.name, family.type)}
    dashboard = json.loads((DEPLOY / "grafana" / "loquent.json").read_text("utf-8"))
    shown = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    assert shown
    for expression in shown:
        names = set(re.findall(r"\bloquent_\w+", expression))
        assert names, expression
        assert names <= known, names - known
        for labels in re.findall(r"by \((.*?)\)", expression):
            assert set(labels.split(", ")) <= {"le", "task", "model", "reason", "code", "key", "instance"}


def _samples(name: str, kind: str) -> set[str]:
    return {"histogram": {f"{name}_bucket"}, "counter": {f"{name}_total"}}.get(kind, {name})


def test_the_image_has_what_is_copied_into_it() -> None:
    text = (DEPLOY / "Dockerfile").read_text("utf-8")
    ignored = (DEPLOY / "Dockerfile.dockerignore").read_text("utf-8").splitlines()
    copied = [word for line in re.findall(r"^COPY (?!--from)(.+)$", text, re.MULTILINE) for word in line.split()[:-1]]
    assert len(copied) > 5
    for name in copied:
        assert (ROOT / name).exists(), name
        assert f"!{name}" in ignored, name
    (pinned,) = re.findall(r"torch==\S+ torchaudio==\S+", text)
    assert all(f'"{one}"' in (ROOT / "pyproject.toml").read_text("utf-8") for one in pinned.split())


def test_compose_mounts_what_there_is() -> None:
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text("utf-8"))
    for service in compose["services"].values():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert source in compose["volumes"] or (DEPLOY / source).is_file(), source
    settings = yaml.safe_load((DEPLOY / "serve.yaml").read_text("utf-8"))
    assert os.path.dirname(settings["session-folder"]) in str(compose["services"]["loquent"]["volumes"])
