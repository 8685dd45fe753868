"""From pairs of sentences to a model that translates."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch

from loquent.recipes.loop.config import ConfigError
from loquent.recipes.train import train
from loquent.recipes.translation.corpus import Pair, ParallelText, plausible, read_pairs
from loquent.recipes.translation.examples import IGNORED, NEVER, ExampleOptions, Examples, batch_of
from loquent.recipes.translation.noise import as_heard, confusions, misheard, sound_of
from loquent.recipes.translation.pieces import train_pieces
from loquent.translate import Translator
from loquent.translate.pieces import Pieces

WORDS = dict(
    zip("one two red blue cats dogs see like".split(), "uno dos rojo azul gatos perros ven aman".split(), strict=True)
)


def sentences(count: int, seed: int = 0) -> list[Pair]:
    """Word by word translations."""
    rng = random.Random(seed)
    picked = [rng.choices(list(WORDS), k=rng.randint(2, 4)) for _ in range(count)]
    return [Pair(" ".join(words) + ".", " ".join(WORDS[word] for word in words) + ".", "toy") for words in picked]


@pytest.fixture(scope="module")
def pieces(tmp_path_factory: pytest.TempPathFactory) -> Pieces:
    file = tmp_path_factory.mktemp("pieces") / "pieces.model"
    train_pieces([text for pair in sentences(300) for text in pair[:2]], file, 300, seed=1)
    return Pieces.load(file)


@pytest.mark.parametrize(
    ("source", "target", "wanted"),
    [
        ("Where is the station?", "¿Dónde está la estación?", True),
        ("Go.", "Váyase.", True),
        ("Delete %s files?", "¿Borrar %s archivos?", False),
        ("robbed of sleep", "robadas al sueño <f>", False),
        ("It costs 15 euros.", "Cuesta 50 euros.", False),
        ("It costs 15 euros.", "Cuesta quince euros.", True),
        ("A short one.", "Una frase que sigue y sigue y que no puede ser la traducción de una tan corta.", False),
        ("Same.", "Same.", False),
        ("...", "¡!", False),
    ],
)
def test_which_pairs_are_kept(source: str, target: str, wanted: bool) -> None:
    assert plausible(Pair(source, target, ""), 50) is wanted


def test_pairs_are_read_by_corpus_and_none_is_on_both_sides(tmp_path: Path) -> None:
    lines = [
        f"{pair.source} {n}\t{pair.target} {n}\t{'good' if n % 4 else 'fair'}" for n, pair in enumerate(sentences(2000))
    ]
    (tmp_path / "pairs.tsv").write_text("\n".join([*lines, "a b\tc d\tother", "no columns"]), encoding="utf-8")
    texts = (ParallelText(str(tmp_path / "pairs.tsv"), {"good": 1.0, "fair": 0.5}),)
    train_pairs, weights, held_out = read_pairs(texts, 50)
    assert held_out
    assert {pair.corpus for pair in held_out} == {"good"}
    assert not set(held_out) & set(train_pairs)
    assert {pair.corpus: weight for pair, weight in zip(train_pairs, weights, strict=True)} == {
        "good": 1.0,
        "fair": 0.5,
    }
    with pytest.raises(ConfigError, match="no pairs"):
        read_pairs((ParallelText(str(tmp_path / "pairs.tsv"), {"missing": 1.0}),), 50)


def test_words_are_misheard_for_those_that_sound_alike() -> None:
    assert as_heard("“Don't go,” he said: it's 7 p.m.!") == "don't go he said it's 7 p m"
    assert sound_of("night") == sound_of("knight") != sound_of("day")
    similar = confusions(["their there", "there their", "see the sea"] * 5)
    assert similar["their"] == ["there"]
    rng = random.Random(1)
    assert misheard("see their sea", rng, similar, 0.0) == "see their sea"
    assert {misheard("their", rng, similar, 1.0) for _ in range(40)} >= {"there", "their their"}


def test_a_batch_says_what_each_piece_may_see(pieces: Pieces) -> None:
    batch = batch_of([("one cats.", "uno gatos.", 1), ("red", "rojo", NEVER)], pieces, pieces.tags["es"])
    assert batch["given"][0, 0] == pieces.tags["es"]
    assert batch["wanted"][1, -1] == IGNORED
    length = int((batch["wanted"][0] != IGNORED).sum())
    assert batch["wanted"][0, length - 1] == pieces.end
    assert batch["words"][0, 0] == 0
    assert batch["words"][0, length - 1] == 2  # the end is a word of its own
    assert batch["source_words"][1, -1] == NEVER


def test_examples_follow_from_seed_and_epoch(pieces: Pieces) -> None:
    options = ExampleOptions(heard=0.5, joined=0.5)
    first, second = (Examples(sentences(20), pieces, "es", options, {}, seed=3) for _ in range(2))
    for epoch in (0, 1):
        one, other = first.batch([1, 2, 3, 4], epoch), second.batch([1, 2, 3, 4], epoch)
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_too_many_pieces_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data\.vocabulary"):
        train_pieces(["one two"], tmp_path / "pieces.model", 5000, seed=1)


def test_a_model_is_trained_that_translates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [f"{pair.source}\t{pair.target}\ttoy" for pair in sentences(3000)]
    (tmp_path / "pairs.tsv").write_text("\n".join(lines), encoding="utf-8")
    overrides = [
        f'data.texts=[{{path: "{tmp_path}/pairs.tsv", weights: {{toy: 1.0}}}}]',
        *("data.vocabulary=300", "network.channels=64", "network.hidden=128", "network.encoder_layers=1"),
        *("network.decoder_layers=1", "network.dropout=0", "examples.misheard=0", "batch.duration_s=800"),
        *("training.steps=150", "training.warmup=10", "training.learning_rate=1e-2", "training.evaluate_every=150"),
        *("training.average=0.9", "smoothing=0"),
    ]
    monkeypatch.setenv("LOQUENT_DATA", str(tmp_path))
    figures = train("translate_en_es", overrides, str(tmp_path / "run"))
    assert figures is not None
    assert figures["loss"] < 0.2
    assert figures["chrF_offline"] > 85
    assert figures["LAAL_wait_3"] <= figures["LAAL_offline"]
    translator = Translator.from_pretrained(tmp_path / "run" / "best")
    assert (translator.source, translator.target) == ("en", "es")
    assert translator.translate("two blue dogs.") == "dos azul perros."
    session = translator.session(policy="wait-k", k=1)
    events = session.push("red cats see ") + session.finish()
    assert "".join(event.text for event in events if event.type == "translation").startswith(" rojo gatos ven")
