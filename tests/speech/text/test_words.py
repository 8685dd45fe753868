"""Words of a text that comes in pieces."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loquent.speech.text.words import MAX_WORD, WordFramer, split_words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("two words", ["two", " words"]),
        ("  white \n space ", ["  white", " \n space"]),
        ("", []),
        (" ", []),
        ("我说「你好」。Yes!", ["我", "说", "「你", "好」。", "Yes!"]),
        ("コーヒーを飲む", ["コーヒー", "を", "飲", "む"]),
        ("cafe\u0301 au lait", ["cafe\u0301", " au", " lait"]),
        ("x" * 2 * MAX_WORD + "y", ["x" * MAX_WORD, "x" * MAX_WORD, "y"]),
    ],
)
def test_words(text, words):
    assert split_words(text) == words


@given(st.lists(st.text("ab .,我の「」\n\u0301", max_size=5), max_size=8))
def test_pieces_do_not_matter(pieces):
    framer = WordFramer()
    words = [word.text for piece in pieces for word in framer.push(piece, 0.0)]
    words += [word.text for word in framer.flush()]
    whole = "".join(pieces)
    assert words == split_words(whole)
    assert "".join(words) == whole[: len("".join(words))]
    assert not whole[len("".join(words)) :].strip()


def test_a_word_has_the_time_of_its_last_character():
    framer = WordFramer()
    assert framer.push("he", 1.0) == []
    assert framer.push("llo ", 2.0) == [("hello", 2.0)]
    assert framer.push("world", 3.0) == []
    assert framer.flush() == [(" world", 3.0)]
