from __future__ import annotations

from pathlib import Path

import pytest

from loquent.asr.conformer.tokenizer import SubwordTokenizer

TEXTS = ["turn the kitchen light on", "turn the light off in the kitchen", "dim the lights", "what time is it"] * 4


@pytest.fixture(scope="module")
def tokenizer() -> SubwordTokenizer:
    return SubwordTokenizer.train(TEXTS, 40)


def test_text_survives_encoding(tokenizer: SubwordTokenizer) -> None:
    for text in TEXTS:
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == text
        assert all(0 <= id_ < tokenizer.vocab_size for id_ in ids)
        assert sum(map(tokenizer.is_word_start, ids)) == len(text.split())
        assert "".join(tokenizer.pieces[id_] for id_ in ids).replace("▁", " ").strip() == text


def test_model_survives_saving(tokenizer: SubwordTokenizer, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(tokenizer.to_bytes())
    for same in (
        SubwordTokenizer.load(tmp_path),
        SubwordTokenizer.load(tmp_path / "tokenizer.model"),
        SubwordTokenizer.from_bytes(tokenizer.to_bytes()),
    ):
        assert same.pieces == tokenizer.pieces
        assert same.encode(TEXTS[0]) == tokenizer.encode(TEXTS[0])


def test_characters_may_be_the_tokens() -> None:
    tokenizer = SubwordTokenizer.train(TEXTS, 40, "char")
    assert all(len(piece) == 1 for piece in tokenizer.pieces if piece != "<unk>")


@pytest.mark.parametrize("data", [b"", b"not a model"])
def test_other_bytes_are_refused(data: bytes, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not a sentencepiece model"):
        SubwordTokenizer.from_bytes(data)
    (tmp_path / "tokenizer.model").write_bytes(data)
    with pytest.raises(ValueError, match=r"tokenizer\.model"):
        SubwordTokenizer.load(tmp_path)


def test_a_missing_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"tokenizer\.model"):
        SubwordTokenizer.load(tmp_path)
