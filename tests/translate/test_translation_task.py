"""Translation as a task: the laws, for every policy."""

from __future__ import annotations

from types import ModuleType

import pytest

from loquent.translate.task import TranslationTask

POLICIES = [
    {"policy": "wait-k", "k": 2},
    {"policy": "local-agreement"},
    {"policy": "hold", "drafts": True},
    {"policy": "ralcp"},
    {"policy": "alignatt", "most_behind_words": 6, "drafts": True},
    {"policy": "re-translation", "bias": 0.4},
    {"policy": "offline", "beam_size": 3},
]


@pytest.mark.parametrize("options", POLICIES, ids=lambda options: options["policy"])
def test_streams_obey_the_laws(toy: ModuleType, task_laws: ModuleType, options: dict[str, object]) -> None:
    flush, words = task_laws.FLUSH, toy.made_up
    texts = [
        [words(12, 1), ". ", words(5, 2), "! ", words(3, 3)],
        [words(30, 4), " ", flush, words(4, 5), flush, words(9, 6)],
        [f"{words(6, 7)}?\n{words(80, 8)} Łódź 東京 {'x' * 200}"],
    ]
    opener = task_laws.on_engine(TranslationTask(toy.toy_translator()), **options)
    task_laws.check_task(opener, texts, examples=3)
