"""All figures of a corpus, and what has to be there for them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from loquent.translate.score import Instance, Segment, latency, quality, score, score_streams, table

FIRST = Instance("das Haus brennt", (2, 3, 3), 3, "das Haus brennt .", unit="words", erased=3)
SECOND = Instance("die Leute laufen weg", (1, 2, 3, 4), 4, "die Leute laufen davon", unit="words", erased=0)
NOTHING = Instance("", (), 4, "nichts", unit="words", erased=1)


def test_latency_is_the_mean_of_those_that_said_something() -> None:
    figures = score([FIRST, NOTHING, SECOND])
    one, other = latency(FIRST), latency(SECOND)
    for name in one:
        assert figures[name] == pytest.approx(((one[name] or 0) + (other[name] or 0)) / 2), name
    assert (figures["instances"], figures["empty"], figures["NE"]) == (3, 1, 0.5)
    assert not [name for name in figures if name.endswith("_CA")]


def test_quality_is_of_the_corpus() -> None:
    """The empty translation counts; sacrebleu's own functions give the same."""
    import sacrebleu

    corpus = [FIRST, NOTHING, SECOND]
    predictions, references = [one.prediction for one in corpus], [[str(one.reference) for one in corpus]]
    figures = score(corpus)
    assert figures["BLEU"] == sacrebleu.corpus_bleu(predictions, references).score
    assert figures["chrF"] == sacrebleu.corpus_chrf(predictions, references).score
    characters = [Instance("你好世界", (1, 1, 1, 1), 1, "你好世界吗", target_unit="char", unit="words")]
    bleu = sacrebleu.corpus_bleu(["你好世界"], [["你好世界吗"]], tokenize="zh").score
    assert score(characters, tokenize="zh")["BLEU"] == bleu > 0


def test_only_what_is_there_is_scored() -> None:
    figures = score([Instance("a b", (1.0, 2.0), 3.0, elapsed=(1.5, 2.5)), Instance("", (), 3.0)])
    assert "BLEU" not in figures
    assert "NE" not in figures
    assert (figures["StartOffset"], figures["StartOffset_CA"]) == (1.0, 1.5)
    silent = score([NOTHING])
    assert silent["AL"] is None
    assert silent["BLEU"] == 0


@pytest.mark.parametrize(
    ("corpus", "message"),
    [
        ([], "unit: expected the same in all of at least one instance, got \\[\\]"),
        ([FIRST, Instance("a", (1.0,), 1.0)], "unit: expected the same"),
        ([FIRST, Instance("a", (1,), 1, unit="words", target_unit="char")], "target_unit: expected the same"),
        ([FIRST, Instance("a", (1,), 1, unit="words", erased=1)], "reference: expected it in all .* in 1 of 2"),
        ([Instance("a", (1,), 1, unit="words", elapsed=e) for e in (None, (2,))], "elapsed: .* got it in 1 of 2"),
        ([Instance("a", (1,), 1, unit="words", erased=e) for e in (None, 2)], "erased: .* got it in 1 of 2"),
    ],
)
def test_a_corpus_is_of_one_kind(corpus: list[Instance], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        score(corpus)


def test_streams() -> None:
    """Two segments of a recording: each lags two seconds behind; the third says nothing."""
    stream = Instance("eins zwei drei", (3.0, 5.0, 6.0), 12.0, erased=3)
    segments = [Segment("eins", 1.0, 2.0), Segment("zwei drei", 3.0, 2.0), Segment("vier", 6.0, 1.0)]
    figures = score_streams([(stream, segments)])
    assert figures["StreamLAAL"] == pytest.approx((2 + 2) / 2)
    assert figures["LongYAAL"] == pytest.approx((2 + (2 + (3 - 1)) / 2) / 2)
    assert figures["YAAL"] is None
    assert (figures["NE"], figures["instances"], figures["empty"]) == (1.0, 3, 1)
    assert not {"LAAL", "ATD"} & set(figures)


def test_table() -> None:
    printed = table(
        {"wait-3": {"BLEU": 20.0, "AL": 3.25, "empty": 0}, "offline": {"BLEU": 30.0, "YAAL": None}}, "words"
    )
    assert printed.splitlines() == [
        "latency in words  wait-3  offline",
        "BLEU              20.000   30.000",
        "AL                 3.250        -",
        "empty                  0        -",
        "YAAL                   -        -",
    ]


def test_unknown_tokenizer_and_missing_reference() -> None:
    with pytest.raises(ValueError, match=r"tokenize: expected one of 13a, .* got 'moses'"):
        score([FIRST], tokenize="moses")
    with pytest.raises(ValueError, match="instance 1 has no reference"):
        quality([FIRST, Instance("a", (1.0,), 1.0)])


def test_without_sacrebleu_there_is_latency(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sacrebleu.metrics.bleu", None)
    assert score([Instance("a", (1,), 1, unit="words")])["AL"] == 1
    with pytest.raises(ImportError, match=r'pip install "\.\[translate-score\]"'):
        score([FIRST])


def test_no_model_is_loaded() -> None:
    program = "import sys, loquent.translate.score; print({'torch', 'sacrebleu'} & set(sys.modules))"
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=Path(__file__).parent, check=False
    )
    assert run.stdout.strip() == "set()", run.stderr
