"""What a chat model is told: the turns so far, of the replies only what was heard."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypedDict

MOST_MESSAGES = 40  # besides the instructions
MOST_CHARACTERS = 16_000  # of them together


class Message(TypedDict):
    """As chat models take it."""

    role: Literal["system", "user", "assistant"]
    content: str


@dataclass
class Conversation:
    """Turns of two in a bounded memory: the oldest are forgotten. Roles alternate, as many chat templates demand it.

    Attributes:
        instructions: to the model; empty for none.
        turns: the oldest first.
    """

    instructions: str = ""
    turns: list[Message] = field(default_factory=list)

    def hear(self, text: str) -> None:
        """Add what the user said. What follows a turn that was not answered belongs to it."""
        if self.turns and self.turns[-1]["role"] == "user":
            self.turns[-1]["content"] += " " + text
        else:
            self.turns.append({"role": "user", "content": text})
        self._forget()

    def say(self, text: str) -> None:
        """Add a reply, or put this text into the place of the last one: what was heard of it. Nothing is no reply."""
        if self.turns and self.turns[-1]["role"] == "assistant":
            self.turns.pop()
        if text:
            self.turns.append({"role": "assistant", "content": text})
        self._forget()

    def messages(self, more: str = "") -> list[Message]:
        """All that is remembered, and ``more`` as if the user had said it last."""
        then = Conversation(self.instructions, [{**turn} for turn in self.turns])
        if more:
            then.hear(more)
        head: list[Message] = [{"role": "system", "content": self.instructions}] if self.instructions else []
        return head + then.turns

    def _forget(self) -> None:
        while len(self.turns) > MOST_MESSAGES or (
            len(self.turns) > 1 and sum(len(turn["content"]) for turn in self.turns) > MOST_CHARACTERS
        ):
            del self.turns[0]
        if len(self.turns) > 1 and self.turns[0]["role"] == "assistant":
            del self.turns[0]
        if self.turns and len(self.turns[-1]["content"]) > MOST_CHARACTERS:
            self.turns[-1]["content"] = self.turns[-1]["content"][-MOST_CHARACTERS:]
