"""A chat model in this process: a causal language model of Hugging Face, by transformers."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from loquent.speech.agent.conversation import Message
from loquent.speech.agent.reply import Reply
from loquent.speech.tasks import TaskError

LONGEST_PROMPT = 4096  # tokens; the oldest go


class LocalModel:
    """A model that writes one reply at a time; see `loquent.speech.agent.reply.Chat`.

    Args:
        model: a causal language model of transformers, in evaluation mode.
        tokenizer: its tokenizer, with a chat template.
        max_tokens: of a reply.

    Raises:
        ValueError: there is no chat template.
    """

    def __init__(self, model: Any, tokenizer: Any, max_tokens: int = 300) -> None:
        if not tokenizer.chat_template:
            raise ValueError("this language model has no chat template; take one that was made to chat")
        self.model, self.tokenizer, self.max_tokens = model, tokenizer, max_tokens
        self._busy = threading.Lock()

    @classmethod
    def from_pretrained(
        cls, name_or_path: str | os.PathLike[str], *, device: str | torch.device = "cpu", max_tokens: int = 300
    ) -> LocalModel:
        """Load a model from a folder or the Hugging Face hub. Code that comes with a checkpoint is not run.

        Raises:
            TaskError: transformers is not installed.
            OSError, ValueError: there is no such model, or it cannot chat.
        """
        try:
            from transformers import AutoModelForCausalLM, AutoTokenizer
        except ImportError as error:
            raise TaskError('a local chat model needs transformers: pip install "loquent[talk]"') from error
        tokenizer = AutoTokenizer.from_pretrained(name_or_path)
        model = AutoModelForCausalLM.from_pretrained(name_or_path, dtype="auto").to(device).eval()
        return cls(model, tokenizer, max_tokens)

    def ask(self, messages: Sequence[Message], notify: Callable[[], None]) -> Reply:
        """Begin a reply; it waits for those before it."""

        def produce(reply: Reply) -> None:
            with self._busy:
                for piece in self._written(messages):
                    if not reply.put(piece):
                        return

        return Reply(produce, notify)

    def _written(self, messages: Sequence[Message]) -> Iterator[str]:
        """The text of a reply as it is written, token by token: the likeliest one each time."""
        prompt = self.tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True)
        ids = self.tokenizer(prompt, add_special_tokens=False, return_tensors="pt")["input_ids"]
        new, cache = ids[:, -LONGEST_PROMPT:].to(self.model.device), None
        written: list[int] = []
        given = 0
        ends = self._ends()
        for _ in range(self.max_tokens):
            with torch.inference_mode():
                out = self.model(input_ids=new, past_key_values=cache, use_cache=True)
            new, cache = out.logits[:, -1:].argmax(-1), out.past_key_values
            token = int(new)
            if token in ends:
                break
            written.append(token)
            text = self.tokenizer.decode(written, skip_special_tokens=True)
            if not text.endswith("\N{REPLACEMENT CHARACTER}"):  # else a character of several tokens is under way
                yield text[given:]
                given = len(text)

    def _ends(self) -> set[int]:
        found = {self.tokenizer.eos_token_id}
        configured = getattr(getattr(self.model, "generation_config", None), "eos_token_id", None)
        found |= set(configured if isinstance(configured, list) else [configured])
        return found - {None}
