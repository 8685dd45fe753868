"""Aligned words, chunks that can be translated one by one, and an adapter that learns to interpret."""

from __future__ import annotations

import importlib.util
import itertools
import json
import random
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from loquent.recipes.interpreter.chunks import Chunk, merged, minimal_chunks
from loquent.recipes.interpreter.examples import IGNORED
from loquent.recipes.interpreter.recipe import InterpreterRecipe
from loquent.recipes.loop.config import ConfigError, parse_config
from loquent.recipes.loop.training import Training, TrainingOptions
from loquent.recipes.train import read_run
from loquent.recipes.translation.alignment import align
from loquent.translate.llm.model import LanguageModelTranslator, load_llm
from loquent.translate.model import Search

DICTIONARY = {"bade": "nopi", "fogu": "rasu", "liti": "teva", "mubo": "zigo", "kepa": "do", "siro": "vunu"}


@pytest.fixture(scope="module")
def tiny_lm() -> ModuleType:
    """Tiny language models, those of the tests of the translator."""
    path = Path(__file__).parents[2] / "translate" / "llm" / "tiny_lm.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[path.stem] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def sentence(rng: random.Random, words: int) -> tuple[list[str], list[str], set[tuple[int, int]]]:
    """Words, their translations, of which some neighbours have changed places, and the links between them."""
    source = rng.sample(sorted(DICTIONARY), words)
    order = list(range(words))
    at = rng.randrange(words - 1)
    order[at], order[at + 1] = order[at + 1], order[at]
    return source, [DICTIONARY[source[i]] for i in order], {(i, j) for j, i in enumerate(order)}


def test_words_are_linked_with_their_translations() -> None:
    rng = random.Random(0)
    sentences = [sentence(rng, rng.randint(2, 5)) for _ in range(150)]
    links = align([(source, target) for source, target, _ in sentences])
    right = sum(found == expected for found, (_, _, expected) in zip(links, sentences, strict=True))
    assert right > 140


@pytest.mark.parametrize(
    ("links", "sizes", "expected"),
    [
        ([(0, 0), (1, 1), (2, 2)], (3, 3), [(1, 1), (2, 2), (3, 3)]),
        ([(0, 1), (1, 0), (2, 2)], (3, 3), [(2, 2), (3, 3)]),  # the verb comes first there
        ([(0, 2), (1, 1), (2, 0)], (3, 3), [(3, 3)]),
        ([(0, 0), (2, 1)], (4, 4), [(1, 1), (4, 4)]),  # words without a link
        ([(1, 0), (2, 2)], (3, 3), [(2, 1), (3, 3)]),
        ([], (2, 3), [(2, 3)]),
    ],
)
def test_chunks_are_the_smallest_that_can_be_written_in_order(
    links: list[tuple[int, int]], sizes: tuple[int, int], expected: list[tuple[int, int]]
) -> None:
    assert minimal_chunks(links, *sizes) == expected


def test_nothing_is_written_before_it_was_read() -> None:
    rng = random.Random(1)
    for _ in range(300):
        source, target = rng.randint(1, 7), rng.randint(1, 7)
        links = {(rng.randrange(source), rng.randrange(target)) for _ in range(rng.randint(0, 8))}
        chunks = minimal_chunks(links, source, target)
        for one in (chunks, merged(chunks, 3)):
            assert one[-1] == (source, target)
            assert all(a.source < b.source and a.target < b.target for a, b in itertools.pairwise(one))
            for chunk in one:
                assert all(i < chunk.source for i, j in links if j < chunk.target)
        joined = merged(chunks, 3)[:-1]
        assert all(b.source - a.source >= 3 for a, b in itertools.pairwise([Chunk(0, 0), *joined]))


def test_chunks_grow_with_the_latency() -> None:
    chunks = [Chunk(at, at) for at in range(1, 8)]
    assert merged(chunks, 1) == chunks
    assert merged(chunks, 3) == [(3, 3), (6, 6), (7, 7)]
    assert merged(chunks, 9) == [(7, 7)]


@pytest.fixture
def recipe(tiny_lm: Any, tmp_path: Path) -> InterpreterRecipe:
    base = tmp_path / "base"
    tiny_lm.hugging_face().save_pretrained(base)
    (base / "tokenizer.json").write_text(tiny_lm.tiny_tokenizer().to_str(), encoding="utf-8")
    rng = random.Random(2)
    lines = [sentence(rng, rng.randint(3, 5))[:2] for _ in range(900)]
    text = "".join(f"{' '.join(source)}\t{' '.join(target)}\ttoy\n" for source, target in lines)
    (tmp_path / "pairs.tsv").write_text(text, encoding="utf-8")
    values = {
        "model": str(base),
        "end_of_read": "<|end-of-read|>",
        "end_of_write": "<|end-of-write|>",
        "before": "<|im_start|>{latency}",
        "data": {
            "source": "en",
            "target": "es",
            "texts": [{"path": str(tmp_path / "pairs.tsv"), "weights": {"toy": 1.0}}],
            "most_pairs": 200,
        },
        "chunks": {"low": 1, "medium": 2, "high": 3},
        "adapter": {"rank": 8, "alpha": 16},
        "batch": {"duration_s": 600, "utterances": 16, "buckets": 2},
    }
    return InterpreterRecipe(parse_config(InterpreterRecipe.Config, values), tmp_path / "run")


def test_an_example_is_what_the_translator_reads_and_writes(recipe: InterpreterRecipe) -> None:
    examples, codec = recipe.examples, recipe.examples.translator.codec
    marks = {codec.piece("<|end-of-read|>"): "R", codec.piece("<|end-of-write|>"): "W"}
    for item in range(5):
        pieces, first = examples.example(item, "low")
        assert pieces[:first] == codec.marks("<|im_start|>low")
        text = "".join(marks.get(piece, codec.decode([piece])) for piece in pieces[first:])
        turns = [turn.split("R") for turn in text.split("W")[:-1]]
        assert "".join(source for source, _ in turns) == "".join(examples.words[item][0])
        assert "".join(target for _, target in turns) == "".join(examples.words[item][1])
        assert len(turns) > 1
    batch = recipe.collate([0], 0)
    wanted = batch["wanted"][0] != IGNORED
    assert (batch["wanted"][0][:-1][wanted[:-1]] == batch["given"][0][1:][wanted[:-1]]).all()


def test_the_adapter_learns_and_is_kept(recipe: InterpreterRecipe, tmp_path: Path) -> None:
    trained = [parameter for parameter in recipe.module.parameters() if parameter.requires_grad]
    assert 0 < sum(map(torch.Tensor.numel, trained)) < sum(p.numel() for p in recipe.module.parameters()) / 2
    options = TrainingOptions(
        30, 1e-2, "constant", 0, weight_decay=0, average=0, log_every=1, evaluate_every=30, checkpoint_every=30
    )
    folder = tmp_path / "run"
    figures = Training(recipe, options, folder, {}).run()
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    losses = [line["loss"] for line in lines if "loss" in line]
    assert losses[-1] < 0.6 * losses[0]
    # What was saved, merged into the base, is what was trained.
    assert figures is not None
    assert figures["loss"] == pytest.approx(
        next(line["valid/loss"] for line in lines if "valid/loss" in line), rel=1e-4
    )
    assert LanguageModelTranslator.owns(folder / "best")
    assert json.loads((folder / "best" / "adapter_config.json").read_text(encoding="utf-8"))["r"] == 8
    ours = load_llm(folder / "best")
    state, rows = ours.initial_state(1), torch.tensor([0])
    ours.read([ours.codec.encode("bade fogu")], [True], state, rows)
    ours.draft([Search(ended=True, latency="low")], state, rows)
    assert ours.default_policy == "learned"


def test_the_configuration_that_comes_with_loquent_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOQUENT_DATA", "data")
    run = read_run("interpreter_lora", ["model=folder"])
    assert run.recipe is InterpreterRecipe
    assert (run.config.adapter.rank, run.config.adapter.alpha) == (64, 128)


def test_a_model_without_the_marks_is_told(recipe: InterpreterRecipe, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="model: the tokenizer has no piece '<new>'"):
        InterpreterRecipe(replace(recipe.config, end_of_read="<new>"), tmp_path)
