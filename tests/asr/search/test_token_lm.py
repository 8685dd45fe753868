from __future__ import annotations

import gzip
import math
from pathlib import Path

import pytest
import torch

from loquent.asr.search.language_model import Fusion, NGram

PIECES = ["<unk>", "▁a", "b", "▁c"]
ARPA = """
\\data\\
ngram 1=5
ngram 2=3
ngram 3=1

\\1-grams:
-1.0\t<unk>
-99\t<s>\t-0.5
-0.9\t</s>
-0.5\t▁a\t-0.3
-0.7\tb\t-0.2

\\2-grams:
-0.2\t<s> ▁a\t-0.1
-0.4\t▁a b\t-0.6
-0.8\tb </s>

\\3-grams:
-0.05\t<s> ▁a b

\\end\\
"""


@pytest.fixture
def ngram(tmp_path: Path) -> NGram:
    path = tmp_path / "tokens.arpa"
    path.write_text(ARPA, encoding="utf-8")
    return NGram.from_arpa(path, PIECES)


def log10_of(ngram: NGram, text: list[int]) -> list[float]:
    """Log10 probability of each token after those before it."""
    context, out = ngram.start(), []
    for token in text:
        out.append(float(ngram.scores([context])[0, token]) / math.log(10))
        context = ngram.advance(context, token)
    return out


def test_probabilities_back_off(ngram: NGram) -> None:
    assert ngram.order == 3
    assert log10_of(ngram, [1, 2]) == pytest.approx([-0.2, -0.05])  # in the model as they are
    assert log10_of(ngram, [2]) == pytest.approx([-0.5 - 0.7])  # <s>, then the unigram
    # (<s> a) a: back off by -0.1 and -0.3; (a a) b: no such context, then the bigram; (a b) b: -0.6 and -0.2
    assert log10_of(ngram, [1, 1, 2, 2]) == pytest.approx([-0.2, -0.1 - 0.3 - 0.5, -0.4, -0.6 - 0.2 - 0.7])


def test_a_token_that_is_not_in_the_model_is_as_unlikely_as_the_least_likely(ngram: NGram) -> None:
    assert log10_of(ngram, [3]) == pytest.approx([-0.5 - 1.0])


def test_scores_are_batched(ngram: NGram) -> None:
    contexts = [ngram.start(), (1, 2), (2,), ()]
    together = ngram.scores(contexts)
    assert together.shape == (4, 4)
    assert torch.equal(together, torch.cat([ngram.scores([context]) for context in contexts]))
    fusion = Fusion(ngram, 0.5, 0.25)
    torch.testing.assert_close(fusion.scores(contexts), 0.5 * together + 0.25)


def test_contexts_are_bounded(ngram: NGram) -> None:
    context = ngram.start()
    for token in [1, 2, 1, 1, 2]:
        context = ngram.advance(context, token)
    assert context == (1, 2)
    unigram = NGram([{(0,): (-1.0, 0.0)}], 1)
    assert unigram.start() == unigram.advance((), 0) == ()


def test_gzipped_files_are_read(ngram: NGram, tmp_path: Path) -> None:
    path = tmp_path / "tokens.arpa.gz"
    path.write_bytes(gzip.compress(ARPA.encode()))
    assert torch.equal(NGram.from_arpa(path, PIECES).scores([(1,)]), ngram.scores([(1,)]))


@pytest.mark.parametrize("text", ["", "no model", ARPA.replace("▁a", "cat").replace("b", "dog").replace("<unk>", "x")])
def test_other_files_are_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "other.arpa"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r"other\.arpa: not an ARPA file"):
        NGram.from_arpa(path, PIECES)


def test_a_broken_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "broken.arpa"
    path.write_text(ARPA.replace("-0.4\t▁a b\t-0.6", "-0.4 ▁a"), encoding="utf-8")
    with pytest.raises(ValueError, match=r"broken\.arpa:16: expected a 2-gram"):
        NGram.from_arpa(path, PIECES)
