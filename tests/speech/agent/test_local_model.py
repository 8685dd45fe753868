"""A language model in this process: transformers' own greedy search, and talks with it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from loquent.speech.agent.local_model import LocalModel
from loquent.speech.runtime.events import Final, Speech

TEMPLATE = "{% for m in messages %}{{ m['role'][0] }}{{ m['content'] }}<e>{% endfor %}a"
HELLO: list[Any] = [{"role": "user", "content": "hello"}]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A random model of bytes."""
    path = tmp_path_factory.mktemp("model")
    alphabet = ["<e>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(models.BPE({letter: i for i, letter in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<e>", chat_template=TEMPLATE)
    fast.save_pretrained(path)
    torch.manual_seed(3)
    config = LlamaConfig(
        vocab_size=len(alphabet), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=256, eos_token_id=0, bos_token_id=None, initializer_range=0.6,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(path)
    return str(path)


def test_it_writes_what_transformers_writes(folder: str) -> None:
    local = LocalModel.from_pretrained(folder, max_tokens=40)
    pieces = []
    reply = local.ask(HELLO, lambda: pieces.append(None))
    reply.wait()
    text, error = reply.take(), reply.error
    prompt = local.tokenizer("uhello<e>a", return_tensors="pt", add_special_tokens=False)["input_ids"]
    with torch.inference_mode():
        expected = local.model.generate(prompt, max_new_tokens=40, do_sample=False, pad_token_id=0)
    assert error is None
    assert text
    assert local.tokenizer.decode(expected[0, prompt.shape[1] :], skip_special_tokens=True).rstrip("\ufffd") == text
    assert len(pieces) > 2  # as it is written


def test_a_reply_that_is_dropped_lets_the_next_one_begin(folder: str) -> None:
    local = LocalModel.from_pretrained(folder, max_tokens=200)
    first, second = local.ask(HELLO, lambda: None), local.ask(HELLO, lambda: None)
    first.close()
    second.wait()
    assert second.take()
    assert first.take() == ""


def test_a_model_that_cannot_chat_is_refused(folder: str) -> None:
    local = LocalModel.from_pretrained(folder, max_tokens=10)
    local.tokenizer.chat_template = None
    with pytest.raises(ValueError, match="no chat template"):
        LocalModel(local.model, local.tokenizer)
    with pytest.raises(ValueError, match="longest text"):
        LocalModel.from_pretrained(folder, max_tokens=256)


def test_it_talks(folder: str, agent_with, talking) -> None:
    talk = agent_with(LocalModel.from_pretrained(folder, max_tokens=12)).open(sample_rate=16_000, patient=True)
    events = talk.push(talking("What time is it?", 2.0)) + talk.finish()
    assert [event.text for event in events if isinstance(event, Final) and event.stage == "turn"] == [
        "What time is it?"
    ]
    replies = [event for event in events if event.stage == "reply" and event.type in ("partial", "unanswered")]
    assert replies
    assert all(np.isfinite(event.samples).all() for event in events if isinstance(event, Speech))
