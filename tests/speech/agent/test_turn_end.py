"""The rule that ends a turn, and what a chat model is told."""

from __future__ import annotations

import pytest

from loquent.speech.agent.conversation import MOST_CHARACTERS, MOST_MESSAGES, Conversation
from loquent.speech.agent.turn_end import TurnOptions, is_back_channel, looks_unfinished, words_of


@pytest.mark.parametrize(
    ("text", "unfinished"),
    [
        ("I would like a pizza.", False),
        ("I would like a pizza", False),
        ("I would like a pizza and", True),
        ("I would like a pizza and.", True),  # recognisers like to set a full stop
        ("I would like a pizza,", True),
        ("I would like, um", True),
        ("I would like...", True),
        ("I would like…", True),
        ("He said: “I would like the", True),
        ("What is it for?", False),
        ("That is what it is for.", False),
        ("That is what it is for", True),
        ("I think so.", False),
        ("", False),
        ("…", True),
        ("¿Qué hora es?", False),
    ],
)
def test_texts_that_go_on(text: str, unfinished: bool) -> None:
    assert looks_unfinished(text) is unfinished
    assert TurnOptions(0.1, 0.2, 0.3).needed_s(text) == (0.3 if unfinished else 0.2)


def test_back_channels() -> None:
    assert all(map(is_back_channel, ("Mm-hm.", "Yeah, okay.", "Uh-huh", "oh right, sure")))
    assert not any(map(is_back_channel, ("", "...", "Yes, and then?", "okay okay okay okay", "No.")))
    assert words_of("Mm-hm, it's 3 o’clock!") == ["mm-hm", "it's", "3", "o’clock"]


@pytest.mark.parametrize("times", [(0.0, 0.5, 1.0), (0.6, 0.5, 1.0), (0.1, 1.5, 1.0)])
def test_times_out_of_order_are_refused(times: tuple[float, float, float]) -> None:
    with pytest.raises(ValueError, match="expected 0 < likely_s"):
        TurnOptions(*times)


def test_roles_alternate_whatever_happens() -> None:
    conversation = Conversation("Be brief.")
    conversation.hear("What is")
    conversation.say("")  # nothing of a reply was heard
    conversation.hear("the time?")
    conversation.say("It is noon, I think.")
    conversation.say("It is noon")  # less was heard
    assert conversation.messages("Thanks.") == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "What is the time?"},
        {"role": "assistant", "content": "It is noon"},
        {"role": "user", "content": "Thanks."},
    ]
    assert len(conversation.messages()) == 3


def test_memory_is_bounded() -> None:
    conversation = Conversation("Be brief.")
    for number in range(100):
        conversation.hear(f"question {number}")
        conversation.say(f"answer {number}")
    messages = conversation.messages()
    assert len(messages) <= MOST_MESSAGES + 1
    assert messages[1]["role"] == "user"
    assert messages[-1]["content"] == "answer 99"
    for number in range(10):
        conversation.hear(str(number) * 5000)
        conversation.say("yes")
    assert sum(len(message["content"]) for message in conversation.messages()[1:]) <= MOST_CHARACTERS
    conversation.hear("x" * 100_000 + "end")
    assert conversation.messages()[1:] == [{"role": "user", "content": "x" * (MOST_CHARACTERS - 3) + "end"}]
