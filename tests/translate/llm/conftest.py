"""The module `tiny_lm` beside this file as a fixture: tiny models and a tokenizer for them."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch


@pytest.fixture(scope="session")
def tiny_lm() -> ModuleType:
    """Tiny causal language models with random weights, and a tokenizer for them."""
    path = Path(__file__).parent / "tiny_lm.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[path.stem] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def waiting_lm(tiny_lm: ModuleType) -> Callable[..., tuple[Any, Any]]:
    """A function that makes a model of transformers and ours of the same weights; interleaved, it sometimes writes."""

    def make(layout: str, kind: str = "Llama", values: dict[str, Any] | None = None, **changes: Any) -> tuple[Any, Any]:
        theirs = tiny_lm.hugging_face(kind, attn_implementation="eager", **(values or {}))
        with torch.no_grad():
            for mark, scale in (("<|end-of-read|>", 3), ("<|end-of-write|>", 1.5)):
                theirs.lm_head.weight[tiny_lm.tiny_tokenizer().token_to_id(mark)] *= scale
        return theirs, tiny_lm.translator(theirs, layout, **changes)

    return make
