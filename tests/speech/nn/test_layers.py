"""Convolutions and attention: equal to torch's own on whole inputs, and lawful as streams."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from loquent.kernels.registry import use_backend
from loquent.speech.nn.attention import RingAttention
from loquent.speech.nn.convolution import Conv1d, Conv2d, ConvTranspose1d
from loquent.speech.nn.positions import Rotary, sinusoids
from loquent.speech.nn.relative_attention import RelativeAttention, Sight
from loquent.speech.nn.streaming import Blocks, Chain, Chunk, StreamingModule

CONVOLUTIONS = {
    "causal": lambda: Conv1d(4, 6, 3),
    "delayed": lambda: Conv1d(4, 6, 5, right=2),
    "strided, Whisper": lambda: Conv1d(4, 6, 3, stride=2, left=1, right=1),
    "strided, causal": lambda: Conv1d(4, 6, 3, stride=2, left=2),
    "stride beyond kernel": lambda: Conv1d(4, 6, 2, stride=3, left=0),
    "dilated": lambda: Conv1d(4, 4, 3, dilation=3),
    "grouped": lambda: Conv1d(4, 6, 3, groups=2, bias=False),
    "depthwise": lambda: Conv1d(4, 4, 9, groups=4),
    "depthwise without bias": lambda: Conv1d(4, 4, 4, groups=4, bias=False),
    "depthwise, delayed": lambda: Conv1d(4, 4, 9, groups=4, right=4),
    "pointwise": lambda: Conv1d(4, 6, 1),
    "depthwise, pointwise": lambda: Conv1d(4, 4, 1, groups=4),
}


def attention(dim: int = 16, heads: int = 2, **options) -> RingAttention:
    """Attention with random projections; the key has no bias, as in Whisper."""
    parts = [nn.Linear(dim, dim), nn.Linear(dim, dim, bias=False), nn.Linear(dim, dim), nn.Linear(dim, dim)]
    return RingAttention(heads, *parts, **options).eval()


class Limited(StreamingModule):
    """Relative attention in which a step sees itself and ``left`` steps before it."""

    def __init__(self, left: int, dim: int = 16, heads: int = 2) -> None:
        super().__init__()
        self.left = left
        self.attention = RelativeAttention(dim, heads, past=left, future=0, memory=left)
        nn.init.normal_(self.attention.content_bias)
        nn.init.normal_(self.attention.distance_bias)

    def forward(self, x):
        step = torch.arange(x.shape[1]).expand(x.shape[0], -1)
        return self.attention(x, Sight(step, step - self.left, step + 1))

    def initial_state(self, batch):
        return self.attention.initial_state(batch)

    def step(self, x, state, rows=None, last=False):
        chunk = x if isinstance(x, Chunk) else Chunk.of(x, last)
        rows = torch.arange(len(chunk.data)) if rows is None else rows
        step = state.position[rows][:, None] + torch.arange(chunk.data.shape[1])
        sight = Sight(step, (step - self.left).clamp(min=0), torch.where(chunk.mask, step + 1, 0))
        return chunk.with_data(self.attention.step(chunk, state, rows, sight))

    def inputs_for(self, outputs):
        return outputs


def blocks(size: int, module: StreamingModule) -> Chain:
    """``module`` fed by whole blocks."""
    return Chain(Blocks(size, 16), module)


ATTENTIONS = {
    "causal, bounded": lambda: attention(capacity=64),
    "limited": lambda: attention(left=5),
    "own step only": lambda: attention(left=0),
    "sinks": lambda: attention(left=4, sinks=2),
    "rotary": lambda: attention(left=6, rotary=Rotary(8)),
    "rotary, sinks, spare room": lambda: attention(left=3, sinks=1, capacity=11, rotary=Rotary(8, interleaved=True)),
    "blocks, bounded": lambda: blocks(3, attention(block=3, capacity=64)),
    "blocks, limited": lambda: blocks(4, attention(block=4, left=6)),
    "blocks, sinks": lambda: blocks(3, attention(block=3, left=3, sinks=4)),
    "relative": lambda: Limited(left=5).eval(),
    "relative, own step only": lambda: Limited(left=0).eval(),
}


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolutions_obey_the_laws(name, check_streaming):
    check_streaming(CONVOLUTIONS[name]().eval(), torch.randn(3, 32, 4), shortest=5, examples=5)


@pytest.mark.parametrize(("kernel", "stride", "groups"), [(4, 2, 1), (3, 3, 1), (16, 8, 1), (7, 2, 2), (5, 1, 4)])
def test_transposed_convolutions_obey_the_laws(kernel, stride, groups, check_streaming):
    check_streaming(ConvTranspose1d(4, 4, kernel, stride, groups=groups).eval(), torch.randn(3, 20, 4), examples=5)


@pytest.mark.parametrize(("groups", "left", "right"), [(1, 2, 1), (4, 2, 1), (2, 1, 1), (1, None, 0)])
def test_convolutions_over_time_and_frequency_obey_the_laws(groups, left, right, check_streaming):
    module = Conv2d(4, 8, 3, 2, left=left, right=right, groups=groups, bins=9).eval()
    x = torch.randn(3, 24, 9, 4)
    pad = module.window.left, right, module.window.left, right
    whole = F.conv2d(F.pad(x.permute(0, 3, 1, 2), pad), module.weight, module.bias, 2, groups=groups)
    torch.testing.assert_close(module(x), whole.permute(0, 2, 3, 1))
    assert module(x).shape[2] == module.out_bins
    check_streaming(module, x, examples=5)


@pytest.mark.parametrize("name", ATTENTIONS)
def test_attentions_obey_the_laws(name, check_streaming):
    check_streaming(ATTENTIONS[name](), torch.randn(3, 24, 16), examples=4)


@pytest.mark.parametrize("name", ["sinks", "blocks, limited"])
def test_the_reference_obeys_them_too(name, check_streaming):
    with use_backend("reference"):
        check_streaming(ATTENTIONS[name](), torch.randn(3, 24, 16), examples=4)


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolution_matches_torch_and_takes_its_weights(name):
    ours = CONVOLUTIONS[name]()
    out_channels, in_channels, kernel = ours.weight.shape
    stride, dilation, bias = ours.window.stride, ours.dilation, ours.bias is not None
    theirs = nn.Conv1d(in_channels * ours.groups, out_channels, kernel, stride, 0, dilation, ours.groups, bias)
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(2, 20, 4)
    padded = F.pad(x.transpose(1, 2), (ours.window.left, ours.window.right))
    torch.testing.assert_close(ours(x), theirs(padded).transpose(1, 2))


def test_transposed_convolution_matches_torch_and_takes_its_weights():
    ours, theirs = ConvTranspose1d(4, 6, 7, 3), nn.ConvTranspose1d(4, 6, 7, 3)
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(2, 9, 4)
    torch.testing.assert_close(ours(x), theirs(x.transpose(1, 2)).transpose(1, 2)[:, :27])


def test_impossible_convolutions_are_refused():
    with pytest.raises(ValueError, match="groups=3"):
        Conv1d(4, 6, 3, groups=3)
    with pytest.raises(ValueError, match="left=-2"):
        Conv1d(4, 6, 3, right=4)
    with pytest.raises(ValueError, match="shorter than stride=4"):
        ConvTranspose1d(4, 6, 3, 4)


def test_causal_attention_matches_torch():
    ours, theirs = attention(capacity=16), nn.MultiheadAttention(16, 2, batch_first=True)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([ours.query.weight, ours.key.weight, ours.value.weight]))
        theirs.in_proj_bias.copy_(torch.cat([ours.query.bias, torch.zeros(16), ours.value.bias]))
        theirs.out_proj.load_state_dict(ours.out.state_dict())
    x = torch.randn(2, 12, 16)
    expected, _ = theirs(x, x, x, attn_mask=~torch.ones(12, 12, dtype=torch.bool).tril())
    torch.testing.assert_close(ours(x), expected)


def test_attention_that_remembers_everything_refuses_to_overflow():
    module = attention(capacity=6)
    state = module.initial_state(1)
    with torch.no_grad():
        module.step(torch.randn(1, 4, 16), state)
        with pytest.raises(ValueError, match="7 steps but left=None remembers only capacity=6"):
            module.step(torch.randn(1, 3, 16), state)
        assert state.position.tolist() == [4], "a refused step must leave the state alone"
        module.step(torch.randn(1, 2, 16), state)


def test_attention_needs_room_for_what_it_sees():
    with pytest.raises(ValueError, match="give the capacity"):
        attention()
    with pytest.raises(ValueError, match="capacity=6 steps cannot hold left=5 and sinks=2"):
        attention(left=5, sinks=2, capacity=6)


def test_steps_beyond_a_rows_length_may_be_anything():
    x = torch.randn(2, 5, 16)
    chunk = Chunk(x.clone(), torch.tensor([5, 3]), torch.tensor([False, False]))
    chunk.data[1, 3:] = math.nan
    convolutions = Conv1d(16, 16, 3, groups=16), Conv1d(16, 16, 3)
    for module in (attention(left=4), Limited(left=4), *convolutions):
        state = module.eval().initial_state(2)
        with torch.no_grad():
            module.step(chunk, state)
            again = module.step(x[:, :2], state)
        assert all(tensor.isfinite().all() for _, tensor, _ in state.leaves())
        assert again.data.isfinite().all()


def test_relative_attention_is_that_of_transformer_xl():
    heads, dim, steps = 2, 16, 7
    outer = Limited(left=steps).eval()
    module = outer.attention
    x = torch.randn(1, steps, dim)
    q, k, v = (p(x).view(steps, heads, dim // heads) for p in (module.query, module.key, module.value))
    out = torch.zeros(steps, heads, dim // heads)
    for head in range(heads):
        for i in range(steps):
            scores = []
            for j in range(i + 1):
                place = torch.zeros(dim)
                for c in range(dim // 2):
                    angle = (i - j) / 10_000 ** (2 * c / dim)
                    place[2 * c], place[2 * c + 1] = math.sin(angle), math.cos(angle)
                distance = module.distance(place).view(heads, -1)[head]
                content = (q[i, head] + module.content_bias[head]) @ k[j, head]
                score = content + (q[i, head] + module.distance_bias[head]) @ distance
                scores.append(score / math.sqrt(dim // heads))
            out[i, head] = torch.stack(scores).softmax(0) @ v[: i + 1, head]
    torch.testing.assert_close(outer(x), module.out(out.view(1, steps, dim)))


@pytest.mark.parametrize("interleaved", [False, True])
def test_rotary_scores_depend_on_the_distance_alone(interleaved):
    rotary = Rotary(16, interleaved=interleaved)
    q, k = torch.randn(1, 1, 3, 16), torch.randn(1, 1, 3, 16)

    def score(i: int, j: int) -> torch.Tensor:
        return (rotary(q, torch.tensor([i])) * rotary(k, torch.tensor([j]))).sum(-1)

    torch.testing.assert_close(score(7, 4), score(3, 0))
    torch.testing.assert_close(score(10_000_007, 10_000_004), score(3, 0), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(rotary(q, torch.tensor([0])), q)


def test_rotary_pairs():
    x = torch.zeros(1, 1, 1, 4)
    x[..., 0] = 1
    turned = torch.tensor([math.cos(1), math.sin(1)])
    torch.testing.assert_close(Rotary(4, interleaved=True)(x, torch.tensor([1])).flatten()[[0, 1]], turned)
    torch.testing.assert_close(Rotary(4)(x, torch.tensor([1])).flatten()[[0, 2]], turned)
    with pytest.raises(ValueError, match="even number"):
        Rotary(3)


def test_sinusoids_are_interleaved_and_signed():
    ahead, behind = sinusoids(torch.tensor([-3, 3]), 6)
    torch.testing.assert_close(behind[:2], torch.tensor([math.sin(3), math.cos(3)]))
    torch.testing.assert_close(ahead[0::2], -behind[0::2])
    torch.testing.assert_close(ahead[1::2], behind[1::2])
