"""Makes the golden files of the language model's parity tests with CosyVoice's own code (2 and 3); run by hand.

    PYTHONPATH=<checkout of FunAudioLLM/CosyVoice> python tests/tts/lm/make_lm_goldens.py

writes `lm_cosyvoice2.safetensors` and `lm_cosyvoice3.safetensors` to tests/tts/lm/data, each with a tiny Qwen2, random
weights under the names of an `llm.pt` (`weights.<name>`), and what upstream computes with them:

    text, speech                       (U,), (N,) tokens of a training example; prompt_text, prompt_speech: of a voice
    whole.loss, turns.loss             of the example, text first and in turns
    turns.logits                       (T, rows) of the latter
    whole.tokens                       what `inference` draws for the text and the prompt
    turns.tokens, turns.plain          what `inference_bistream` draws with the prompt, and without (CosyVoice 2 only:
                                       without, 3's draws speech before it has taken any text)

The sampler is upstream's, but takes its numbers from `loquent.tts.lm.sampling.draws` with seed 5. Three rules that are
ours are imposed on it: marks that cannot stand where they are drawn are not drawn, where upstream ends or raises an
error; what ends text that comes in turns goes on behind the last speech token, which upstream feeds twice; and the mark
of CosyVoice 3's end is what an early end is kept from, where upstream keeps another one.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import Qwen2Config, Qwen2ForCausalLM

from loquent.tts.lm.sampling import draws

sys.modules["cosyvoice.utils.onnx"] = stub = ModuleType("cosyvoice.utils.onnx")  # whose imports nothing here needs
stub.SpeechTokenExtractor = stub.online_feature = stub.onnx_path = None

import cosyvoice.llm.llm as upstream  # noqa: E402
import cosyvoice.utils.common as common  # noqa: E402

DATA = Path(__file__).parent / "data"
CODES, TEXT, END_OF_PROMPT, SEED = 24, 64, 63, 5
UPSTREAMS_END_OF_PROMPT = 151_646
CONFIG = Qwen2Config(
    vocab_size=TEXT,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    rope_parameters={"rope_theta": 1e6, "rope_type": "default"},
    tie_word_embeddings=True,
)


class FewTokens(nn.Module):
    """An embedding of text that has room for upstream's number of the prompt's end."""

    def __init__(self, inner: nn.Embedding) -> None:
        super().__init__()
        self.weight = inner.weight

    def forward(self, ids: Tensor) -> Tensor:
        return nn.functional.embedding(torch.where(ids == UPSTREAMS_END_OF_PROMPT, END_OF_PROMPT, ids), self.weight)


def make(kind: Any, seed: int) -> Any:
    encoder = upstream.Qwen2Encoder.__new__(upstream.Qwen2Encoder)
    nn.Module.__init__(encoder)
    encoder.model = Qwen2ForCausalLM(CONFIG)
    model = kind(32, 32, CODES, encoder, common.ras_sampling).eval()
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in sorted(model.state_dict().items()):
            noise = torch.randn(value.shape, generator=draw)
            if "norm" in name:
                value.copy_(1 + 0.2 * noise)
            elif value.ndim == 1:
                value.copy_(0.3 * noise)
            elif "embed" in name:
                value.copy_(noise)
            else:
                value.copy_(noise * (2.5 if "llm_decoder" in name else 1.5) / value.shape[1] ** 0.5)
            value.copy_(value.half().float())
    encoder.model.tie_weights()
    return model


class Sampler:
    """Upstream's sampling with given numbers and without misplaced marks."""

    def __init__(self, model: Any, in_turns: bool) -> None:
        self.model, self.in_turns = model, in_turns

    def __call__(self, scores: Tensor, decoded: list[int], sampling: int, ignore_eos: bool = True) -> int:
        allowed = set(range(CODES))
        if not ignore_eos:
            allowed.add(self.model.eos_token)
        elif self.in_turns:
            allowed.add(self.model.fill_token)
        for row in range(len(scores)):
            if row not in allowed:
                scores[row] = -torch.inf
        given = iter(draws(torch.tensor([SEED]), torch.tensor([len(decoded)]))[0].tolist())
        original = Tensor.multinomial

        def multinomial(chance: Tensor, count: int, replacement: bool) -> Tensor:
            total = chance.double().cumsum(0)
            return (total <= next(given) * total[-1]).sum()[None].clamp(max=len(chance) - 1)

        Tensor.multinomial = multinomial
        try:
            return int(self.model.sampling(scores, decoded, sampling))
        finally:
            Tensor.multinomial = original


def without_repeating(model: Any) -> None:
    """What is fed behind the rest of the text begins with the last speech token, which has been fed already."""
    forward, fed = model.llm.forward_one_step, []

    def once(x: Tensor, masks: Tensor, cache: Any = None) -> Any:
        repeats = cache is not None and x.shape[1] > 1 and torch.equal(x[:, :1], fed[-1])
        x = x[:, 1:] if repeats else x
        fed.append(x[:, -1:])
        total = x.shape[1] + (len(cache) if cache is not None else 0)
        y, cache = forward(x, torch.ones(1, total, total, dtype=torch.bool), cache and cache.cache)
        return y, Indexed(cache)

    model.llm.forward_one_step = once


class Indexed:
    """A cache whose length is found where older versions of transformers had it."""

    def __init__(self, cache: Any) -> None:
        self.cache = cache

    def __len__(self) -> int:
        return self.cache.get_seq_length()

    def __getitem__(self, layer: int) -> tuple[Tensor]:
        return (torch.zeros(1, 1, len(self)),)


@torch.no_grad()
def trained(model: Any, text: Tensor, speech: Tensor, prefix: Tensor, turns: bool) -> tuple[Tensor, Tensor]:
    """Loss and logits of a training example."""
    upstream.random.random = lambda: 0.0 if turns else 1.0
    three = isinstance(model, upstream.CosyVoice3LM)
    marks = model.speech_embedding.weight if three else model.llm_embedding.weight
    embed = model.llm.model.model.embed_tokens
    example = [text[None], embed(text[None]), torch.tensor([len(text)])]
    spoken = [speech[None], model.speech_embedding(speech[None]), torch.tensor([len(speech)])]
    before = [prefix[None], embed(prefix[None]), torch.tensor([len(prefix)])]
    start, task = marks[model.sos].reshape(1, 1, -1), marks[model.task_id].reshape(1, 1, -1)
    target, x, length = model.prepare_lm_input_target(start, *example, task, *spoken, *before)
    logits = model.llm_decoder(model.llm(x, length)[0])
    return model.criterion_ce(logits, target), logits[0]


def drawn(model: Any, text: list[int], prompt_text: list[int], prompt_speech: list[int], turns: bool) -> Tensor:
    model.sampling_ids = Sampler(model, turns)
    prompt = (torch.tensor([prompt_text]).long(), torch.tensor([len(prompt_text)], dtype=torch.int32))
    speech = (torch.tensor([prompt_speech]).long(), torch.tensor([len(prompt_speech)], dtype=torch.int32))
    if turns:
        pieces = (torch.tensor([[token]]) for token in text)
        tokens = model.inference_bistream(pieces, *prompt, *speech, torch.zeros(0, 192))
    else:
        whole = torch.tensor([text]), torch.tensor([len(text)], dtype=torch.int32)
        tokens = model.inference(*whole, *prompt, *speech, torch.zeros(0, 192))
    found = []
    for token in tokens:
        found.append(token)
        if len(found) == 20 * len(text):  # upstream has no such bound for text in turns
            break
    return torch.tensor(found)


def main() -> None:
    torch.set_num_threads(1)
    logging.disable()
    DATA.mkdir(exist_ok=True)
    for number, kind in ((2, upstream.Qwen2LM), (3, upstream.CosyVoice3LM)):
        model = make(kind, seed=number)
        weights = {f"weights.{name}": value.half() for name, value in model.state_dict().items()}
        model.llm.model.model.embed_tokens = FewTokens(model.llm.model.model.embed_tokens)
        draw = torch.Generator().manual_seed(7)
        text, speech = (torch.randint(high, (n,), generator=draw) for high, n in ((60, 12), (CODES, 50)))
        prompt_text, prompt_speech = (torch.randint(h, (n,), generator=draw) for h, n in ((60, 6), (CODES, 22)))
        prefix = torch.tensor([1, 2, 3, UPSTREAMS_END_OF_PROMPT])[: 0 if number == 2 else None]
        goldens = {"text": text, "speech": speech, "prompt_text": prompt_text, "prompt_speech": prompt_speech}
        goldens["whole.loss"], _ = trained(model, text, speech, prefix, turns=False)
        goldens["turns.loss"], goldens["turns.logits"] = trained(model, text, speech, prefix, turns=True)
        with_prefix = [*prefix.tolist(), *prompt_text.tolist()]
        without_repeating(model)
        goldens["whole.tokens"] = drawn(model, text.tolist(), with_prefix, prompt_speech.tolist(), turns=False)
        goldens["turns.tokens"] = drawn(model, text.tolist(), with_prefix, prompt_speech.tolist(), turns=True)
        if number == 2:
            goldens["turns.plain"] = drawn(model, text.tolist(), [], [], turns=True)
        save_file(
            {name: value.contiguous() for name, value in (weights | goldens).items()},
            DATA / f"lm_cosyvoice{number}.safetensors",
            metadata={"config": CONFIG.to_json_string(use_diff=False)},
        )


if __name__ == "__main__":
    main()
