"""A chat model in this process: a causal language model of Hugging Face, by transformers."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
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
        ValueError: there is no chat template, or the model is too short for such replies.
    """

    def __init__(self, model: Any, tokenizer: Any, max_tokens: int = 300) -> None:
        if not tokenizer.chat_template:
            raise ValueError("this language model has no chat template; take one that was made to chat")
        self.model, self.tokenizer, self.max_tokens = model, tokenizer, max_tokens
        longest = getattr(model.config, "max_position_embeddings", None) or LONGEST_PROMPT + max_tokens
        self._longest_prompt = min(LONGEST_PROMPT, longest - max_tokens)
        if self._longest_prompt < 1:
            raise ValueError(f"max_tokens: {max_tokens} do not fit the model, whose longest text has {longest} tokens")
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
        model: Any = AutoModelForCausalLM.from_pretrained(name_or_path, dtype="auto")
        return cls(model.to(device).eval(), tokenizer, max_tokens)

    def ask(self, messages: Sequence[Message], notify: Callable[[], None]) -> Reply:
        """Begin a reply; it waits for those before it."""

        def produce(reply: Reply) -> None:
            with self._busy:
                if not reply.closed:
                    self._write(messages, reply)

        return Reply(produce, notify)

    def _write(self, messages: Sequence[Message], reply: Reply) -> None:
        """Put the text of a reply as it is written, token by token: the likeliest one each time."""
        prompt = self.tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True)
        encoded = self.tokenizer(prompt, add_special_tokens=False, return_tensors="pt")["input_ids"]
        ids = encoded[:, -self._longest_prompt :].to(self.model.device)
        pieces = _Pieces(self.tokenizer, reply)

        def stops(ids: torch.Tensor, scores: Any) -> torch.Tensor:
            return torch.full((len(ids),), not pieces.wanted, device=ids.device)

        with torch.inference_mode():
            self.model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=self.max_tokens,
                do_sample=False,
                pad_token_id=self.tokenizer.pad_token_id or self.tokenizer.eos_token_id,
                streamer=pieces,
                stopping_criteria=[stops],
            )


class _Pieces:
    """A streamer of transformers: it gets the prompt, then each token, then `end`.

    Attributes:
        wanted: whether anybody wants more.
    """

    def __init__(self, tokenizer: Any, reply: Reply) -> None:
        self.wanted = True
        self._tokenizer, self._reply = tokenizer, reply
        self._tokens: list[int] | None = None  # None before the prompt
        self._given = 0

    def put(self, tokens: torch.Tensor) -> None:
        """The prompt, or a token."""
        if self._tokens is None:
            self._tokens = []
            return
        self._tokens += tokens.flatten().tolist()
        text = self._tokenizer.decode(self._tokens, skip_special_tokens=True)
        if not text.endswith("\N{REPLACEMENT CHARACTER}"):  # else a character of several tokens is under way
            self.wanted = self._reply.put(text[self._given :])
            self._given = len(text)

    def end(self) -> None:
        """Nothing follows; half a character is no text."""
