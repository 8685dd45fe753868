"""Tokens of text: Qwen's with CosyVoice's marks, and the same ones for text that comes in pieces."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models

from loquent.tts.cosyvoice.marks import MARKS
from loquent.tts.cosyvoice.text_tokenizer import TextTokenizer

PARTS = [
    *("the quick", "brown", " ", "  ", "\n", " \n\n", "\t", ".", "...", "!", ",", "don't", "'re", "'", "7", "12:30"),
    *(
        "你好",
        "，",
        "世界。",
        "é",
        "e\u0301",
        "\u0301",
        "👩‍👧",
        "<|endofprompt|>",
        "<|endof",
        "|>",
        "[laughter]",
        "[laugh",
        "[mn]",
    ),
    *("<strong>", "</strong>", "<", "[", "]", "ß", "İ", "of"),
]


@pytest.fixture(scope="module", params=[2, 3])
def tokenizer(request: pytest.FixtureRequest, tiny: ModuleType) -> TextTokenizer:
    return TextTokenizer(tiny.text_tokenizer(), MARKS[request.param])


def in_pieces(tokenizer: TextTokenizer, pieces: list[str]) -> list[int]:
    found, held = [], ""
    for piece in pieces:
        tokens, held = tokenizer.advance(held + piece)
        found += tokens
    return found + tokenizer.encode(held)


@settings(max_examples=300, deadline=None, database=None, derandomize=True)
@given(data=st.data())
def test_pieces_of_text_give_the_tokens_of_the_whole(tokenizer: TextTokenizer, data: st.DataObject) -> None:
    text = "".join(data.draw(st.lists(st.sampled_from(PARTS), max_size=12)))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert in_pieces(tokenizer, pieces) == tokenizer.encode(text)
    assert in_pieces(tokenizer, list(text)) == tokenizer.encode(text)


def test_a_word_is_final_when_the_next_has_begun(tokenizer: TextTokenizer) -> None:
    assert tokenizer.advance("the quick") == (tokenizer.encode("the"), " quick")
    assert tokenizer.advance("the quick ") == (tokenizer.encode("the quick"), " ")
    assert tokenizer.advance("the [laugh") == (tokenizer.encode("the"), " [laugh")
    assert tokenizer.advance("the [laughter]") == (tokenizer.encode("the [laughter]"), "")


def test_marks_have_upstreams_numbers(tokenizer: TextTokenizer, tiny: ModuleType) -> None:
    first = tiny.text_tokenizer().get_vocab_size()
    assert tokenizer.encode("<|im_start|>[breath]") == [first, first + 3]
    assert tokenizer.end_of_prompt == first + 2 == tiny.end_of_prompt()
    digests = {version: hashlib.sha256("\n".join(marks).encode()).hexdigest() for version, marks in MARKS.items()}
    assert digests == {  # of the lists in upstream's tokenizer.py
        2: "9b6b0f8663045662c89da78e167cb8a2ad4613267329e64f8ae4759ca46968c9",
        3: "36d639d3ebbba97bf9b8fae4e5ad007f62ca7264ae2a2f8915e618f8ad8a458b",
    }


def test_qwens_own_files_are_read_by_transformers(tiny: ModuleType, tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    made = tiny.text_tokenizer()
    model = json.loads(made.to_str())["model"]
    (tmp_path / "vocab.json").write_text(json.dumps(model["vocab"]), encoding="utf-8")
    merges = ["#version: 0.2", *(" ".join(pair) for pair in model["merges"])]
    (tmp_path / "merges.txt").write_text("\n".join(merges) + "\n", encoding="utf-8")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "Qwen2Tokenizer"}))
    loaded, expected = TextTokenizer.load(tmp_path, 2), TextTokenizer(made, MARKS[2])
    for text in ("the quick  brown\nfox, 你好 [laughter]!", "<|endofprompt|>don't 42"):
        assert loaded.encode(text) == expected.encode(text)
    assert loaded.end_of_prompt == expected.end_of_prompt


def test_a_tokenizer_whose_tokens_are_never_final_is_refused() -> None:
    with pytest.raises(ValueError, match="does not split text"):
        TextTokenizer(Tokenizer(models.BPE()), MARKS[2])
