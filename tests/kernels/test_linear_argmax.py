"""The best output of a linear layer against torch's argmax and log-softmax."""

import torch
from torch.nn import functional as F

from loquent.kernels.best_tokens import linear_argmax


def test_it_is_the_largest_and_its_share():
    x, weight, bias = torch.randn(2, 5, 16), torch.randn(40, 16), torch.randn(40)
    ids, log_probs = linear_argmax(x, weight, bias)
    expected = F.linear(x, weight, bias).log_softmax(-1)
    assert torch.equal(ids, expected.argmax(-1))
    torch.testing.assert_close(log_probs, expected.amax(-1))


def test_equals_go_to_the_first_and_no_rows_to_none():
    weight, bias = torch.zeros(7, 16), torch.tensor([0.0, 1, 1, 0, 1, 0, 0])
    ids, log_probs = linear_argmax(torch.randn(3, 16), weight, bias)
    assert ids.tolist() == [1, 1, 1]
    torch.testing.assert_close(log_probs, bias.log_softmax(0)[[1, 1, 1]])
    assert linear_argmax(torch.zeros(0, 4, 16), weight, bias)[0].shape == (0, 4)


def test_smaller_floats_have_probabilities_in_single_precision():
    ids, log_probs = linear_argmax(
        torch.randn(3, 16).bfloat16(), torch.randn(9, 16).bfloat16(), torch.zeros(9).bfloat16()
    )
    assert ids.dtype == torch.long
    assert log_probs.dtype == torch.float32
