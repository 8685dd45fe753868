"""Streams of the translation task with a language model: the laws, for every layout."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest
import torch

from loquent.translate.families import load_translation_model
from loquent.translate.task import TranslationTask


@pytest.mark.parametrize(
    ("layout", "options"),
    [
        ("prompt", {"policy": "alignatt", "most_behind_words": 3}),
        ("grouped", {"policy": "wait-k", "k": 2}),
        ("interleaved", {"policy": "learned", "latency": "low"}),
    ],
)
def test_streams_obey_the_laws(
    tiny_lm: Any, waiting_lm: Any, task_laws: ModuleType, layout: str, options: dict[str, Any]
) -> None:
    ours = waiting_lm(layout)[1]
    with torch.no_grad():  # short drafts
        for mark in ("<|im_end|>", "<|end-of-write|>"):
            ours.decoding.model.lm_head.weight[ours.codec.piece(mark)] *= 3
    task = TranslationTask(ours)
    texts = [[tiny_lm.made_up(2, 1), "! ", tiny_lm.made_up(1, 3)], [tiny_lm.made_up(2, 4), " ", task_laws.FLUSH, "bi"]]
    task_laws.check_task(task_laws.on_engine(task, **options), texts, examples=1)


def test_the_family_is_known(tiny_lm: Any, tmp_path: Any) -> None:
    with pytest.raises(ValueError, match="llm"):
        load_translation_model(tmp_path, torch.device("cpu"))
