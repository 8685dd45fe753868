"""ConvNeXt blocks: what they compute, and that a stack which sees the future streams exactly."""

import pytest
import torch
from torch.nn import functional as F

from loquent.tts.vocoder.convnext import ConvNeXtBlock, ConvNeXtStack


def block(seed, dim=6, hidden=10, kernel=7, dilation=1, right=None):
    torch.manual_seed(seed)
    made = ConvNeXtBlock(dim, hidden, kernel, dilation, right).eval()
    for weight in made.parameters():
        torch.nn.init.normal_(weight, std=0.5)
    return made


def plain(one, x, left, right):
    y = F.conv1d(
        F.pad(x.transpose(1, 2), (left, right)),
        one.depthwise.weight,
        one.depthwise.bias,
        dilation=one.dilation,
        groups=x.shape[2],
    ).transpose(1, 2)
    y = F.layer_norm(y, y.shape[-1:], one.norm.weight, one.norm.bias)
    y = F.gelu(y @ one.expand.weight.T + one.expand.bias) @ one.contract.weight.T + one.contract.bias
    return x + one.scale * y


@pytest.mark.parametrize(("kernel", "dilation", "right"), [(7, 1, 3), (5, 1, 2), (7, 4, 12), (7, 1, 0), (3, 2, 4)])
def test_a_block_is_a_convolution_and_two_layers_added_to_its_input(kernel, dilation, right):
    one = block(0, kernel=kernel, dilation=dilation, right=right)
    x = torch.randn(2, 30, 6)
    expected = plain(one, x, (kernel - 1) * dilation - right, right)
    torch.testing.assert_close(one(x), expected)  # with gradients
    with torch.no_grad():
        torch.testing.assert_close(one(x), expected)  # and without


def test_some_steps_of_a_block_need_their_neighbours_only():
    one, x = block(1, dilation=2), torch.randn(2, 40, 6)
    with torch.no_grad():
        whole = one(x)
        torch.testing.assert_close(one(x[:, 4:26], left=0, right=0), whole[:, 10:20])
        torch.testing.assert_close(one(x[:, :26], right=0), whole[:, :20])
        torch.testing.assert_close(one(x[:, 33:], left=0), whole[:, 39:])


def test_a_look_ahead_beyond_the_kernel_is_refused():
    with pytest.raises(ValueError, match="right=7 must be among the 6 steps"):
        ConvNeXtBlock(4, 4, 7, right=7)
    with pytest.raises(ValueError, match="dilation do not stream"):
        ConvNeXtStack([ConvNeXtBlock(4, 4, 7, 2)])


@pytest.mark.parametrize("lookaheads", [(3, 3, 3), (0, 3, 1), (0, 0), (6,)])
def test_a_stack_streams(check_streaming, lookaheads):
    stack = ConvNeXtStack([block(seed, right=right) for seed, right in enumerate(lookaheads)])
    assert stack.latency == sum(lookaheads)
    check_streaming(stack, torch.randn(3, 40, 6))


def test_what_lies_outside_the_stream_is_zero_to_every_layer():
    # With biases, a layer makes something of nothing; the next one must not see that.
    stack = ConvNeXtStack([block(seed) for seed in range(4)])
    x = torch.randn(1, 5, 6)  # shorter than the look-ahead
    with torch.no_grad():
        expected = x
        for one in stack.blocks:
            expected = plain(one, expected, 3, 3)
        out = stack.step(x, stack.initial_state(1), last=True)
    torch.testing.assert_close(out.data[:, :5], expected)
    assert out.length.tolist() == [5]
