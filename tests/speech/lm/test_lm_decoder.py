"""The decoder: transformers' numbers from transformers' weights, and the laws of streaming."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from loquent.speech.lm.decoder import Decoder
from loquent.speech.lm.decoder_config import DecoderConfig
from loquent.speech.nn.streaming import Chunk

SHAPE = {
    "vocab_size": 40,
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
}
KINDS: list[tuple[str, dict[str, Any]]] = [
    ("Qwen2", {}),
    ("Qwen3", {"head_dim": 8}),
    ("Llama", {"attention_bias": True, "mlp_bias": True, "rms_norm_eps": 1e-5}),
    ("Mistral", {"sliding_window": None, "num_key_value_heads": 6}),
]


def hugging_face(kind: str, values: dict[str, Any]) -> tuple[Any, Any]:
    """A tiny model with random weights, and its configuration."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(3)
    config = getattr(transformers, f"{kind}Config")(**SHAPE | values)
    model = getattr(transformers, f"{kind}ForCausalLM")(config).eval()
    for name, parameter in model.named_parameters():
        torch.nn.init.normal_(parameter, mean=float("norm" in name), std=0.3)
    return model, config


def of_hugging_face(model: Any, config: Any, capacity: int = 4096) -> Decoder:
    decoder = Decoder(DecoderConfig.from_hugging_face(config.to_dict()), capacity).eval()
    decoder.load_state_dict(model.model.state_dict())
    return decoder


@pytest.mark.parametrize(("kind", "values"), KINDS)
@torch.no_grad()
def test_hidden_steps_are_those_of_transformers(kind: str, values: dict[str, Any]) -> None:
    model, config = hugging_face(kind, values)
    decoder, ids = of_hugging_face(model, config), torch.randint(40, (3, 50))
    expected = model.model(input_ids=ids).last_hidden_state
    torch.testing.assert_close(decoder(decoder.embed_tokens(ids)), expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
@pytest.mark.filterwarnings("ignore:`past_key_values` is deprecated")
def test_it_goes_on_as_transformers_goes_on_with_its_cache() -> None:
    model, config = hugging_face(*KINDS[0])
    decoder, ids = of_hugging_face(model, config), torch.randint(40, (1, 20))
    state, cache = decoder.initial_state(1), None
    for part in ids.split([9, 1, 1, 4, 1, 1, 3], dim=1):
        out = model.model(input_ids=part, use_cache=True, past_key_values=cache)
        cache = out.past_key_values
        found = decoder.step(decoder.embed_tokens(part), state).data
        torch.testing.assert_close(found, out.last_hidden_state, rtol=1e-4, atol=1e-5)


def small(capacity: int = 64) -> Decoder:
    torch.manual_seed(0)
    config = DecoderConfig(10, 16, 24, layers=2, heads=4, kv_heads=2, head_dim=6)
    decoder = Decoder(config, capacity).eval()
    for parameter in decoder.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return decoder


def test_the_decoder_streams(check_streaming) -> None:
    check_streaming(small(capacity=130), torch.randn(3, 40, 16), examples=8)


def test_its_state_is_bounded_and_checked() -> None:
    decoder = small(capacity=8)
    state = decoder.initial_state(2)
    assert state.nbytes == 2 * (2 * 2 * 2 * 8 * 6 * 4 + 8)
    decoder.step(torch.randn(2, 8, 16), state)
    with pytest.raises(ValueError, match="9 steps, more than the capacity of 8"):
        decoder.step(torch.randn(1, 1, 16), state, torch.tensor([1]))
    saved = decoder.initial_state(2)
    saved.position[0] = 9
    with pytest.raises(ValueError, match="outside 0 … 8"):
        state.from_bytes(saved.to_bytes())


@torch.no_grad()
def test_what_lies_beyond_a_row_is_nothing() -> None:
    decoder, x = small(), torch.randn(2, 6, 16)
    x[1, 2:] = torch.nan
    length, last = torch.tensor([6, 2]), torch.zeros(2, dtype=torch.bool)
    state = decoder.initial_state(3)
    rows = torch.tensor([2, 0])
    out = decoder.step(Chunk(x, length, last), state, rows).data
    torch.testing.assert_close(out[1, :2], decoder(x[1:, :2])[0])
    assert all(tensor.isfinite().all() for _, tensor, _ in state.leaves())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "gpt2"}, "model_type is 'gpt2'"),
        ({"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e6}}, "positions of type 'yarn'"),
        ({"rope_scaling": {"type": "linear", "factor": 2}}, "positions of type 'linear'"),
        ({"use_sliding_window": True, "sliding_window": 9}, "sliding window"),
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu'"),
        ({"hidden_size": None}, "not a config.json"),
        ({"num_key_value_heads": 5}, "heads=6 must be a multiple of kv_heads=5"),
        ({"num_hidden_layers": 10**6}, "layers is '1000000'"),
    ],
)
def test_models_without_a_decoder_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DecoderConfig.from_hugging_face({"model_type": "qwen2"} | SHAPE | change)


def test_old_configurations_name_the_base_elsewhere() -> None:
    assert DecoderConfig.from_hugging_face({"model_type": "qwen2", "rope_theta": 5e5} | SHAPE).rope_base == 5e5
