"""Tiny checkpoints, written once."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from loquent.tts.cosyvoice.model import CosyVoice
from loquent.tts.flow.masks import ChunkMask
from loquent.tts.flow.token_flow import Inference


@pytest.fixture(scope="session")
def tiny() -> ModuleType:
    """The module `tiny_checkpoint` beside this file."""
    path = Path(__file__).parent / "tiny_checkpoint.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[path.stem] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session", params=[2, 3], ids=["CosyVoice 2", "CosyVoice 3"])
def checkpoint(request: pytest.FixtureRequest, tiny: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a checkpoint; not to be changed."""
    return tiny.write(tmp_path_factory.mktemp("cosyvoice") / "checkpoint", request.param)


@pytest.fixture(scope="session")
def cosyvoice(checkpoint: Path) -> CosyVoice:
    """The checkpoint, loaded; as it is untrained, it is kept from going on for ever."""
    model = CosyVoice.from_pretrained(checkpoint, device="cpu", flow=Inference(ChunkMask(5, 10), steps=2), capacity=300)
    model.stages.generator.most = 3.0
    return model
