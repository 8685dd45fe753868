"""What upstream's own code computes with the same weights (`make_cosyvoice_goldens.py`), computed here, whole and
streamed; and the laws for every kind of flow."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from loquent.speech.nn.streaming import Chunk
from loquent.tts.flow.cosyvoice_weights import from_cosyvoice
from loquent.tts.flow.dit import DiTConfig
from loquent.tts.flow.encoder import EncoderConfig, PreLookahead, RepeatConfig, UpsampleEncoder
from loquent.tts.flow.estimator import CompactConfig
from loquent.tts.flow.lm import LanguageModelConfig
from loquent.tts.flow.masks import FULL, ChunkMask
from loquent.tts.flow.noise import CounterNoise
from loquent.tts.flow.token_flow import Inference, TokenFlow, TokenFlowConfig
from loquent.tts.flow.unet import UNetConfig

TOLERANCE = 2e-4
KINDS = ("unet", "dit")


@pytest.fixture(scope="module")
def made():
    """The program that made the goldens: it knows the weights and inputs."""
    path = Path(__file__).parent / "make_cosyvoice_goldens.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = sys.modules[path.stem] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def goldens(made) -> dict[str, Tensor]:
    with safe_open(made.GOLDENS, "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


@pytest.fixture(scope="module")
def flow(made):
    """A function that makes upstream's flow of a kind, to be run in a given way."""
    with safe_open(made.GOLDENS, "pt") as file:
        shapes = {kind: json.loads(file.metadata()[kind]) for kind in KINDS}

    def build(kind: str, how: Inference) -> TokenFlow:
        config, weights = from_cosyvoice(made.draw(shapes[kind]), made.HEAD)
        module = TokenFlow(config, how).eval()
        module.load_state_dict(weights)
        return module

    build.shapes = shapes
    return build


def mask_of(name: str, made, left: int | None = None) -> ChunkMask:
    return FULL if name == "full" else ChunkMask(made.CHUNK, left)


def close(found: Tensor, expected: Tensor) -> bool:
    return found.shape == expected.shape and bool((found - expected).abs().max() <= TOLERANCE)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mask", ["full", "chunk"])
@torch.no_grad()
def test_the_estimator_gives_what_upstreams_gives(kind, mask, made, goldens, flow):
    module, given = flow(kind, Inference(mask_of(mask, made))), made.inputs()
    frames = given["x"].shape[1]
    condition = torch.cat([given["mu"], given["voice"][:, None].expand(-1, frames, -1), given["given"]], dim=2)
    seen = module.solver.mask.seen(frames)
    found = module.solver.estimator(given["x"], condition, torch.tensor([made.TIME]), seen)
    assert close(found[0], goldens[f"{kind}.{mask}.flow"])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mask", ["full", "chunk"])
@torch.no_grad()
def test_whole_streams_give_what_upstreams_whole_pass_gives(kind, mask, made, goldens, flow):
    module, given = flow(kind, Inference(mask_of(mask, made))), made.inputs()
    found = module(given["tokens"], given["speaker"], given["prompt"])
    assert close(found[0, 2 * made.PROMPT :], goldens[f"{kind}.{mask}"])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("packet", [1, 4, 26])
@torch.no_grad()
def test_streams_give_what_upstreams_whole_pass_gives(kind, packet, made, goldens, flow):
    module, given = flow(kind, Inference(mask_of("chunk", made, left=30), prompt=20)), made.inputs()
    state, rows = module.initial_state(3), torch.tensor([1])
    module.prime(state, rows, given["speaker"], given["prompt"], torch.tensor([2 * made.PROMPT]))
    parts = []
    for start in range(0, made.TOKENS, packet):
        tokens = given["tokens"][:, start : start + packet]
        out = module.step(Chunk.of(tokens, last=start + packet >= made.TOKENS), state, rows)
        parts += out.rows()
    assert close(torch.cat(parts)[2 * made.PROMPT :], goldens[f"{kind}.chunk"])


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_a_prompt_is_remembered_as_a_state(kind, made, flow):
    module, given = flow(kind, Inference(ChunkMask(made.CHUNK, 5), steps=2, prompt=20)), made.inputs()
    voice = module.initial_state(1)
    module.prime(voice, torch.tensor([0]), given["speaker"], given["prompt"], torch.tensor([2 * made.PROMPT]))
    module.step(given["tokens"][:, : made.PROMPT], voice)
    state = module.initial_state(4)
    state.scatter([0, 2], voice.gather([0, 0]))
    rest = given["tokens"][:, made.PROMPT :].expand(2, -1)
    out = module.step(Chunk.of(rest, last=True), state, torch.tensor([2, 0]))
    whole = module(given["tokens"], given["speaker"], given["prompt"])[0]
    for row in out.rows():  # the first chunk of five tokens is that of the prompt
        assert close(row, whole[-len(row) :])


def test_a_prompt_that_is_too_long_is_refused(made, flow):
    module = flow("dit", Inference(ChunkMask(5, 5), prompt=20))
    state, one = module.initial_state(1), torch.tensor([0])
    with pytest.raises(ValueError, match="prompt of 21 frames, at most 20"):
        module.prime(state, one, torch.zeros(1, made.SPEAKER), torch.zeros(1, 21, made.BINS), one)


@pytest.mark.parametrize("kind", KINDS)
def test_weights_that_do_not_belong_are_refused(kind, made, flow):
    weights = made.draw(flow.shapes[kind])
    with pytest.raises(ValueError, match=r"decoder\.estimator\.extra has no place"):
        from_cosyvoice({**weights, "decoder.estimator.extra": torch.zeros(1)}, made.HEAD)
    name = "spk_embed_affine_layer.bias"
    with pytest.raises(ValueError, match=f"{name} has shape"):
        from_cosyvoice({**weights, name: torch.zeros(81)}, made.HEAD)
    with pytest.raises(ValueError, match=f"{name} is missing"):
        from_cosyvoice({key: weight for key, weight in weights.items() if key != name}, made.HEAD)
    with pytest.raises(ValueError, match="not the flow of CosyVoice"):
        from_cosyvoice({"generator.weight": torch.zeros(1)})


BINS, CONDITIONS = 8, 24
ESTIMATORS = (
    CompactConfig(BINS, CONDITIONS, channels=32, layers=2, attention=(1,), heads=2),
    UNetConfig(BINS, CONDITIONS, channels=16, middle=1, blocks=1, heads=2, head_size=16),
    DiTConfig(BINS, CONDITIONS, channels=32, layers=2, heads=2, head_size=16, kernel=5, groups=4, time_features=16),
    LanguageModelConfig(BINS, CONDITIONS, channels=32, layers=2, heads=2, inner=48),
)


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda config: type(config).__name__)
def test_every_estimator_streams(estimator, check_streaming):
    torch.manual_seed(0)
    config = TokenFlowConfig(RepeatConfig(BINS, 12, 2), estimator, vocabulary=20, speaker=6)
    module = TokenFlow(config, Inference(ChunkMask(3, 4), steps=2), CounterNoise()).eval()
    check_streaming(module, torch.randint(0, 20, (3, 17)), examples=3, tight=False)  # a token has no neighbour


def test_the_flow_with_an_upsampling_encoder_streams(check_streaming):
    torch.manual_seed(0)
    encoder = EncoderConfig(channels=32, heads=2, inner=40, layers=2, up_layers=1)
    config = TokenFlowConfig(encoder, ESTIMATORS[1], vocabulary=20, speaker=6)
    module = TokenFlow(config, Inference(ChunkMask(3, 4), steps=2), CounterNoise()).eval()
    check_streaming(module, torch.randint(0, 20, (3, 17)), examples=3, tight=False)  # a token has no neighbour


@pytest.mark.parametrize("mask", [ChunkMask(1, 3), ChunkMask(4, 0), ChunkMask(3, 5)])
def test_the_encoder_streams(mask, check_streaming):
    torch.manual_seed(0)
    encoder = UpsampleEncoder(EncoderConfig(channels=32, heads=2, inner=40, layers=2, up_layers=1), mask).eval()
    check_streaming(encoder, torch.randn(3, 19, 32), examples=4)


def test_looking_ahead_streams(check_streaming):
    torch.manual_seed(0)
    check_streaming(PreLookahead(6, 5, 3).eval(), torch.randn(3, 12, 6))


def test_sizes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="needs 24 conditions, got 16"):
        TokenFlowConfig(RepeatConfig(8), CompactConfig(8, 16))
    with pytest.raises(ValueError, match="80 channels"):
        TokenFlowConfig(RepeatConfig(), CompactConfig(8, 24))
