"""Orders: sentences of the grammar, and transcripts brought into line with labels."""

from __future__ import annotations

import itertools
import random

import pytest

from loquent.recipes.commands.coffee_grammar import (
    DIGITS,
    VOCABULARY,
    agrees,
    meant,
    random_digits,
    random_order,
    sentences,
    spoken,
)


def test_random_orders_are_in_the_grammar() -> None:
    rng = random.Random(0)
    orders = [random_order(rng) for _ in range(300)]
    assert len(set(orders)) > 290
    for order in orders:
        assert agrees(order)
        assert spoken(order) == order
        words = order.split(" with ")[0].split()
        for article, word in itertools.pairwise(words):
            if article in ("a", "an"):
                assert (article == "an") == (word[0] in "aeiou"), order
    assert set(" ".join(orders).split()) <= VOCABULARY


def test_random_digits() -> None:
    rng = random.Random(0)
    strings = [random_digits(rng, 4).split() for _ in range(200)]
    assert {len(string) for string in strings} == {1, 2, 3, 4}
    assert {word for string in strings for word in string} == set(DIGITS)


def test_sentences_have_every_order_of_words() -> None:
    slots = {"coffeeDrink": "latte", "roast": "dark roast", "size": "eight ounce", "sugarAmount": " sugar"}
    made = set(sentences(slots))
    assert "brew an eight ounce dark roast latte with sugar" in made
    assert "may i have a dark roast eight ounce latte with sugar" in made
    assert all(sentence.endswith("latte with sugar") for sentence in made)


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("Can I have a light-roast 12-ounce coffee?", "can i have a light roast twelve ounce coffee"),
        ("I’d like a 16oz, single-shot Latte.", "i'd like a sixteen ounce single shot latte"),
        ("", ""),
    ],
)
def test_spoken_form(written: str, said: str) -> None:
    assert spoken(written) == said


@pytest.mark.parametrize(
    ("heard", "slots", "said"),
    [
        (
            "Brue a Light Rose mocker.",
            {"coffeeDrink": "mocha", "roast": "light roast"},
            "brew a light roast mocha",
        ),
        (
            "Maya have a 12 ounce triple shop Americana with sugar and lots of whole mill.",
            {
                "coffeeDrink": "americano",
                "numberOfShots": "triple shot",
                "size": "twelve ounce",
                "sugarAmount": " sugar",
                "milkAmount": "lots of whole milk",
            },
            "may i have a twelve ounce triple shot americano with sugar and lots of whole milk",
        ),
        ("I'd like an iced mocha.", {"coffeeDrink": "iced mocha"}, "i'd like an iced mocha"),
        ("Get me a iced mocha.", {"coffeeDrink": "iced mocha"}, "get me a iced mocha"),
    ],
)
def test_labels_mend_transcripts(heard: str, slots: dict[str, str], said: str) -> None:
    assert meant(heard, slots) == said


def test_agreement() -> None:
    assert agrees("Give me a double shot of espresso.")
    assert not agrees("Brue a latte.")
    assert not agrees("Two small latte")
